-- One row per line of movies.csv after the header: film, title with the year in its last parentheses, genres between bars.
-- key: source_file, source_row
-- Only the year is known, so a film counts as known from the next year on or from its first rating.
with lines as (
    select
        *,
        csv_fields(line) as field,
    from csv_lines(getvariable('input') || '/movies.csv', 'movieId,title,genres')
),

films as (
    select
        *,
        try_cast(nullif(regexp_extract(field[2], '\((\d{4})(?:[–-]\s?(?:\d{4})?)?\)\s*$', 1), '') as integer) as released,
    from lines
)

select
    field[1] as item_id,
    case when released between 1880 and 2098 then make_date(released + 1, 1, 1) end as valid_from,
    cast(null as date) as valid_to,
    trim(field[2]) as title,
    case when field[3] != '(no genres listed)' then string_split(field[3], '|') end as genres,
    released // 10 * 10 || 's' as decade,
    cast(null as varchar) as excluded_because,
    case
        when
            field is null
            or len(field) != 3
            or not regexp_full_match(field[1], '[1-9]\d{0,7}')
            or trim(field[2]) = ''
            or released not between 1880 and 2098
            or not regexp_full_match(field[3], '\(no genres listed\)|[A-Z][A-Za-z-]*(\|[A-Z][A-Za-z-]*)*')
            or regexp_matches(line, '[[:cntrl:]]')
            then line
    end as raw_text,
    source_file,
    source_row,
from films
