-- One row per user, item, event type and day before as_of; a day counts once, however many events it saw.
-- key: user_index, item_index, event_type, event_date
-- age_days is at least 1; phases run 0..1 over the year and the week (Monday = 0).
-- hours_to_midnight runs 1..24, from the day's last event on; 24 where no hour is known or the clock says another date.
with events as (
    select
        *,
        timezone(getvariable('time_zone'), occurred_at at time zone 'UTC') as local_time,
    from staging.interactions
),

edges as (
    select
        user_id,
        item_id,
        event_type,
        event_date,
        min(if(cast(local_time as date) = event_date, 24 - hour(local_time), 24)) as hours_to_midnight,
    from events
    group by all
),

strengths as (
    select
        unnest(map_keys(getvariable('event_strength'))) as event_type,
        unnest(map_values(getvariable('event_strength'))) as strength,
)

select
    user_nodes.user_index,
    item_nodes.item_index,
    edges.event_type,
    edges.event_date,
    cast(getvariable('as_of') - edges.event_date as integer) as age_days,
    cast(edges.hours_to_midnight as integer) as hours_to_midnight,
    cast(strengths.strength as float) as strength,
    cast((dayofyear(edges.event_date) - 1) / 365.25 as float) as year_phase,
    cast((isodow(edges.event_date) - 1) / 7 as float) as week_phase,
from edges
inner join graph.user_nodes using (user_id)
inner join graph.item_nodes using (item_id)
inner join strengths using (event_type)
order by user_index, item_index, age_days, event_type
