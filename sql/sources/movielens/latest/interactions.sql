-- One row per line of ratings.csv after the header: user, film, half to five stars by halves, second since 1970.
-- key: source_file, source_row
-- A line is whole or unreadable. MovieLens opened in 1995: seconds from then until 2033 can be a time.
with lines as (
    select
        *,
        string_split(line, ',') as field,
    from csv_lines(getvariable('input') || '/ratings.csv', 'userId,movieId,rating,timestamp')
),

ratings as (
    select
        *,
        time_of_seconds(field[4]) as rated_at,
    from lines
)

select
    field[1] as user_id,
    field[2] as item_id,
    'rating' as event_type,
    rated_at as occurred_at,
    cast(rated_at as date) as event_date,
    try_cast(field[3] as double) as value,
    cast(null as varchar) as excluded_because,
    case
        when
            not regexp_full_match(line, '[1-9]\d{0,7},[1-9]\d{0,7},(0\.5|[1-4]\.[05]|5\.0),\d{9,10}')
            or rated_at is null
            then line
    end as raw_text,
    source_file,
    source_row,
from ratings
