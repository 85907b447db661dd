-- One row per count and share of the last seven days before as_of: its value, and those of the eight weeks before.
-- key: name
-- units: of each value the users, items or rows it rests on, the median of the past. A week counts from the first event on.
-- Counts are those of seven open days: where n of the days were closed, 7 / (7 - n) times what was counted.
-- Shares: users and items whose first event lies in the week; rows that the source's SELECT excluded, and broken ones.
with ended as (
    select cast(getvariable('as_of') - getvariable('lag_days') as date) as end_date
),

weeks as (
    select
        week,
        7 / nullif(
            7 - len(
                list_filter(
                    getvariable('closed_dates'),
                    lambda closed: closed < end_date - 7 * week and closed >= end_date - 7 * week - 7
                )
            ),
            0
        ) as scale,
    from ended, (select cast(unnest(range(9)) as integer) as week)
    where end_date - 7 * week - 7 >= (select min(event_date) from staging.interactions)
),

events as (
    select
        cast(floor((end_date - 1 - event_date) / 7) as integer) as week,
        user_id,
        item_id,
    from staging.interactions, ended
    where event_date < end_date and event_date >= end_date - 63
),

first_users as (
    select
        cast(floor((end_date - 1 - min(event_date)) / 7) as integer) as week,
        user_id,
    from staging.interactions, ended
    group by user_id, end_date
),

first_items as (
    select
        cast(floor((end_date - 1 - min(event_date)) / 7) as integer) as week,
        item_id,
    from staging.interactions, ended
    group by item_id, end_date
),

new_users as (
    select
        week,
        count(*) as new_users,
    from first_users
    group by week
),

new_items as (
    select
        week,
        count(*) as new_items,
    from first_items
    group by week
),

counted as (
    select
        week,
        count(*) as events,
        count(distinct user_id) as users,
        count(distinct item_id) as items,
    from events
    group by week
),

fates as (
    select
        cast(floor((end_date - 1 - delivery_date) / 7) as integer) as week,
        unnest(map_entries(fates), recursive := true),
    from raw.deliveries, ended
    where
        table_name = 'interactions' and superseded_at is null
        and delivery_date < end_date and delivery_date >= end_date - 63
),

delivered as (
    select
        week,
        cast(sum(value) as bigint) as rows_read,
        cast(coalesce(sum(value) filter (where key like 'excluded:%'), 0) as bigint) as excluded,
        cast(coalesce(sum(value) filter (where key like 'quarantined:%'), 0) as bigint) as quarantined,
    from fates
    group by week
),

measured as (
    select
        weeks.week,
        coalesce(counted.users, 0) as users,
        counted.items,
        delivered.rows_read,
        coalesce(counted.events, 0) * weeks.scale as events_week,
        coalesce(counted.users, 0) * weeks.scale as users_week,
        coalesce(counted.items, 0) * weeks.scale as items_week,
        coalesce(new_users.new_users, 0) / counted.users as new_user_share,
        coalesce(new_items.new_items, 0) / counted.items as new_item_share,
        delivered.excluded / delivered.rows_read as excluded_share,
        delivered.quarantined / delivered.rows_read as quarantined_share,
    from weeks
    left join counted using (week)
    left join new_users using (week)
    left join new_items using (week)
    left join delivered using (week)
),

named as (
    unpivot measured
    on columns('_week$|_share$') into name name value value
)

select
    name,
    any_value(value) filter (where week = 0) as value,
    coalesce(list(value order by week) filter (where week > 0), []) as past,
    coalesce(
        median(
            case
                when name = 'new_item_share' then items
                when name in ('excluded_share', 'quarantined_share') then rows_read
                else users
            end
        ) filter (where week > 0),
        0
    ) as units,
from named
group by name
order by name
