-- One row per list and measure of how far the user's own events, or popularity, stand behind the first ten.
-- key: list, measure
-- support: mean likeness of the items to the user's history, over that of lists dealt at random, minus 1. popularity: mean
-- popularity of the items, over that of all live ones, minus 1. order: share of users with more behind ranks 1 to 5 than 6
-- to 10, by likeness, by popularity or by events of the last horizon, whichever is most. support_of_new: support of users
-- whose first event is in the last horizon. null = nothing to go by; error is the standard error of measured. Of 1000 users,
-- drawn by their ids. Likeness is the cosine of two items by who had both lately, beyond that of items which users have
-- independently of each other.
with owned as (
    select
        user_index,
        item_index,
        min(age_days) as age_days,
    from graph.interaction_edges
    group by user_index, item_index
),

recent as (
    select
        user_index,
        item_index,
        row_number() over (
            partition by user_index
            order by age_days, hash(user_index, item_index)
        ) as place,
    from owned
    qualify place <= 50
),

firsts as materialized (
    select
        users.user_index,
        row_number() over (order by md5(users.user_id)) as place,
        max(owned.age_days) <= getvariable('horizon_days') as is_new,
    from owned
    inner join graph.user_nodes as users using (user_index)
    group by users.user_index, users.user_id
),

drawn as (
    select
        user_index,
        is_new,
        place <= 1000 as is_any,
    from firsts
    where place <= 1000 or is_new
    qualify row_number() over (
        partition by is_new and place > 1000
        order by place
    ) <= 1000
),

histories as (
    select
        recent.user_index,
        recent.item_index,
        count(*) over (partition by recent.user_index) as history_count,
    from recent
    inner join drawn using (user_index)
    where recent.place <= 20
),

lists as (
    select
        scored.list,
        users.user_index,
        items.item_index,
        scored.rank,
    from scored.recommendations as scored
    inner join graph.user_nodes as users using (user_id)
    inner join graph.item_nodes as items using (item_id)
    inner join drawn using (user_index)
    where
        scored.rank <= 10
        and (scored.list = 'discover' or getvariable('repeats'))
),

shown as (
    select
        lists.list,
        lists.item_index,
        count(*) as row_count,
    from lists
    inner join drawn using (user_index)
    where drawn.is_any
    group by lists.list, lists.item_index
),

user_counts as (
    select
        item_index,
        count(*) as user_count,
    from recent
    group by item_index
),

together as (
    select
        one.item_index,
        other.item_index as other_item_index,
        count(*) as user_count,
    from recent as one
    inner join recent as other using (user_index)
    where
        one.item_index != other.item_index
        and one.item_index in (select item_index from shown)
    group by one.item_index, other.item_index
    having count(*) > 1
),

likeness as (
    select
        together.item_index,
        together.other_item_index,
        greatest(
            together.user_count / sqrt(one.user_count * other.user_count)
            - sqrt(one.user_count * other.user_count) / (select count(distinct user_index) from recent),
            0
        ) as cosine,
    from together
    inner join user_counts as one on together.item_index = one.item_index
    inner join user_counts as other on together.other_item_index = other.item_index
),

kept_out as (  -- what discover may not show a user again
    select
        owned.user_index,
        owned.item_index,
        shown.row_count,
    from owned
    inner join drawn using (user_index)
    inner join shown using (item_index)
    where shown.list = 'discover'
),

pairs as (
    select
        user_index,
        item_index,
    from lists
    union
    select
        user_index,
        item_index,
    from kept_out
),

parts as (
    select
        pairs.user_index,
        pairs.item_index,
        likeness.cosine / histories.history_count as part,
    from pairs
    inner join histories using (user_index)
    inner join likeness on pairs.item_index = likeness.item_index and histories.item_index = likeness.other_item_index
    union all
    select
        user_index,
        item_index,
        1 / history_count as part,
    from histories
),

behind as (
    select
        user_index,
        item_index,
        sum(part) as support,
    from parts
    group by user_index, item_index
),

spread as (  -- an item's likeness to all rows shown, itself among them
    select
        shown.list,
        likeness.other_item_index as item_index,
        sum(shown.row_count * likeness.cosine) as likeness,
    from shown
    inner join likeness using (item_index)
    group by shown.list, likeness.other_item_index
    union all
    select
        list,
        item_index,
        row_count,
    from shown
),

