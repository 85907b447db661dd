-- One row per fact known before as_of; since = null: undated, taken as always known.
-- key: subject, relation, object
select
    subject,
    relation,
    object,
    case when count(*) = count(since) then min(since) end as since,
from raw.facts
where
    superseded_at is null
    and excluded_because is null
    and (since is null or since < getvariable('as_of'))
group by subject, relation, object
