-- One row per fact known before as_of; since = null: undated, taken as always known.
-- known_at: only rows that had arrived before that time and were not replaced by then; 'infinity': all known now.
-- key: subject, relation, object
-- A subject that no chain of facts leads to from a known item waits: an item launched later does not bring its facts along.
with recursive facts as (
    select *
    from raw.facts
    where
        loaded_at < getvariable('known_at')
        and coalesce(superseded_at, timestamp 'infinity') >= getvariable('known_at')
        and excluded_because is null
        and (since is null or since < getvariable('as_of'))
),

reachable as (
    select item_id as subject
    from staging.items
    union
    select facts.object as subject
    from facts
    inner join reachable on facts.subject = reachable.subject
)

select
    subject,
    relation,
    object,
    case when count(*) = count(since) then min(since) end as since,
from facts
semi join reachable using (subject)
group by subject, relation, object
