-- The newest similar items: one row per item and rank.
select
    as_of,
    item_id,
    rank,
    similar_item_id,
    score
from item_recommendations
where as_of = (select max(as_of) from runs)
