-- One row per landed delivery unit: its size and an order-free hash of its content (sums do not depend on order).
-- key: source_file, delivery_date
-- columns: a hash of the column names, which belong to the content; where and when a row arrived does not.
select
    source_file,
    delivery_date,
    count(*) as row_count,
    getvariable('columns') || ':' || cast(
        sum(cast(hash(*columns(* exclude (source_file, source_row, delivery_date, arrived_at))) as hugeint)) as varchar
    ) as content_hash,
from query_table(getvariable('landed'))
group by source_file, delivery_date
