-- One row per list and ranker: NDCG at k pooled over the holdouts of as_of, or of the newest publication that had any.
-- key: list, ranker
-- users is that of the largest holdout: the same users again are no new evidence.
with measured as (
    select
        as_of,
        list,
        ranker,
        k,
        value,
        users,
    from scored.metrics
    where
        as_of = getvariable('as_of')
        and metric = 'ndcg'
    union all
    select
        metrics.as_of,
        metrics.list,
        metrics.ranker,
        metrics.k,
        metrics.value,
        metrics.users,
    from mart.metrics as metrics
    inner join mart.publications using (as_of, run_id)
    where
        metrics.as_of < getvariable('as_of')
        and metrics.metric = 'ndcg'
)

select
    as_of,
    list,
    ranker,
    any_value(k) as k,
    sum(value * users) / sum(users) as ndcg,
    max(users) as users,
from measured
where
    users > 0
    and as_of in (
        select max(as_of) from measured
        where users > 0
    )
group by as_of, list, ranker
order by list, ranker
