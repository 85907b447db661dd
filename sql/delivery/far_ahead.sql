-- One row per file with rows behind a gap of more than a year after as_of: most often a broken date or unit (ms for s).
-- A backfill's later days follow each other without such a gap, all tables taken together.
-- key: table_name, source_file
with days as (
    select
        delivery_date,
        delivery_date - 366 > coalesce(lag(delivery_date) over (order by delivery_date), getvariable('as_of'))
            as is_behind_gap,
    from (
        select distinct delivery_date
        from delivery.counts
        where delivery_date >= getvariable('as_of')
    )
),

gaps as (
    select min(delivery_date) as far_date
    from days
    where is_behind_gap
)

select
    counts.table_name,
    counts.source_file,
    cast(min(counts.delivery_date) as varchar) as first_date,
    cast(sum(counts.row_count) as bigint) as row_count,
from delivery.counts
inner join gaps on counts.delivery_date >= gaps.far_date
group by counts.table_name, counts.source_file
order by counts.table_name, counts.source_file
