-- One row per delivery unit (file and date) of one table, and what this run has to do with it.
-- A unit of a delivered file that the file no longer holds is 'gone'. Units dated on or after as_of are not looked at.
-- A unit replaced by another file's day stays 'unchanged' while its own content does: an old file does not win its day
-- back, unless no other file holds the day any more.
-- arrived_at: when this content arrived, as arrivals.csv says; null = with this load. A time that is not later than what the
-- unit held before is not about this content. A day won back arrives with the delivery that left it out.
-- key: table_name, source_file, delivery_date
with landed as (
    select * from delivery.unit_hashes
),

counted as (
    select *
    from delivery.counts
    where
        table_name = getvariable('table_name')
        and (delivery_date is null or delivery_date < getvariable('as_of'))
),

known as (
    select *
    from raw.deliveries
    where
        table_name = getvariable('table_name')
        and (delivery_date is null or delivery_date < getvariable('as_of'))
        and source_file in (select source_file from delivery.counts)
    qualify row_number() over (partition by source_file, delivery_date order by version desc) = 1
),

joined as (
    select
        coalesce(counted.source_file, known.source_file) as source_file,
        coalesce(counted.delivery_date, known.delivery_date) as delivery_date,
        coalesce(counted.row_count, 0) as row_count,
        coalesce(counted.forgotten_count, 0) as forgotten_count,
        case
            when landed.content_hash is not null then landed.content_hash
            when counted.forgotten_count = counted.row_count then getvariable('columns') || ':0'
        end as content_hash,
        known.row_count as known_row_count,
        known.content_hash as known_hash,
        coalesce(known.version, 0) as known_version,
        known.superseded_at is not null as is_superseded,
        coalesce(known.complete_at, known.loaded_at) as known_complete_at,
    from counted
    full outer join known
        on
            counted.source_file = known.source_file
            and (counted.delivery_date is not distinct from known.delivery_date)
    left join landed
        on
            counted.source_file = landed.source_file
            and (counted.delivery_date is not distinct from landed.delivery_date)
),

judged as (
    select
        joined.*,
        case
            when known_row_count is null then 'new'
            when row_count = 0 and known_row_count = 0 then 'unchanged'
            when row_count = 0 then 'gone'
            when row_count = known_row_count and (content_hash is null or content_hash = known_hash) then 'unchanged'
            else 'changed'
        end as status,
        case
            when known_row_count is null or arrivals.arrived_at > known_complete_at then arrivals.arrived_at
        end as arrived_at,
    from joined
    left join delivery.arrivals as arrivals using (source_file)
),

held as (
    select distinct deliveries.delivery_date
    from raw.deliveries
    left join judged
        on deliveries.source_file = judged.source_file and deliveries.delivery_date = judged.delivery_date
    where
        deliveries.table_name = getvariable('table_name')
        and deliveries.superseded_at is null
        and deliveries.row_count > 0
        and judged.status is distinct from 'gone'
        and deliveries.delivery_date is not null
),

settled as (
    select
        *,
        status = 'unchanged'
        and is_superseded
        and row_count > 0
        and delivery_date not in (select delivery_date from held) as is_won_back,
        max(arrived_at) filter (where status = 'gone') over (partition by delivery_date) as left_out_at,
    from judged
)

select
    getvariable('table_name') as table_name,
    source_file,
    delivery_date,
    row_count,
    forgotten_count,
    content_hash,
    known_version,
    case when is_won_back then left_out_at else arrived_at end as arrived_at,
    case when is_won_back then 'changed' else status end as status,
from settled
order by source_file, delivery_date
