-- One row per horizon, list, stratum, model and measure of a backtest: its mean over users and origins, seeds averaged.
-- key: horizon_days, list, stratum, model, metric, k
-- users counts one user once per origin; it is null where a measure belongs to the lists as a whole (coverage).
select
    horizon_days,
    list,
    stratum,
    model,
    metric,
    k,
    sum(value * coalesce(users, 1)) / sum(coalesce(users, 1)) as value,
    cast(sum(users) / count(distinct seed) as bigint) as users,
    count(distinct as_of) as origins,
from mart.backtests
where backtest_id = getvariable('backtest_id') and isfinite(value) and coalesce(users, 1) > 0
group by all
order by horizon_days, list desc, stratum, value desc, model, metric, k
