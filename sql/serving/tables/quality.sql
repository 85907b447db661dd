-- One row per kept date, list, ranker, metric and k: the pooled holdouts before the date, and what its lists proved to be.
-- key: as_of, list, ranker, metric, k
with promised as (
    select
        as_of,
        list,
        ranker,
        metric,
        k,
        cast(sum(cast(value * users as decimal(38, 12))) as double) / sum(users) as holdout_value,
        cast(sum(users) as bigint) as holdout_users,
    from next_metrics
    group by as_of, list, ranker, metric, k
),

proved as (
    select
        realised.as_of,
        realised.list,
        gate.ranker,
        realised.metric,
        cast(realised.k as bigint) as k,
        realised.value as realised_value,
        cast(realised.users as bigint) as realised_users,
        realised.measured_at as realised_at,
    from past_realised as realised
    inner join next_gate as gate using (as_of, list, run_id)
)

select
    as_of,
    list,
    ranker,
    metric,
    k,
    promised.holdout_value,
    promised.holdout_users,
    coalesce(ranker = gate.ranker, false) as is_published,
    proved.realised_value,
    proved.realised_users,
    proved.realised_at,
from promised
full join proved using (as_of, list, ranker, metric, k)
left join next_gate as gate using (as_of, list)
where as_of > getvariable('since')
order by as_of, list, metric, k, ranker
