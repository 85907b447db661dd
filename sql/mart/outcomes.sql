-- One row per user, item and day of the events after as_of, of users and items known by then; day 0 is as_of itself.
-- key: user_index, item_index, day
select
    user_nodes.user_index,
    item_nodes.item_index,
    cast(outcomes.event_date - getvariable('as_of') as integer) as day,
from scored.outcomes as outcomes
inner join graph.user_nodes using (user_id)
inner join graph.item_nodes using (item_id)
where outcomes.event_date >= getvariable('as_of')
order by user_index, item_index, day
