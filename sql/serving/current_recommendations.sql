-- The newest lists: one row per list, user and rank.
-- No comma before from: this text makes the view in PostgreSQL as well, as all views of this folder.
select
    as_of,
    list,
    user_id,
    rank,
    item_id,
    score,
    model,
    reason,
    reason_item_id
from recommendations
where as_of = (select max(as_of) from runs)
