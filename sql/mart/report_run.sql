-- One row: a backtest, where it comes from and what it covers; `model` is what the others were compared with.
-- key: backtest_id
with covered as (
    select
        backtest_id,
        min(as_of) as first_origin,
        max(as_of) as last_origin,
        count(distinct as_of) as origins,
        count(distinct model) as models,
        count(distinct seed) as seeds,
    from mart.backtests
    group by backtest_id
),

compared as (
    select
        backtest_id,
        min(model) as model,
    from mart.backtest_differences
    group by backtest_id
)

select
    runs.backtest_id,
    runs.source,
    runs.started_at,
    runs.finished_at,
    runs.source_snapshot,
    runs.code_version,
    runs.config,
    covered.first_origin,
    covered.last_origin,
    covered.origins,
    covered.models,
    covered.seeds,
    compared.model,
from mart.backtest_runs as runs
inner join covered using (backtest_id)
left join compared using (backtest_id)
where runs.backtest_id = getvariable('backtest_id')
