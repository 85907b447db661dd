-- One row per run of the home, as it will be once the file is served: the run that publishes it still counts as running, and
-- the one whose lists it replaces as published.
-- key: run_id
with anew as (
    select as_of
    from mart.runs
    where run_id = getvariable('run_id')
)

select
    as_of,
    run_id,
    case
        when run_id = getvariable('run_id') and status = 'running' then 'published'
        when run_id != getvariable('run_id') and status = 'published' and as_of in (select as_of from anew) then 'replaced'
        else status
    end as status,
    started_at,
    finished_at,
    cast(list_sum(list_transform(map_values(seconds), lambda took: cast(took as decimal(18, 3)))) as double) as seconds,
    user_count,
    item_count,
    event_count,
    stale_since,
    withdrawn_at,
    message,
from mart.runs
order by started_at, run_id
