-- The newest lists: one row per list, user and rank.
select
    as_of,
    list,
    user_id,
    rank,
    item_id,
    score,
    model,
    reason,
    reason_item_id,
from recommendations
where as_of = (select max(as_of) from recommendations)
