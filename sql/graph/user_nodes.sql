-- One row per user known before as_of; segment is the fallback's group of users, '' where none is stated.
-- key: user_index, 0..n-1 by user_id
select
    row_number() over (order by user_id) - 1 as user_index,
    user_id,
    getvariable('as_of') - valid_from as age_days,
    coalesce(json_extract_string(to_json(users), cast(getvariable('segment_column') as varchar)), '') as segment,
from staging.users as users
order by user_index
