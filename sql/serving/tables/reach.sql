-- One row per list and item that stands in a list of one kept date: in how many, and how high.
-- key: as_of, list, item_id
with counted as (
    select
        as_of,
        list,
        item_id,
        count(*) as users,
        sum(rank) as ranks,
        count(*) filter (where rank = 1) as firsts,
    from serving.recommendations
    where as_of = getvariable('as_of')
    group by as_of, list, item_id
)

select
    as_of,
    list,
    item_id,
    users,
    users / cast(sum(firsts) over (partition by as_of, list) as double) as users_share,  -- every list has one rank 1
    cast(ranks as double) / users as mean_rank,
from counted
order by as_of, list, item_id
