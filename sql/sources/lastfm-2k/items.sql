-- One row per line of artists.dat after the header: artist, name, address, picture or nothing, between tabs.
-- key: source_file, source_row
-- Undated: an artist is known from the first tagging on.
with lines as (
    select
        *,
        string_split(line, chr(9)) as field,
    from csv_lines(getvariable('input') || '/artists.dat', E'id\tname\turl\tpictureURL')
)

select
    field[1] as item_id,
    cast(null as date) as valid_from,
    cast(null as date) as valid_to,
    field[2] as name,
    cast(null as varchar) as excluded_because,
    case
        when not regexp_full_match(line, '[1-9]\d{0,7}\t[^\t]*[^\t\s][^\t]*\thttp://\S+\t(http://\S+)?') then line
    end as raw_text,
    source_file,
    source_row,
from lines
