-- One row per line of tags.csv after the header: user, film, tag, second since 1970; a film has a tag from that day on.
-- key: source_file, source_row
with lines as (
    select
        *,
        csv_fields(line) as field,
    from csv_lines(getvariable('input') || '/tags.csv', 'userId,movieId,tag,timestamp')
),

tags as (
    select
        *,
        time_of_seconds(field[4]) as tagged_at,
    from lines
)

select
    field[2] as subject,
    'tag' as relation,
    'tag=' || lower(trim(field[3])) as object,
    cast(tagged_at as date) as since,
    cast(null as varchar) as excluded_because,
    case
        when
            field is null
            or len(field) != 4
            or not regexp_full_match(field[1], '[1-9]\d{0,7}')
            or not regexp_full_match(field[2], '[1-9]\d{0,7}')
            or trim(field[3]) = ''
            or not regexp_full_match(field[4], '\d{9,10}')
            or tagged_at is null
            or regexp_matches(line, '[[:cntrl:]]')
            then line
    end as raw_text,
    source_file,
    source_row,
from tags
