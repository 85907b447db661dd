-- One row per reader and day on which the context of the day's last click changed; its numbers name categories.
-- key: user_id, valid_from
with clicks as (
    select
        cast(user_id as varchar) as user_id,
        try_cast(click_timestamp as bigint) as ms,
        cast(timezone('America/Sao_Paulo', make_timestamptz(ms * 1000)) as date) as valid_from,
        struct_pack(
            environment := try_cast(click_environment as integer),
            device := try_cast(click_devicegroup as integer),
            os := try_cast(click_os as integer),
            country := try_cast(click_country as integer),
            region := try_cast(click_region as integer),
            referrer := try_cast(click_referrer_type as integer)
        ) as context,
        parse_filename(filename) as source_file,
        file_row_number as source_row,
    from read_parquet(getvariable('input') || '/*.parquet', filename = true, file_row_number = true)
    where
        ms between 1000000000000 and 1999999999999
        and regexp_full_match(
            concat_ws(
                ' ', user_id, click_environment, click_devicegroup, click_os, click_country, click_region,
                click_referrer_type
            ),
            '\d{1,8}( \d{1,4}){6}'
        )
),

days as (
    select
        user_id,
        valid_from,
        max_by((context, source_file, source_row), (ms, source_file, source_row)) as last,
    from clicks
    group by user_id, valid_from
)

select
    user_id,
    valid_from,
    cast(last[1].environment as varchar) as environment,
    cast(last[1].device as varchar) as device,
    cast(last[1].os as varchar) as os,
    cast(last[1].country as varchar) as country,
    cast(last[1].region as varchar) as region,
    cast(last[1].referrer as varchar) as referrer,
    cast(null as varchar) as excluded_because,
    last[2] as source_file,
    last[3] as source_row,
from days
qualify last[1] is distinct from lag(last[1]) over (partition by user_id order by valid_from)
