-- One row per line of user_artists.dat after the header: a listener of an artist and the plays so far, between tabs.
-- key: source_file, source_row
-- The counts are those of May 2011: a fact from the last day of that month on. It ties artists with listeners in common.
with lines as (
    select
        *,
        string_split(line, chr(9)) as field,
    from csv_lines(getvariable('input') || '/user_artists.dat', E'userID\tartistID\tweight')
)

select
    field[2] as subject,
    'listener' as relation,
    'listener=' || field[1] as object,
    date '2011-05-31' as since,
    cast(null as varchar) as excluded_because,
    case when not regexp_full_match(line, '([1-9]\d{0,7}\t){2}[1-9]\d{0,7}') then line end as raw_text,
    source_file,
    source_row,
from lines
