-- One row per measure of the lists of the last five publications before as_of: what it was there, newest first.
-- key: as_of, rule
-- rule is "<list>: <measure>"; ranker is what the list was published from.
with last_publications as (
    select
        as_of,
        run_id,
    from mart.publications
    where as_of < getvariable('as_of')
    order by as_of desc
    limit 5
)

select
    last_publications.as_of,
    quality.rule,
    gate.ranker,
    try_cast(split_part(quality.observed, ',', 1) as double) as measured,
from last_publications
inner join mart.gate as gate using (as_of, run_id)
inner join mart.quality as quality
    on last_publications.run_id = quality.run_id and starts_with(quality.rule, gate.list || ': ')
where quality.table_name = 'scored.recommendations'
order by last_publications.as_of desc, quality.rule
