-- One row per date whose lists are published and not withdrawn.
-- A run that publishes a date again makes the one before it 'replaced'.
-- key: as_of
select
    as_of,
    run_id,
    published_at,
from mart.runs
where
    status = 'published'
    and withdrawn_at is null
