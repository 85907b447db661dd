-- One row per publication and list whose horizon ended in the `ended_days` before as_of: the NDCG it proved to have, beside
-- what the newest holdouts by then promised of the same ranker.
-- key: as_of, list
with proved as (
    select
        realised.as_of,
        realised.list,
        realised.k,
        realised.value,
        realised.users,
        realised.standard_error,
        gate.ranker,
    from mart.realised
    inner join mart.gate as gate using (as_of, run_id, list)
    semi join query_table(getvariable('publications')) as publications using (as_of, run_id)
    where
        realised.metric = 'ndcg' and realised.value is not null
        and realised.as_of + realised.horizon_days <= getvariable('as_of')
        and realised.as_of + realised.horizon_days > getvariable('as_of') - getvariable('ended_days')
),

promised as (
    select
        as_of as judged_date,
        list,
        ranker,
        k,
        sum(value * users) / sum(users) as promise,
    from mart.metrics
    where metric = 'ndcg'
    group by all
)

select
    proved.as_of,
    proved.list,
    proved.k,
    proved.ranker,
    proved.value,
    proved.users,
    proved.standard_error,
    promised.promise,
from proved
asof left join promised
    on
        proved.list = promised.list and proved.ranker = promised.ranker and proved.k = promised.k
        and proved.as_of >= promised.judged_date
order by proved.as_of desc, proved.list desc
