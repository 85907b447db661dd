-- One row per fact known before as_of; since = null: undated, taken as always known.
-- key: subject, relation, object
-- A subject that is neither a known item nor told of by another fact is out of any item's reach, e.g. an item launched
-- later: its facts wait.
with facts as (
    select *
    from raw.facts
    where
        superseded_at is null
        and excluded_because is null
        and (since is null or since < getvariable('as_of'))
),

reachable as (
    select item_id as subject
    from staging.items
    union
    select object as subject
    from facts
)

select
    subject,
    relation,
    object,
    case when count(*) = count(since) then min(since) end as since,
from facts
semi join reachable using (subject)
group by subject, relation, object
