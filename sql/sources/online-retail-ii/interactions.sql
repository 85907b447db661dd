-- One row per invoice line.
-- Customer ids lose the '.0' of a number, stock codes their case and blanks; products start with five digits.
with lines as (
    select
        *,
        nullif(trim(cast("Customer ID" as varchar)), 'nan') as customer,
        upper(trim(stockcode)) as code,
        try_cast(invoicedate as timestamp) as invoiced_at,
        try_cast(regexp_extract(cast(quantity as varchar), '^(-?\d+)(\.0)?$', 1) as bigint) as pieces,
        try_cast(price as double) as piece_price,
    from read_parquet(getvariable('input') || '/*.parquet', filename = true, file_row_number = true)
)

select
    nullif(regexp_extract(customer, '^([1-9]\d*)(\.0)?$', 1), '') as user_id,
    code as item_id,
    'purchase' as event_type,
    make_timestamp(epoch_us(timezone('Europe/London', invoiced_at))) as occurred_at,
    cast(invoiced_at as date) as event_date,
    pieces * piece_price as value,
    case
        when customer is null then 'no customer'
        when invoice like 'C%' then 'cancellation'
        when invoice like 'A%' then 'adjustment'
        when pieces <= 0 then 'quantity not positive'
        when not regexp_matches(code, '^\d{5}|[[:cntrl:]\x{FFFD}]') then 'not a product'
    end as excluded_because,
    case
        when
            invoiced_at is null
            or pieces is null
            or piece_price is null
            or not regexp_full_match(customer, '[1-9]\d*(\.0)?')
            then cast(to_json(struct_pack(invoice, stockcode, quantity, invoicedate, price, customer)) as varchar)
    end as raw_text,
    parse_filename(filename) as source_file,
    file_row_number as source_row,
from lines
