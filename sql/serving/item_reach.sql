-- How far each item reaches: one row per kept date, list and item that stands in a list.
select
    as_of,
    list,
    item_id,
    users,
    users_share,
    mean_rank
from reach
