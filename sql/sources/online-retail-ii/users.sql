-- One row per customer and day on which the country of the customer's invoices changed.
with lines as (
    select
        nullif(regexp_extract(trim(cast("Customer ID" as varchar)), '^([1-9]\d*)(\.0)?$', 1), '') as user_id,
        try_cast(try_cast(invoicedate as timestamp) as date) as valid_from,
        trim(country) as country,
        parse_filename(filename) as source_file,
        file_row_number as source_row,
        file_row_number * 1024 + hash(parse_filename(filename)) % 1024 as line,  -- of several files on one day
    from read_parquet(getvariable('input') || '/*.parquet', filename = true, file_row_number = true)
),

days as (
    select
        user_id,
        valid_from,
        max_by(country, line) as country,
        max_by(source_file, line) as source_file,
        max_by(source_row, line) as source_row,
    from lines
    where user_id is not null and valid_from is not null and country is not null
    group by user_id, valid_from
)

select
    user_id,
    valid_from,
    country,
    cast(null as varchar) as excluded_because,
    source_file,
    source_row,
from days
qualify country is distinct from lag(country) over (partition by user_id order by valid_from)
