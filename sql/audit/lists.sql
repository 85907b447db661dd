-- One row per check of the scored lists before they are published; violations must be 0 where severity is critical.
-- key: rule
with live as (
    select
        item_id,
        item_index,
    from graph.item_nodes
    where retired_age_days is null or retired_age_days < 1
),

seen as (
    select distinct
        users.user_id,
        items.item_id,
    from graph.interaction_edges as edges
    inner join graph.user_nodes as users using (user_index)
    inner join graph.item_nodes as items using (item_index)
),

seen_live as (
    select
        user_id,
        count(*) as item_count,
    from seen
    where item_id in (select item_id from live)
    group by user_id
),

expected as (
    select
        users.user_id,
        unnest(['for_you', 'discover']) as list,
        (select count(*) from live) as live_count,
        coalesce(seen_live.item_count, 0) as seen_count,
    from graph.user_nodes as users
    left join seen_live using (user_id)
),

found as (
    select
        list,
        user_id,
        count(*) as row_count,
        count(distinct item_id) as item_count,
        count(distinct rank) as rank_count,
        min(rank) as first_rank,
        max(rank) as last_rank,
    from scored.recommendations
    group by list, user_id
),

sizes as (
    select
        list,
        user_id,
        found.*,
        case
            when expected.live_count is not null  -- least() would skip the null of an unknown user
                then least(
                    getvariable('top_k'),
                    expected.live_count
                    - case when list = 'discover' or not getvariable('repeats') then expected.seen_count else 0 end
                )
        end as expected_count,
    from expected
    full outer join found using (list, user_id)
),

steps as (
    select
        score > lag(score) over (partition by list, user_id order by rank) as rises,
        score is null or not isfinite(score) as is_broken,
    from scored.recommendations
),

previous as (
    select
        list,
        user_id,
        item_id,
    from mart.recommendations
    inner join mart.publications using (as_of, run_id)
    where as_of = (
        select max(as_of) from mart.publications
        where as_of < getvariable('as_of')
    )
),

chosen as (
    select
        list,
        ranker,
    from scored.gate
    where as_of = getvariable('as_of')
),

kept as (
    select count(*) as row_count
    from scored.recommendations
    inner join previous using (list, user_id, item_id)
)

select
    'each known user has min(K, eligible) rows in each list' as rule,
    'critical' as severity,
    count(*) as violations,
from sizes
where coalesce(row_count, 0) is distinct from expected_count
union all
select
    'ranks run from 1 without a gap',
    'critical',
    count(*),
from found
where first_rank != 1 or last_rank != row_count or rank_count != row_count
union all
select
    'no item twice in a list',
    'critical',
    count(*),
from found
where item_count != row_count
union all
select
    'scores are finite and do not rise with rank',
    'critical',
    count(*),
from steps
where rises or is_broken
union all
select
    'every item is live',
    'critical',
    count(*),
from scored.recommendations
where item_id not in (select item_id from live)
union all
select
    'nothing a user already had in discover, nor anywhere where repeats are off',
    'critical',
    count(*),
from scored.recommendations
inner join seen using (user_id, item_id)
where scored.recommendations.list = 'discover' or not getvariable('repeats')
union all
select
    'item, model and reason are given',
    'critical',
    count(*),
from scored.recommendations
where item_id is null or coalesce(trim(model), '') = '' or coalesce(trim(reason), '') = ''
union all
select
    'an item given as the reason is one the user had',
    'critical',
    count(*),
from scored.recommendations as scored
anti join seen on scored.user_id = seen.user_id and scored.reason_item_id = seen.item_id
where
    scored.reason in ('repeat', 'taste')
    and scored.reason_item_id is not null
union all
select
    'lists of users with events are from the ranker the gate chose',
    'critical',
    count(*),
from scored.recommendations as scored
inner join chosen on chosen.list = case when getvariable('repeats') then scored.list else 'discover' end
where
    scored.model != chosen.ranker
    and scored.user_id in (select user_id from seen)
union all
select
    'lists and graph are of this date',
    'critical',
    (
        select count(*) from scored.recommendations
        where as_of != getvariable('as_of')
    ) + (
        select count(*) from graph.interaction_edges
        where event_date + age_days != getvariable('as_of')
    ),
union all
select
    'the lists show at least one list''s worth of distinct items',
    'warning',
    greatest(
        least(getvariable('top_k'), (select count(*) from live)) - count(distinct item_id),
        0
    ),
from scored.recommendations
where list = 'for_you'
union all
select
    'at least a tenth of the rows was in the previous lists',
    'warning',
    case
        when
            (select count(*) from previous) > 0 and kept.row_count < 0.1 * (select count(*) from scored.recommendations)
            then 1
        else 0
    end,
from kept
