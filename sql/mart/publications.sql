-- One row per date whose lists are published and not withdrawn; where a date was published again, its newest run.
-- key: as_of
select
    as_of,
    arg_max(run_id, started_at) as run_id,
    max(published_at) as published_at,
from mart.runs
where
    status = 'published'
    and withdrawn_at is null
group by as_of
