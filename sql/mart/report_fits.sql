-- One row per horizon, model and origin of a backtest: what a fit cost, and what its first seed chose (JSON).
-- key: horizon_days, model, as_of
select
    horizon_days,
    model,
    as_of,
    avg(seconds) as seconds,
    max(peak_mb) as peak_mb,
    arg_min(choice, seed) as choice,
from mart.backtest_fits
where backtest_id = getvariable('backtest_id')
group by all
order by horizon_days, model, as_of
