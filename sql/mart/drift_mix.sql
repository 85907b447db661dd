-- One row per distribution, week and bin: events of the last seven days before as_of (week 0) and the eight weeks before.
-- key: name, week, bin
-- Distributions: event type; the categories of the items, by the attribute of 3 to 50 categories that tells of most events
-- (of those within a tenth, the coarsest); value, in tenths of the weeks before. units: pairs of user and day in the week.
-- Past the 19 bins with most events in the weeks before, bins are pooled as 'other'.
with ended as (
    select cast(getvariable('as_of') - getvariable('lag_days') as date) as end_date
),

events as (
    select
        cast(floor((end_date - 1 - event_date) / 7) as integer) as week,
        user_id,
        item_id,
        event_type,
        event_date,
        value,
    from staging.interactions, ended
    where
        event_date < end_date and event_date >= end_date - 63
        and floor((end_date - 1 - event_date) / 7) < (end_date - (select min(event_date) from staging.interactions)) // 7
),

units as (
    select
        week,
        count(*) as units,
    from (
        select distinct
            week,
            user_id,
            event_date,
        from events
    )
    group by week
),

of_items as (
    select
        item_id,
        week,
        count(*) as events,
    from events
    group by item_id, week
),

categories as (
    select
        node_id as item_id,
        attribute,
        category,
    from staging.attributes
    where node_kind = 'item' and number is null
),

weights as (
    select
        item_id,
        sum(events) as events,
    from of_items
    group by item_id
),

covered as (
    select
        attribute,
        sum(events) as events,
    from (
        select distinct
            item_id,
            attribute,
        from categories
    )
    inner join weights using (item_id)
    group by attribute
),

strongest as (
    select attribute
    from categories
    inner join covered using (attribute)
    group by attribute, covered.events
    having count(distinct category) between 3 and 50
    order by round(10 * covered.events / (select sum(events) from weights)) desc, count(distinct category), attribute
    limit 1
),

bounds as (
    select list_distinct(quantile_disc(value, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])) as bounds
    from events
    where week > 0
),

named as (
    select
        'event_type' as name,
        week,
        event_type as bin,
        count(*) as events,
    from events
    group by all
    union all
    select
        'item ' || attribute,
        week,
        category,
        sum(events),
    from of_items
    inner join categories using (item_id)
    inner join strongest using (attribute)
    group by all
    union all
    select
        'value',
        week,
        'above ' || len(list_filter(bounds, lambda bound: bound < value)) || ' tenths',
        count(*),
    from events, bounds
    where value is not null
    group by all
),

ranked as (
    select
        name,
        bin,
        row_number() over (
            partition by name order by coalesce(sum(events) filter (where week > 0), 0) desc, bin
        ) as place,
    from named
    group by name, bin
)

select
    named.name,
    named.week,
    case when ranked.place < 20 then named.bin else 'other' end as bin,
    cast(sum(named.events) as bigint) as events,
    any_value(units.units) as units,
from named
inner join ranked using (name, bin)
inner join units using (week)
group by all
order by name, week, bin
