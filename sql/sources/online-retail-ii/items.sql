-- One row per product and day on which the words of its description or its price band changed.
-- Only sold lines count: the text of write-offs ('damaged', 'check') is no description. A band is a doubling of the price.
with lines as (
    select
        upper(trim(stockcode)) as item_id,
        try_cast(try_cast(invoicedate as timestamp) as date) as valid_from,
        trim(description) as description,
        try_cast(floor(log2(try_cast(price as double))) as integer) as price_band,
        parse_filename(filename) as source_file,
        file_row_number as source_row,
        file_row_number * 1024 + hash(parse_filename(filename)) % 1024 as line,  -- of several files on one day
    from read_parquet(getvariable('input') || '/*.parquet', filename = true, file_row_number = true)
    where
        "Customer ID" is not null
        and invoice not like 'C%'
        and try_cast(quantity as bigint) > 0
        and try_cast(price as double) > 0 and isfinite(try_cast(price as double))
),

days as (
    select
        item_id,
        valid_from,
        max(line) as line,
        max_by(hash(description, price_band), line) as content,
    from lines
    where regexp_matches(item_id, '^\d{5}') and valid_from is not null and nullif(description, 'nan') is not null
    group by item_id, valid_from
),

changes as (
    select line
    from days
    qualify content is distinct from lag(content) over (partition by item_id order by valid_from)
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
from lines
semi join changes using (line)
