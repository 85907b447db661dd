-- All lists of the kept dates: one row per as_of, list, user and rank.
-- The join lets PostgreSQL look a user up once per date in the index instead of reading all dates.
select
    runs.as_of,
    recommendations.list,
    recommendations.user_id,
    recommendations.rank,
    recommendations.item_id,
    recommendations.score,
    recommendations.model,
    recommendations.reason,
    recommendations.reason_item_id
from runs
inner join recommendations on runs.as_of = recommendations.as_of
