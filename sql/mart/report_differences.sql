-- One row per horizon, list, measure and other model of a backtest: how far `model` is ahead of it; all users, all items.
-- key: horizon_days, list, metric, k, against
-- Intervals are 95 %; an end that is not a number, as with one origin, is null.
select
    horizon_days,
    list,
    metric,
    k,
    model,
    against,
    value,
    against_value,
    difference,
    case when isfinite(by_user_low) then by_user_low end as by_user_low,
    case when isfinite(by_user_high) then by_user_high end as by_user_high,
    case when isfinite(by_origin_low) then by_origin_low end as by_origin_low,
    case when isfinite(by_origin_high) then by_origin_high end as by_origin_high,
from mart.backtest_differences
where backtest_id = getvariable('backtest_id') and stratum = 'all' and isfinite(difference)
order by horizon_days, list desc, metric, k, against_value desc, against
