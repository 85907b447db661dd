-- One row per event before as_of by the source's natural key; repeated deliveries of an event are counted.
-- known_at: only rows that had arrived before that time and were not replaced by then; 'infinity': all known now.
-- key: the natural_key of source.toml (user_id and item_id always belong to it)
with events as (
    select *
    from raw.interactions
    where
        loaded_at < getvariable('known_at')
        and coalesce(superseded_at, timestamp 'infinity') >= getvariable('known_at')
        and excluded_because is null
        and event_date < getvariable('as_of')
)

select
    user_id,
    item_id,
    any_value(event_type order by event_type) as event_type,
    max(occurred_at) as occurred_at,
    max(event_date) as event_date,
    max(value) as value,
    count(*) as duplicate_count,
from events
group by
    user_id,
    item_id,
    case when list_contains(getvariable('natural_key'), 'event_type') then event_type end,
    case when list_contains(getvariable('natural_key'), 'occurred_at') then occurred_at end,
    case when list_contains(getvariable('natural_key'), 'event_date') then event_date end,
    case when list_contains(getvariable('natural_key'), 'value') then value end
