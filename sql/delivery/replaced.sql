-- One row per delivery unit whose current rows this load replaces, and when that was: at the arrival of what replaces them.
-- With full days, what other files brought for a day delivered anew is replaced too.
-- key: source_file, delivery_date
with arriving as (
    select
        *,
        least(arrived_at, getvariable('loaded_at')) as replaced_at,
    from delivery.units
    where table_name = getvariable('table_name') and status != 'unchanged'
),

replaced as (
    select
        source_file,
        delivery_date,
        replaced_at,
    from arriving
    where known_version > 0
    union all
    select
        deliveries.source_file,
        deliveries.delivery_date,
        arriving.replaced_at,
    from raw.deliveries
    inner join arriving using (table_name, delivery_date)
    where
        getvariable('delivery') = 'full_day'
        and arriving.status != 'gone'
        and deliveries.superseded_at is null
)

select
    source_file,
    delivery_date,
    min(replaced_at) as replaced_at,
from replaced
group by source_file, delivery_date
