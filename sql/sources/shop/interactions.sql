-- One row per row of the shop's event log (interactions*.parquet in the input folder): one delivery a file.
-- key: source_file, source_row
-- Times and days are UTC. Visitors who are not signed in have no user: excluded.
-- A row without item, type or time is broken: its fields are kept as text.
with events as (
    select
        event_id,
        user_id,
        item_id,
        event_type,
        occurred_at,
        price,
        filename,
        file_row_number,
    from read_parquet(getvariable('input') || '/interactions*.parquet', filename = true, file_row_number = true)
)

select
    user_id,
    item_id,
    event_type,
    occurred_at,
    cast(occurred_at as date) as event_date,
    cast(price as double) as value,
    case when user_id is null then 'not signed in' end as excluded_because,
    case
        when item_id is null or event_type is null or occurred_at is null
            then cast(to_json(struct_pack(event_id, user_id, item_id, event_type, occurred_at, price)) as varchar)
    end as raw_text,
    parse_filename(filename) as source_file,
    file_row_number as source_row,
from events
