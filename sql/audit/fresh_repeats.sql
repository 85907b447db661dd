-- One row per window: the share of what a user first had in it that is in the first ten of for_you, beyond what another
-- user's list would show of it, averaged over users.
-- key: measure
-- The windows are the last horizon and the last four. Of a user with more than ten such items, ten are asked for. An item
-- that more than a quarter of these users first had then, as in a sale, tells nothing of any of them and is left out.
-- Nobody with such items, or no repeats: no row.
with first_had as (
    select
        edges.user_index,
        edges.item_index,
        max(edges.age_days) as age_days,
    from graph.interaction_edges as edges
    inner join graph.item_nodes as items using (item_index)
    where items.retired_age_days is null or items.retired_age_days < 1
    group by edges.user_index, edges.item_index
),

windows as (
    select unnest([1, 4]) * getvariable('horizon_days') as window_days,
),

listed as (
    select
        users.user_index,
        items.item_index,
    from scored.recommendations as scored
    inner join graph.user_nodes as users using (user_id)
    inner join graph.item_nodes as items using (item_id)
    where
        scored.list = 'for_you'
        and scored.rank <= 10
),

shown as (
    select
        item_index,
        count(*) / (select count(distinct user_index) from listed) as user_share,
    from listed
    group by item_index
),

fresh as (
    select
        windows.window_days,
        first_had.user_index,
        first_had.item_index,
    from windows
    inner join first_had on windows.window_days >= first_had.age_days
    where getvariable('repeats')
),

user_counts as (
    select
        window_days,
        count(distinct user_index) as user_count,
    from fresh
    group by window_days
),

common as (
    select
        fresh.window_days,
        fresh.item_index,
    from fresh
    inner join user_counts using (window_days)
    group by fresh.window_days, fresh.item_index
    having count(*) > 0.25 * any_value(user_counts.user_count)
),

found as (
    select
        fresh.window_days,
        fresh.user_index,
        (count(listed.item_index) - coalesce(sum(shown.user_share), 0)) / least(10, count(*)) as found_share,
    from fresh
    anti join common using (window_days, item_index)
    left join listed using (user_index, item_index)
    left join shown using (item_index)
    group by fresh.window_days, fresh.user_index
)

select
    'for_you' as list,
    'fresh_repeats of ' || window_days || ' days' as measure,
    avg(found_share) as measured,
    coalesce(stddev_samp(found_share) / sqrt(count(*)), 0.5) as error,
    count(*) as users,
from found
group by window_days
