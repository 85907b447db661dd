-- One row per relation of a user to another user; age_days null = undated, always known.
-- key: user_index, other_user_index, relation
select
    users.user_index,
    others.user_index as other_user_index,
    links.relation,
    cast(links.strength as float) as weight,
    cast(getvariable('as_of') - links.since as integer) as age_days,
from staging.links as links
inner join graph.user_nodes as users on links.user_id = users.user_id
inner join graph.user_nodes as others on links.other_user_id = others.user_id
where links.strength > 0
order by user_index, other_user_index, relation
