-- One row per row of the shop's catalogue (items*.parquet in the input folder).
-- key: source_file, source_row
-- An item is known from its launch and sold until the day before its retirement.
with catalogue as (
    select
        item_id,
        name,
        category,
        brand,
        tags,
        price,
        launch_date,
        retired_date,
        filename,
        file_row_number,
    from read_parquet(getvariable('input') || '/items*.parquet', filename = true, file_row_number = true)
)

select
    item_id,
    launch_date as valid_from,
    retired_date as valid_to,
    name,
    category,
    brand,
    tags,
    cast(price as double) as price,
    launch_date,
    cast(null as varchar) as excluded_because,
    case
        when not (isfinite(price) and price >= 0) or retired_date < launch_date
            then cast(to_json(struct_pack(item_id, name, category, brand, price, launch_date, retired_date)) as varchar)
    end as raw_text,
    parse_filename(filename) as source_file,
    file_row_number as source_row,
from catalogue
