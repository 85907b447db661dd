-- One row per horizon, list, model, accuracy measure and origin of a backtest, seeds averaged; all users, all items.
-- key: horizon_days, list, model, metric, k, as_of
select
    horizon_days,
    list,
    model,
    metric,
    k,
    as_of,
    avg(value) as value,
from mart.backtests
where
    backtest_id = getvariable('backtest_id') and stratum = 'all' and isfinite(value)
    and metric in ('ndcg', 'recall', 'map', 'precision', 'hit_rate', 'mrr')
group by all
order by horizon_days, list desc, model, metric, k, as_of
