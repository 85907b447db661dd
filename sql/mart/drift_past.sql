-- One row per list and measure: its values at the last eight publications before as_of whose own predecessor was about as
-- many days older (half to double), newest first.
-- key: list, name
with gaps as (
    select
        drift.as_of,
        drift.list,
        drift.value as gap_days,
    from mart.drift
    semi join query_table(getvariable('publications')) using (as_of, run_id)
    where drift.name = 'days_since_previous' and drift.as_of < getvariable('as_of')
),

alike as (
    select
        as_of,
        list,
    from gaps
    where gap_days between getvariable('gap_days') / 2 and getvariable('gap_days') * 2
    qualify row_number() over (partition by list order by as_of desc) <= 8
)

select
    drift.list,
    drift.name,
    list(drift.value order by drift.as_of desc) as past,
from mart.drift
inner join alike using (as_of, list)
where drift.value is not null
group by drift.list, drift.name
order by drift.list, drift.name
