-- One row per list, user and rank of one kept date; in the mart's order, since a sort of all would take minutes.
-- key: as_of, list, user_id, rank
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
    run_id,
from next_recommendations
where as_of = getvariable('as_of')
