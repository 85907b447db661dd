-- One row per line of user_taggedartists.dat after the header: user, artist, tag and the day of the tagging, between tabs.
-- key: source_file, source_row
with lines as (
    select
        *,
        string_split(line, chr(9)) as field,
    from csv_lines(getvariable('input') || '/user_taggedartists.dat', E'userID\tartistID\ttagID\tday\tmonth\tyear')
),

taggings as (
    select
        *,
        try_cast(concat_ws('-', field[6], field[5], field[4]) as date) as tagged_on,
        regexp_full_match(line, '([1-9]\d{0,7}\t){3}[1-3]?\d\t1?\d\t(19|20)\d\d') as is_whole,
    from lines
)

select
    field[1] as user_id,
    field[2] as item_id,
    'tagging' as event_type,
    cast(if(is_whole, tagged_on, null) as timestamp) as occurred_at,
    if(is_whole, tagged_on, null) as event_date,
    cast(null as double) as value,
    cast(null as varchar) as excluded_because,
    case when not is_whole or tagged_on is null then line end as raw_text,
    source_file,
    source_row,
from taggings
