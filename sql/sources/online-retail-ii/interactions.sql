-- One row per invoice line.
-- Customer ids lose a decimal part ('13085.0'), stock codes their case and blanks; products start with five digits.
with lines as (
    select
        *,
        nullif(trim(cast("Customer ID" as varchar)), 'nan') as customer,
        upper(trim(stockcode)) as code,
        try_cast(invoicedate as timestamp) as invoiced_at,
        try_cast(quantity as bigint) as pieces,
    from read_parquet(getvariable('input') || '/*.parquet', filename = true, file_row_number = true)
)

select
    cast(try_cast(try_cast(customer as double) as bigint) as varchar) as user_id,
    code as item_id,
    'purchase' as event_type,
    make_timestamp(epoch_us(timezone('Europe/London', invoiced_at))) as occurred_at,
    cast(invoiced_at as date) as event_date,
    pieces * try_cast(price as double) as value,
    case
        when customer is null then 'no customer'
        when invoice like 'C%' then 'cancellation'
        when invoice like 'A%' then 'adjustment'
        when pieces <= 0 then 'quantity not positive'
        when not regexp_matches(code, '^\d{5}') then 'not a product'
    end as excluded_because,
    case
        when invoiced_at is null or pieces is null
            then concat_ws(', ', 'InvoiceDate=' || invoicedate, 'Quantity=' || quantity, 'Invoice=' || invoice)
    end as raw_text,
    parse_filename(filename) as source_file,
    file_row_number as source_row,
from lines
