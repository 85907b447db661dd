-- The runs behind the lists, newest first: what was published, from which data and code, and why this model.
select
    as_of,
    run_id,
    source,
    started_at,
    for_you_model,
    for_you_why,
    discover_model,
    discover_why,
    model_version,
    source_snapshot,
    code_version,
    user_count,
    item_count,
    event_count
from runs
order by as_of desc
