-- One row per line of user_taggedartists.dat after the header: the artist has that tag from the day of the tagging on.
-- key: source_file, source_row
-- A tag without a name in tags.dat goes by its number. No tag is older than 1980, as no event is.
with lines as (
    select
        *,
        string_split(line, chr(9)) as field,
    from csv_lines(getvariable('input') || '/user_taggedartists.dat', E'userID\tartistID\ttagID\tday\tmonth\tyear')
),

taggings as (
    select
        *,
        field[3] as tag_id,
        try_cast(concat_ws('-', field[6], field[5], field[4]) as date) as tagged_on,
        regexp_full_match(line, '([1-9]\d{0,7}\t){3}[1-3]?\d\t1?\d\t(19|20)\d\d') as is_whole,
    from lines
),

names as (
    select
        split_part(line, chr(9), 1) as tag_id,
        min(split_part(line, chr(9), 2)) as name,
    from lines(getvariable('input') || '/tags.dat', 'latin-1')
    where regexp_full_match(line, '[1-9]\d{0,7}\t[^\t[:cntrl:]]*[^\t\s[:cntrl:]][^\t[:cntrl:]]*')
    group by tag_id
)

select
    field[2] as subject,
    'tag' as relation,
    'tag=' || coalesce(lower(trim(names.name)), '#' || tag_id) as object,
    if(is_whole, tagged_on, null) as since,
    cast(null as varchar) as excluded_because,
    case when not is_whole or tagged_on is null or tagged_on < date '1980-01-01' then line end as raw_text,
    source_file,
    source_row,
from taggings
left join names using (tag_id)
