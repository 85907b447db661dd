-- Every run, whether it published or not, newest first.
select
    as_of,
    run_id,
    status,
    run_id in (select run_id from runs) as is_served,
    started_at,
    finished_at,
    seconds,
    user_count,
    item_count,
    event_count,
    stale_since,
    withdrawn_at,
    message
from run_history
order by started_at desc, run_id
