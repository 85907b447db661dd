-- One row per publication whose horizon ended by as_of, list and metric: how good the published lists proved to be.
-- key: as_of, list, metric
-- Users: those with events before the publication, a list in it, and something to find: events inside the horizon with items
-- live at its start; in discover, and in both lists where repeats are off, with items new to them. All is as defined in
-- models/metrics.py and for the holdouts. value is null where no user had anything to find. since: publications before it
-- are measured only where mart.realised lacks them.
with published as (
    select
        publications.as_of,
        publications.run_id,
        cast(publications.as_of + getvariable('horizon_days') as date) as end_date,
        try_cast(json_extract_string(runs.config, '$.top_k') as integer) as top_k,
    from query_table(getvariable('publications')) as publications
    left join mart.runs as runs using (run_id)
    where
        publications.as_of + getvariable('horizon_days') <= getvariable('as_of')
        and (
            publications.as_of >= getvariable('since')
            or (publications.as_of, publications.run_id) not in (select (as_of, run_id) from mart.realised)
        )
),

listed as (
    select
        lists.as_of,
        lists.list,
        lists.user_id,
        lists.rank,
        lists.item_id,
    from mart.recommendations as lists
    semi join published using (as_of)
),

sizes as (
    select
        published.as_of,
        published.run_id,
        listed.list,
        coalesce(any_value(published.top_k), max(listed.rank)) as k,
    from published
    inner join listed using (as_of)
    group by all
),

known_users as (
    select
        user_id,
        min(event_date) as first_date,
    from staging.interactions
    group by user_id
),

known_pairs as (
    select
        user_id,
        item_id,
        min(event_date) as first_date,
    from staging.interactions
    group by user_id, item_id
),

found as (
    select distinct
        published.as_of,
        events.user_id,
        events.item_id,
    from published
    inner join staging.interactions as events
        on published.as_of <= events.event_date and published.end_date > events.event_date
),

truth as (
    select
        sizes.as_of,
        sizes.list,
        found.user_id,
        found.item_id,
        sizes.k,
    from sizes
    inner join found using (as_of)
    inner join known_users on found.user_id = known_users.user_id
    inner join known_pairs on found.user_id = known_pairs.user_id and found.item_id = known_pairs.item_id
    inner join staging.items as items
        on
            found.item_id = items.item_id
            and sizes.as_of > items.valid_from
            and (items.valid_to is null or sizes.as_of <= items.valid_to)
    where
        known_users.first_date < sizes.as_of
        and ((sizes.list = 'for_you' and getvariable('repeats')) or known_pairs.first_date >= sizes.as_of)
),

served as (
    select distinct
        as_of,
        list,
        user_id,
    from listed
),

discounts as (  -- decimals, so that sums do not depend on their order
    select
        rank,
        cast(1 / log2(rank + 1) as decimal(18, 15)) as discount,
        sum(cast(1 / log2(rank + 1) as decimal(18, 15))) over (order by rank) as ideal,
    from (select unnest(range(1, 1001)) as rank)
),

per_user as (
    select
        truth.as_of,
        truth.list,
        truth.user_id,
        any_value(truth.k) as k,
        count(*) as truths,
        count(listed.rank) as hits,
        coalesce(sum(discounts.discount), 0) as gain,
    from truth
    semi join served using (as_of, list, user_id)
    left join listed using (as_of, list, user_id, item_id)
    left join discounts on listed.rank = discounts.rank
    group by truth.as_of, truth.list, truth.user_id
),

graded as (
    unpivot (
        select
            per_user.as_of,
            per_user.list,
            cast(per_user.gain as double) / cast(discounts.ideal as double) as ndcg,
            per_user.hits / per_user.truths as recall,
            per_user.hits / per_user.k as precision,
            cast(per_user.hits > 0 as double) as hit_rate,
        from per_user
        inner join discounts on least(per_user.k, per_user.truths) = discounts.rank
    )
    on ndcg, recall, precision, hit_rate into name metric value grade
),

metrics as (
    select unnest(['ndcg', 'recall', 'precision', 'hit_rate']) as metric
),

measured as (
    select
        as_of,
        list,
        metric,
        count(*) as users,
        cast(sum(cast(grade as decimal(18, 12))) as double) / count(*) as value,
        cast(sum(cast(grade * grade as decimal(18, 12))) as double) / count(*) as square,
    from graded
    group by as_of, list, metric
)

select
    sizes.as_of,
    sizes.list,
    sizes.k,
    metrics.metric,
    measured.value,
    cast(coalesce(measured.users, 0) as bigint) as users,
    sqrt(greatest(measured.square - measured.value * measured.value, 0) / nullif(measured.users - 1, 0)) as standard_error,
    getvariable('horizon_days') as horizon_days,
    getvariable('measured_at') as measured_at,
    sizes.run_id,
from sizes
cross join metrics
left join measured
    on sizes.as_of = measured.as_of and sizes.list = measured.list and metrics.metric = measured.metric
order by sizes.as_of, sizes.list desc, metrics.metric
