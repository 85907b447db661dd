-- One row per list and measure of how the lists follow those of the last publication before as_of.
-- key: list, measure
-- overlap: share of the earlier first ten that is there again. first_kept: how often the earlier first item stays, relative
-- to the third to fifth. agreement: correlation of the ranks of items in both. recognised: share of users whose first ten
-- hold more of their own earlier ones than of the next user's, minus the share where it is the other way round; who is
-- next, md5 of the ids decides. null = nothing to compare.
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

live as (
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
),

earlier as (
    select * from live
    where list = 'for_you' or (user_id, item_id) not in (select (user_id, item_id) from owned)
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
),

earlier_users as (
    select distinct
        list,
        user_id,
    from earlier
),

neighbours as (
    select
        list,
        user_id,
        coalesce(lead(user_id) over by_digest, first_value(user_id) over by_digest) as next_user_id,
    from earlier_users
    window by_digest as (
        partition by list
        order by md5(user_id)
        rows between unbounded preceding and unbounded following
    )
),

of_the_next as (
    select
        neighbours.list,
        neighbours.user_id,
        count(*) as kept_count,
    from neighbours
    inner join live on neighbours.list = live.list and neighbours.next_user_id = live.user_id
    inner join scored.recommendations as scored
        on neighbours.list = scored.list and neighbours.user_id = scored.user_id and live.item_id = scored.item_id
    where live.rank <= 10 and scored.rank <= 10
    group by neighbours.list, neighbours.user_id
),

of_their_own as (
    select
        list,
        user_id,
        sum(is_kept_high) as kept_count,
    from compared
    where earlier_rank <= 10
    group by list, user_id
),

nearer as (
    select
        of_their_own.list,
        sign(of_their_own.kept_count - coalesce(of_the_next.kept_count, 0)) as nearness,
    from of_their_own
    left join of_the_next using (list, user_id)
)

select
    list,
    'recognised' as measure,
    avg(nearness) as measured,
    stddev_pop(nearness) / sqrt(count(*)) as error,
    count(*) as users,
from nearer
group by list
union all
select
    list,
    'overlap',
    avg(is_kept_high),
    0.5 / sqrt(count(distinct user_id)),
    count(distinct user_id),
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
