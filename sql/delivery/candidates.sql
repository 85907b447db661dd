-- One row per landed row of a new or changed unit that wants to be kept: what the expectations look at.
-- A row its adapter could not read (raw_text) or date is broken before it is excluded.
-- key: source_file, source_row
with units as (
    select
        source_file,
        delivery_date,
    from delivery.units
    where table_name = getvariable('table_name') and status in ('new', 'changed')
)

select landed.*
from query_table(getvariable('landed')) as landed
inner join units
    on
        landed.source_file = units.source_file
        and landed.delivery_date is not distinct from units.delivery_date
where
    landed.excluded_because is null
    or landed.raw_text is not null
    or (landed.delivery_date is null and getvariable('table_name') = 'interactions')
