-- One row per item known before as_of; age_days since launch or first event, retired_age_days null = still offered.
-- key: item_index, 0..n-1 by item_id
select
    row_number() over (order by item_id) - 1 as item_index,
    item_id,
    getvariable('as_of') - valid_from as age_days,
    getvariable('as_of') - valid_to as retired_age_days,
from staging.items
order by item_index
