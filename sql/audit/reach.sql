-- One row per list and measure of what the lists show as a whole, all users together.
-- key: list, measure
-- coverage: share of live items in somebody's first ten. spread: share of these rows that none of the ten most shown items
-- takes. graded: share of lists whose first score is above the last.
with shown as (
    select
        list,
        item_id,
        count(*) as row_count,
    from scored.recommendations
    where
        rank <= 10
        and (list = 'discover' or getvariable('repeats'))
    group by list, item_id
),

ranked as (
    select
        list,
        row_count,
        row_number() over (
            partition by list
            order by row_count desc
        ) as place,
    from shown
),

live as (
    select count(*) as item_count,
    from graph.item_nodes
    where retired_age_days is null or retired_age_days < 1
),

lists as (
    select
        list,
        user_id,
        max(score) > min(score) as is_graded,
    from scored.recommendations
    where list = 'discover' or getvariable('repeats')
    group by list, user_id
    having count(*) > 1
)

select
    list,
    'coverage' as measure,
    count(*) / any_value(live.item_count) as measured,
    0.0 as error,
    cast(sum(row_count) as bigint) as users,
from ranked
cross join live
group by list
union all
select
    list,
    'spread',
    sum(row_count) filter (where place > 10) / sum(row_count),
    0.0,
    cast(sum(row_count) as bigint),
from ranked
group by list
union all
select
    list,
    'graded',
    avg(cast(is_graded as integer)),
    0.0,
    count(*),
from lists
group by list
