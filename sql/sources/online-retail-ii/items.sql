-- One row per product and day on which the words of its description or its price band changed.
-- Only sold lines count: the text of write-offs ('damaged', 'check') is no description. A band is a doubling of the price.
with lines as (
    select
        upper(trim(stockcode)) as item_id,
        try_cast(try_cast(invoicedate as timestamp) as date) as valid_from,
        trim(description) as description,
        try_cast(price as double) as price,
        parse_filename(filename) as source_file,
        file_row_number as source_row,
        file_row_number * 1024 + hash(parse_filename(filename)) % 1024 as line,  -- of several files on one day
    from read_parquet(getvariable('input') || '/*.parquet', filename = true, file_row_number = true)
    where
        "Customer ID" is not null
        and invoice not like 'C%'
        and try_cast(quantity as bigint) > 0
        and try_cast(price as double) > 0
),

days as (
    select
        item_id,
        valid_from,
        max_by(description, line) as description,
        cast(floor(log2(max_by(price, line))) as integer) as price_band,
        max_by(source_file, line) as source_file,
        max_by(source_row, line) as source_row,
    from lines
    where regexp_matches(item_id, '^\d{5}') and valid_from is not null and nullif(description, 'nan') is not null
    group by item_id, valid_from
),

changes as (
    select *
    from days
    window item_days as (partition by item_id order by valid_from)
    qualify
        description is distinct from lag(description) over item_days
        or price_band is distinct from lag(price_band) over item_days
)

select
    item_id,
    valid_from,
    cast(null as date) as valid_to,
    description,
    list_sort(list_distinct(regexp_extract_all(lower(description), '[a-z]{3,}'))) as word,
    cast(price_band as varchar) as price_band,
    cast(null as varchar) as excluded_because,
    source_file,
    source_row,
from changes
