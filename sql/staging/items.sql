-- One row per item known before as_of, with the newest attributes known by then; valid_to = no longer offered from then on.
-- known_at: only rows that had arrived before that time and were not replaced by then; 'infinity': all known now.
-- Without a date of its own, an item is known from the first event on.
-- key: item_id
with versions as (
    select *
    from raw.items
    where
        loaded_at < getvariable('known_at')
        and coalesce(superseded_at, timestamp 'infinity') >= getvariable('known_at')
        and excluded_because is null
        and (valid_from is null or valid_from < getvariable('as_of'))
),

attributes as (
    select
        item_id,
        * exclude (item_id, valid_from, excluded_because, source_file, source_row, loaded_at, superseded_at),
    from versions
    qualify
        row_number() over (
            partition by item_id order by valid_from desc nulls last, loaded_at desc, source_file desc, source_row desc
        ) = 1
),

known as (
    select
        item_id,
        min(valid_from) as valid_from,
    from (
        select
            item_id,
            valid_from,
        from versions
        where valid_from is not null
        union all
        select
            item_id,
            event_date as valid_from,
        from staging.interactions
    )
    group by item_id
)

select
    known.item_id,
    known.valid_from,
    case when attributes.valid_to < getvariable('as_of') then attributes.valid_to end as valid_to,
    attributes.* exclude (item_id, valid_to),
from known
left join attributes using (item_id)
