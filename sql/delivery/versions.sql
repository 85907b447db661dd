-- One row per delivery unit that is new, changed or gone: the version to enter into raw.deliveries.
-- loaded_at: when its first row arrived; complete_at: when its last row did.
-- key: source_file, delivery_date
with landed as (
    select
        source_file,
        delivery_date,
        histogram(fate) as fates,
        min(loaded_at) as loaded_at,
        max(loaded_at) as complete_at,
        max(superseded_at) as superseded_at,
    from fated
    group by source_file, delivery_date
),

units as (
    select
        *,
        least(arrived_at, getvariable('loaded_at')) as loaded_at,
        case
            when forgotten_count > 0 then map(['excluded: forgotten user'], [cast(forgotten_count as ubigint)])
        end as forgotten,
    from delivery.units
    where table_name = getvariable('table_name') and status != 'unchanged'
)

select
    units.table_name,
    units.source_file,
    units.delivery_date,
    units.known_version + 1 as version,
    units.row_count,
    units.content_hash,
    case when units.forgotten is null then landed.fates else map_concat(landed.fates, units.forgotten) end as fates,
    coalesce(landed.loaded_at, units.loaded_at) as loaded_at,
    coalesce(landed.complete_at, units.loaded_at) as complete_at,
    landed.superseded_at,
from units
left join landed
    on
        units.source_file = landed.source_file
        and units.delivery_date is not distinct from landed.delivery_date
