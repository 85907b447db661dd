-- One row per row of the shop's product facts (facts*.parquet in the input folder).
-- key: source_file, source_row
with facts as (
    select
        subject,
        relation,
        object,
        since,
        filename,
        file_row_number,
    from read_parquet(getvariable('input') || '/facts*.parquet', filename = true, file_row_number = true)
)

select
    subject,
    relation,
    object,
    since,
    cast(null as varchar) as excluded_because,
    parse_filename(filename) as source_file,
    file_row_number as source_row,
from facts
