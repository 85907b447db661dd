-- One row per row of the shop's friendships (links*.parquet in the input folder), each pair in one direction.
-- key: source_file, source_row
with friendships as (
    select
        user_id,
        other_user_id,
        relation,
        strength,
        since,
        filename,
        file_row_number,
    from read_parquet(getvariable('input') || '/links*.parquet', filename = true, file_row_number = true)
)

select
    user_id,
    other_user_id,
    relation,
    cast(strength as double) as strength,
    since,
    cast(null as varchar) as excluded_because,
    parse_filename(filename) as source_file,
    file_row_number as source_row,
from friendships
