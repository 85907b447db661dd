-- One row per user-user relation known before as_of; since = null: undated, taken as always known.
-- key: user_id, other_user_id, relation
select
    user_id,
    other_user_id,
    relation,
    coalesce(max(strength), 1) as strength,
    case when count(*) = count(since) then min(since) end as since,
from raw.links
where
    superseded_at is null
    and excluded_because is null
    and user_id != other_user_id
    and (since is null or since < getvariable('as_of'))
group by user_id, other_user_id, relation