dealt as (
    select
        spread.list,
        histories.user_index,
        sum(spread.likeness / histories.history_count) as support,
    from histories
    inner join spread using (item_index)
    group by spread.list, histories.user_index
),

withheld as (
    select
        'discover' as list,
        kept_out.user_index,
        sum(kept_out.row_count) as row_count,
        sum(kept_out.row_count * behind.support) as support,
    from kept_out
    left join behind using (user_index, item_index)
    group by kept_out.user_index
),

event_counts as (
    select
        item_index,
        count(*) as event_count,
        count(*) filter (where age_days <= 4 * getvariable('horizon_days')) as recent_count,
        count(*) filter (where age_days <= getvariable('horizon_days')) as newest_count,
    from graph.interaction_edges
    group by item_index
),

popularity as (
    select
        item_index,
        newest_count,
        event_count / sum(event_count) over ()
        + coalesce(recent_count / nullif(sum(recent_count) over (), 0), 0) as popularity,
    from event_counts
),

ranked as (
    select
        lists.list,
        lists.user_index,
        lists.item_index,
        lists.rank,
        coalesce(behind.support, 0) as support,
        coalesce(popularity.popularity, 0) as popularity,
        coalesce(popularity.newest_count, 0) as newest_count,
    from lists
    semi join shown using (list, item_index)
    left join behind using (user_index, item_index)
    left join popularity using (item_index)
),

listed as (
    select
        list,
        user_index,
        avg(support) as own,
        avg(popularity) as popularity,
        avg(support) filter (where rank <= 5) - avg(support) filter (where rank > 5) as support_falls,
        avg(popularity) filter (where rank <= 5) - avg(popularity) filter (where rank > 5) as popularity_falls,
        avg(newest_count) filter (where rank <= 5) - avg(newest_count) filter (where rank > 5) as newest_falls,
        hash(list(item_index order by rank)) as first_ten,
    from ranked
    group by list, user_index
),

totals as (
    select
        list,
        sum(row_count) as row_count,
    from shown
    group by list
),

fits as (
    select
        totals.list,
        drawn.user_index,
        listed.* exclude (list, user_index),
        (coalesce(dealt.support, 0) - coalesce(withheld.support, 0))
        / nullif(totals.row_count - coalesce(withheld.row_count, 0), 0) as dealt,
    from totals
    cross join drawn
    left join listed using (list, user_index)
    left join dealt using (list, user_index)
    left join withheld using (list, user_index)
),

level as (
    select sum(popularity.popularity) / count(*) as mean_popularity,
    from graph.item_nodes as items
    left join popularity using (item_index)
    where items.retired_age_days is null or items.retired_age_days < 1
),

pooled as (
    select
        list,
        count(own) as users,
        avg(popularity) / any_value(nullif(mean_popularity, 0)) - 1 as popularity,
        stddev_samp(popularity) / sqrt(count(own)) / any_value(nullif(mean_popularity, 0)) as popularity_error,
        greatest(
            avg((1 + sign(round(support_falls, 9))) / 2),
            avg((1 + sign(round(popularity_falls, 9))) / 2),
            avg((1 + sign(newest_falls)) / 2)
        ) as ordered,
        count(support_falls) as ordered_users,
        count(distinct first_ten) as list_count,
    from fits
    inner join drawn using (user_index)
    cross join level
    where drawn.is_any
    group by list
),

cohorts as (
    select
        fits.list,
        fits.own,
        fits.dealt,
        unnest(list_filter(
            [case when drawn.is_any then 'support' end, case when drawn.is_new then 'support_of_new' end],
            lambda cohort: cohort is not null
        )) as cohort,
    from fits
    inner join drawn using (user_index)
)

select
    list,
    cohort as measure,
    avg(own) / nullif(avg(dealt), 0) - 1 as measured,
    stddev_samp(own - dealt) / sqrt(count(own)) / nullif(avg(dealt), 0) as error,
    count(own) as users,
from cohorts
group by list, cohort
union all
select
    list,
    'popularity',
    popularity,
    popularity_error,
    users,
from pooled
union all
select
    list,
    'order',
    ordered,
    0.5 / sqrt(nullif(list_count, 0)),  -- equal lists are one observation
    ordered_users,
from pooled
