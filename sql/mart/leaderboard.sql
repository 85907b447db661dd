-- One row per horizon, list and model of a backtest: NDCG@20 and recall@20 pooled over users and origins.
-- key: horizon_days, list, model
-- difference is the model's NDCG@20 minus that of the reference, with 95 % intervals by user and by origin.
with compared as (
    select
        horizon_days,
        list,
        model as reference,
        against as model,
        metric,
        value as reference_value,
        against_value as value,
        -difference as difference,
        -by_user_high as by_user_low,
        -by_user_low as by_user_high,
        -by_origin_high as by_origin_low,
        -by_origin_low as by_origin_high,
        users,
        origins,
    from mart.backtest_differences
    where
        backtest_id = getvariable('backtest_id') and stratum = 'all' and k = 20
        and metric in ('ndcg', 'recall')
),

pooled as (
    select
        horizon_days,
        list,
        model,
        metric,
        sum(value * users) / sum(users) as value,
        cast(sum(users) as bigint) as users,
        count(distinct as_of) as origins,
    from mart.backtests
    where
        backtest_id = getvariable('backtest_id') and stratum = 'all' and k = 20
        and metric in ('ndcg', 'recall')
    group by all
),

costs as (
    select
        horizon_days,
        model,
        avg(seconds) as seconds,
    from mart.backtest_fits
    where backtest_id = getvariable('backtest_id')
    group by all
)

select
    ndcg.horizon_days,
    ndcg.list,
    ndcg.model,
    ndcg.value as ndcg,
    recall.value as recall,
    compared.difference,
    compared.by_user_low,
    compared.by_user_high,
    compared.by_origin_low,
    compared.by_origin_high,
    ndcg.users,
    ndcg.origins,
    costs.seconds,
from pooled as ndcg
inner join pooled as recall using (horizon_days, list, model)
left join compared
    on
        ndcg.horizon_days = compared.horizon_days and ndcg.list = compared.list and ndcg.model = compared.model
        and compared.metric = 'ndcg'
left join costs on ndcg.horizon_days = costs.horizon_days and ndcg.model = costs.model
where ndcg.metric = 'ndcg' and recall.metric = 'recall'
order by ndcg.horizon_days, ndcg.list desc, ndcg.value desc, ndcg.model
