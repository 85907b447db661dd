-- One row per item and rank of one kept date.
-- key: as_of, item_id, rank
select
    as_of,
    item_id,
    rank,
    similar_item_id,
    score,
    run_id,
from next_item_recommendations
where as_of = getvariable('as_of')
