-- One row per version of a delivery unit, as raw.deliveries holds it once the rows of a user who is forgotten are gone.
-- Of current versions their rows move to the fate 'excluded: forgotten user'. A unit that held such rows has another content
-- hash from now on, so its next delivery counts as changed, once.
-- own_rows: one row per row of that user in raw.* and quarantine.rows.
-- key: table_name, source_file, delivery_date, version
with own as (
    select
        table_name,
        source_file,
        delivery_date,
        fate,
        count(*) as row_count,
    from own_rows
    where is_current
    group by table_name, source_file, delivery_date, fate
),

touched as (
    select distinct
        table_name,
        source_file,
        delivery_date,
    from own_rows
),

entries as (
    select
        table_name,
        source_file,
        delivery_date,
        version,
        unnest(map_entries(fates), recursive := true),
    from raw.deliveries
    where superseded_at is null
),

moved as (
    select
        entries.*,
        coalesce(own.row_count, 0) as row_count,
    from entries
    left join own
        on
            entries.table_name = own.table_name
            and entries.source_file = own.source_file
            and entries.delivery_date is not distinct from own.delivery_date
            and entries.key = own.fate
),

settled as (
    select
        table_name,
        source_file,
        delivery_date,
        version,
        key,
        cast(sum(row_count) as ubigint) as row_count,
    from (
        select * replace (value - row_count as row_count)
        from moved
        union all
        select * replace ('excluded: forgotten user' as key)
        from moved
    )
    group by table_name, source_file, delivery_date, version, key
    having sum(row_count) > 0
),

maps as (
    select
        table_name,
        source_file,
        delivery_date,
        version,
        map_from_entries(list(struct_pack(key := key, value := row_count) order by key)) as fates,
    from settled
    group by table_name, source_file, delivery_date, version
)

select
    deliveries.* replace (
        case
            when touched.table_name is null then deliveries.fates
            else coalesce(maps.fates, deliveries.fates)
        end as fates,
        deliveries.content_hash || case when touched.table_name is null then '' else ' less a user' end as content_hash
    ),
from raw.deliveries as deliveries
left join touched
    on
        deliveries.table_name = touched.table_name
        and deliveries.source_file = touched.source_file
        and deliveries.delivery_date is not distinct from touched.delivery_date
left join maps
    on
        deliveries.table_name = maps.table_name
        and deliveries.source_file = maps.source_file
        and deliveries.delivery_date is not distinct from maps.delivery_date
        and deliveries.version = maps.version
order by deliveries.rowid
