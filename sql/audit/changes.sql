-- One row per list and measure of how the lists follow those of the last publication before as_of.
-- key: list, measure
-- overlap: share of the earlier first ten that is there again. first_kept: how often the earlier first item stays, relative
-- to the third to fifth. agreement: correlation of the ranks of items in both. null = nothing to compare.
-- Items that a user had since are left out of discover.
with owned as (
    select distinct
        users.user_id,
        items.item_id,
    from graph.interaction_edges as edges
    inner join graph.user_nodes as users using (user_index)
    inner join graph.item_nodes as items using (item_index)
),

last_publication as (
    select
        as_of,
        run_id,
    from mart.publications
    where as_of < getvariable('as_of')
    order by as_of desc
    limit 1
),

earlier as (
    select
        lists.list,
        lists.user_id,
        lists.item_id,
        lists.rank,
    from mart.recommendations as lists
    inner join last_publication using (as_of, run_id)
    inner join graph.user_nodes as users using (user_id)
    inner join graph.item_nodes as items using (item_id)
    where
        (lists.list = 'discover' or getvariable('repeats'))
        and (items.retired_age_days is null or items.retired_age_days < 1)
        and (lists.list = 'for_you' or (lists.user_id, lists.item_id) not in (select (user_id, item_id) from owned))
),

compared as (
    select
        earlier.list,
        earlier.user_id,
        earlier.rank as earlier_rank,
        scored.rank,
        cast(scored.rank is not null as integer) as is_kept,
        cast(coalesce(scored.rank <= 10, false) as integer) as is_kept_high,
    from earlier
    left join scored.recommendations as scored using (list, user_id, item_id)
),

kept as (
    select
        list,
        avg(is_kept) filter (where earlier_rank = 1) as first_share,
        avg(is_kept) filter (where earlier_rank between 3 and 5) as other_share,
        count(*) filter (where earlier_rank = 1) as first_count,
    from compared
    group by list
)

select
    list,
    'overlap' as measure,
    avg(is_kept_high) as measured,
    0.5 / sqrt(count(distinct user_id)) as error,
    count(distinct user_id) as users,
from compared
where earlier_rank <= 10
group by list
union all
select
    list,
    'first_kept',
    case when other_share >= 0.1 then first_share / other_share end,
    sqrt(first_share * (1 - first_share) / nullif(first_count, 0)) / nullif(other_share, 0),
    first_count,
from kept
union all
select
    list,
    'agreement',
    corr(earlier_rank, rank),
    1 / sqrt(count(distinct user_id)),
    count(distinct user_id),
from compared
where is_kept = 1
group by list
