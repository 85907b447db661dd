-- How good the lists were expected to be and proved to be: one row per kept date, list, ranker, metric and k.
select
    as_of,
    list,
    ranker,
    metric,
    k,
    holdout_value,
    holdout_users,
    is_published,
    realised_value,
    realised_users,
    realised_at
from quality
