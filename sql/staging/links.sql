-- One row per user-user relation known before as_of; since = null: undated, taken as always known.
-- known_at: only rows that had arrived before that time and were not replaced by then; 'infinity': all known now.
-- key: user_id, other_user_id, relation
select
    user_id,
    other_user_id,
    relation,
    coalesce(max(strength), 1) as strength,
    case when count(*) = count(since) then min(since) end as since,
from raw.links
where
    loaded_at < getvariable('known_at')
    and coalesce(superseded_at, timestamp 'infinity') >= getvariable('known_at')
    and excluded_because is null
    and user_id != other_user_id
    and (since is null or since < getvariable('as_of'))
group by user_id, other_user_id, relation
