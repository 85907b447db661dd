-- One row per click: reader, article, millisecond since 1970; its context rides along.
-- key: source_file, source_row
-- A click is whole or unreadable: numbers without sign in every column, the times between 2001 and 2033.
with clicks as (
    select
        *,
        concat_ws(
            ' ', user_id, session_id, session_start, session_size, click_article_id, click_timestamp, click_environment,
            click_devicegroup, click_os, click_country, click_region, click_referrer_type
        ) as click,
    from read_parquet(getvariable('input') || '/*.parquet', filename = true, file_row_number = true)
),

whole as (
    select
        *,
        regexp_full_match(click, '\d{1,8} \d{16} 1\d{12} \d{1,6} \d{1,8} 1\d{12}( \d{1,4}){6}') as is_whole,
        try_cast(click_timestamp as bigint) as ms,
        case when ms between 1000000000000 and 1999999999999 then make_timestamp(ms * 1000) end as clicked_at,
    from clicks
)

select
    cast(user_id as varchar) as user_id,
    cast(click_article_id as varchar) as item_id,
    'click' as event_type,
    clicked_at as occurred_at,
    cast(timezone('America/Sao_Paulo', clicked_at at time zone 'UTC') as date) as event_date,
    cast(null as double) as value,
    try_cast(session_id as bigint) as session_id,
    try_cast(session_size as integer) as session_size,
    try_cast(click_environment as integer) as environment,
    try_cast(click_devicegroup as integer) as device,
    try_cast(click_os as integer) as os,
    try_cast(click_country as integer) as country,
    try_cast(click_region as integer) as region,
    try_cast(click_referrer_type as integer) as referrer,
    cast(null as varchar) as excluded_because,
    if(is_whole, null, click) as raw_text,
    parse_filename(filename) as source_file,
    file_row_number as source_row,
from whole
