-- One row per line of u.user: user, age, gender, occupation, zip code, between bars and without header; undated.
-- key: source_file, source_row
-- The region is the first sign of the zip code: a digit in the USA, a letter in Canada.
with lines as (
    select
        *,
        string_split(line, '|') as field,
    from lines(getvariable('input') || '/u.user', 'utf-8')
)

select
    field[1] as user_id,
    cast(null as date) as valid_from,
    try_cast(field[2] as integer) as age,
    field[3] as gender,
    field[4] as occupation,
    field[5][1] as region,
    cast(null as varchar) as excluded_because,
    case
        when not regexp_full_match(line, '[1-9]\d{0,7}\|[1-9]\d?\|[MF]\|[a-z]+\|(\d{5}|[A-Z]\d[A-Z]\d[A-Z])') then line
    end as raw_text,
    source_file,
    source_row,
from lines
