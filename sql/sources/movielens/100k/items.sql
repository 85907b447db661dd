-- One row per line of u.item (latin-1), between bars: film, title, release date, video date, address, 19 flags of genres.
-- key: source_file, source_row
-- A film is known from its release, without one from its first rating.
with lines as (
    select
        *,
        string_split(line, '|') as field,
    from lines(getvariable('input') || '/u.item', 'latin-1')
),

films as (
    select
        *,
        case
            when regexp_full_match(field[3], '\d{1,2}-[A-Z][a-z]{2}-(18[89]|19\d|20\d)\d')
                then cast(try_strptime(field[3], '%d-%b-%Y') as date)
        end as released,
        regexp_full_match(line, '[1-9]\d{0,7}\|[^|]*[^|\s][^|]*(\|[^|]*){3}(\|[01]){19}')
        and not regexp_matches(line, '[[:cntrl:]]') as is_whole,
    from lines
)

select
    field[1] as item_id,
    released as valid_from,
    cast(null as date) as valid_to,
    field[2] as title,
    list_where(
        [
            'Action', 'Adventure', 'Animation', 'Children', 'Comedy', 'Crime', 'Documentary', 'Drama', 'Fantasy',
            'Film-Noir', 'Horror', 'Musical', 'Mystery', 'Romance', 'Sci-Fi', 'Thriller', 'War', 'Western',
        ],
        list_transform(field[7:24], lambda flag: flag = '1')
    ) as genres,
    year(released) // 10 * 10 || 's' as decade,
    cast(null as varchar) as excluded_because,
    if(is_whole and (released is not null or field[3] = ''), null, line) as raw_text,
    source_file,
    source_row,
from films
