-- One row per table, file, fate and rule: where the rows read by this run went. The counts of a file add up to its 'read'.
-- key: table_name, source_file, fate, rule
with latest as (
    select
        deliveries.*,
        units.status,
    from delivery.units
    inner join raw.deliveries
        on
            units.table_name = deliveries.table_name
            and units.source_file = deliveries.source_file
            and units.delivery_date is not distinct from deliveries.delivery_date
    where units.row_count > 0
    qualify
        row_number() over (
            partition by deliveries.table_name, deliveries.source_file, deliveries.delivery_date
            order by deliveries.version desc
        ) = 1
),

entries as (
    select
        table_name,
        source_file,
        status,
        unnest(map_entries(fates), recursive := true),
    from latest
),

settled as (
    select
        table_name,
        source_file,
        case
            when key != 'kept' then split_part(key, ': ', 1)
            when status = 'unchanged' then 'unchanged'
            else 'loaded'
        end as fate,
        case when key != 'kept' then substr(key, strpos(key, ': ') + 2) end as rule,
        value as row_count,
    from entries
),

deferred as (
    select
        table_name,
        source_file,
        'deferred' as fate,
        cast(null as varchar) as rule,
        row_count,
    from delivery.counts
    where delivery_date >= getvariable('as_of')
)

select
    table_name,
    source_file,
    fate,
    rule,
    cast(sum(row_count) as bigint) as row_count,
from (
    from settled
    union all
    from deferred
)
group by table_name, source_file, fate, rule
order by table_name, source_file, fate, rule
