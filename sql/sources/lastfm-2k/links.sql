-- One row per line of user_friends.dat after the header: a user and a friend, in both directions; undated.
-- key: source_file, source_row
with lines as (
    select
        *,
        string_split(line, chr(9)) as field,
    from csv_lines(getvariable('input') || '/user_friends.dat', E'userID\tfriendID')
)

select
    field[1] as user_id,
    field[2] as other_user_id,
    'friend' as relation,
    cast(null as double) as strength,
    cast(null as date) as since,
    cast(null as varchar) as excluded_because,
    case when not regexp_full_match(line, '[1-9]\d{0,7}\t[1-9]\d{0,7}') then line end as raw_text,
    source_file,
    source_row,
from lines
