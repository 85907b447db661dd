-- One row per landed row of a new or changed unit, with its fate: 'kept', 'excluded: <rule>' or 'quarantined: <rule>'.
-- loaded_at is when the row arrived, never later than this load: as the source says it of the row, else of the file.
-- A row that stands in for one that was loaded before arrived with the delivery that brought it.
-- Where a new file replaces the day of older ones, the last to arrive wins (at the same time: the last by name), and the
-- others are superseded when the next one arrives.
-- key: source_file, source_row
with failures as (
    select
        source_file,
        source_row,
        min_by(rule, (rule != 'unreadable', rule)) as rule,
        min_by(reason, (rule != 'unreadable', rule)) as reason,
    from delivery.failures
    where table_name = getvariable('table_name')
    group by source_file, source_row
),

arriving as (
    select
        source_file,
        delivery_date,
        least(arrived_at, getvariable('loaded_at')) as arrived_at,
    from delivery.units
    where table_name = getvariable('table_name') and status in ('new', 'changed')
),

units as (
    select
        *,
        case
            when getvariable('delivery') = 'full_day' and delivery_date is not null
                then lead(arrived_at) over (partition by delivery_date order by arrived_at, source_file)
        end as replaced_at,
    from arriving
)

select
    landed.* exclude (arrived_at, is_known),
    failures.rule,
    failures.reason,
    case
        when failures.rule is not null then 'quarantined: ' || failures.rule
        when landed.excluded_because is not null then 'excluded: ' || landed.excluded_because
        else 'kept'
    end as fate,
    case
        when landed.is_known or landed.arrived_at is null then units.arrived_at
        else least(landed.arrived_at, getvariable('loaded_at'))
    end as loaded_at,
    units.replaced_at as superseded_at,
from query_table(getvariable('landed')) as landed
inner join units
    on
        landed.source_file = units.source_file
        and landed.delivery_date is not distinct from units.delivery_date
left join failures
    on
        landed.source_file = failures.source_file
        and landed.source_row = failures.source_row
