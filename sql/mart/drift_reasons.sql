-- One row per list, publication and reason: rows; week 0 is the publication of as_of, 1 the one before it.
-- key: name, week, bin
select
    list as name,
    case when as_of = getvariable('as_of') then 0 else 1 end as week,
    reason as bin,
    count(*) as events,
    count(distinct user_id) as units,
from mart.recommendations
where
    as_of = getvariable('as_of')
    or as_of = (
        select max(as_of) from query_table(getvariable('publications'))
        where as_of < getvariable('as_of')
    )
group by all
order by name, week, bin
