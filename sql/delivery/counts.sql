-- One row per file and date of one table as delivered; runs on the adapter's own connection.
-- key: source_file, delivery_date
-- forgotten_count: rows of users who were forgotten; they are counted and never stored.
select
    source_file,
    delivery_date,
    count(*) as row_count,
    count(*) filter (where is_forgotten) as forgotten_count,
from query_table(getvariable('adapter'))
group by source_file, delivery_date
