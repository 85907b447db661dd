-- All lists of the kept dates: one row per as_of, list, user and rank.
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
