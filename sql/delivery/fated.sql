-- One row per landed row of a new or changed unit, with its fate: 'kept', 'excluded: <rule>' or 'quarantined: <rule>'.
-- Where a new file replaces the day of older ones, the last file by name wins and the others arrive superseded.
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

units as (
    select
        source_file,
        delivery_date,
        getvariable('delivery') = 'full_day'
        and delivery_date is not null
        and source_file < max(source_file) over (partition by delivery_date) as is_replaced,
    from delivery.units
    where table_name = getvariable('table_name') and status in ('new', 'changed')
)

select
    landed.*,
    failures.rule,
    failures.reason,
    case
        when failures.rule is not null then 'quarantined: ' || failures.rule
        when landed.excluded_because is not null then 'excluded: ' || landed.excluded_because
        else 'kept'
    end as fate,
    getvariable('loaded_at') as loaded_at,
    case when units.is_replaced then getvariable('loaded_at') end as superseded_at,
from query_table(getvariable('landed')) as landed
inner join units
    on
        landed.source_file = units.source_file
        and landed.delivery_date is not distinct from units.delivery_date
left join failures
    on
        landed.source_file = failures.source_file
        and landed.source_row = failures.source_row
