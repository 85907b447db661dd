-- One row: days without an event just before as_of, and before the same weekday of the eight weeks before; not closed ones.
-- key: name
with looks as (
    select
        week,
        cast(getvariable('as_of') - 7 * week as date) as look_date,
    from (select cast(unnest(range(9)) as integer) as week)
),

dates as (
    select distinct event_date
    from staging.interactions
),

silent as (
    select
        looks.week,
        looks.look_date - dates.event_date - 1 - len(
            list_filter(
                getvariable('closed_dates'),
                lambda closed: closed > dates.event_date and closed < looks.look_date
            )
        ) as days,
    from looks
    asof inner join dates on looks.look_date > dates.event_date
)

select
    'silent_days' as name,
    cast(any_value(days) filter (where week = 0) as double) as value,
    coalesce(list(cast(days as double) order by week) filter (where week > 0), []) as past,
    0.0 as units,
from silent
