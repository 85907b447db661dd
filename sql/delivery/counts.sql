-- One row per file and date of one table as delivered; runs on the adapter's own connection.
-- key: source_file, delivery_date
select
    source_file,
    delivery_date,
    count(*) as row_count,
from query_table(getvariable('adapter'))
group by source_file, delivery_date
