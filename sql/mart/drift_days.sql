-- One row per count of the last day before as_of: its value, and those of the same weekday in the eight weeks before.
-- key: name
-- units: users behind the past values, the median. Days before the first event, and closed ones, are left out; a day without
-- events is 0. lag_days: how late the feed usually is; that many of the last days are not looked at.
with days as (
    select
        week,
        cast(getvariable('as_of') - 1 - getvariable('lag_days') - 7 * week as date) as event_date,
    from (select cast(unnest(range(9)) as integer) as week)
),

counted as (
    select
        event_date,
        count(*) as events,
        count(distinct user_id) as users,
        count(distinct item_id) as items,
    from staging.interactions
    where event_date < getvariable('as_of')
    group by event_date
),

named as (
    unpivot (
        select
            days.week,
            cast(coalesce(counted.users, 0) as bigint) as units,
            cast(coalesce(counted.events, 0) as bigint) as events_day,
            cast(coalesce(counted.users, 0) as bigint) as users_day,
            cast(coalesce(counted.items, 0) as bigint) as items_day,
        from days
        left join counted using (event_date)
        where
            days.event_date >= (select min(event_date) from counted)
            and not list_contains(getvariable('closed_dates'), days.event_date)
    )
    on events_day, users_day, items_day into name name value value
)

select
    name,
    cast(any_value(value) filter (where week = 0) as double) as value,
    coalesce(list(cast(value as double) order by week) filter (where week > 0), []) as past,
    coalesce(median(units) filter (where week > 0), 0) as units,
from named
group by name
order by name
