-- One row per kept date: the run whose lists it shows, and why the gate chose its models; the dates of all other tables.
-- key: as_of
with chosen as (
    select
        as_of,
        run_id,
        max(ranker) filter (where list = 'for_you') as for_you_model,
        max(why) filter (where list = 'for_you') as for_you_why,
        max(ranker) filter (where list = 'discover') as discover_model,
        max(why) filter (where list = 'discover') as discover_why,
    from next_gate
    where as_of > getvariable('since')
    group by as_of, run_id
)

select
    chosen.as_of,
    lag(chosen.as_of) over (order by chosen.as_of) as previous_as_of,
    chosen.run_id,
    runs.source,
    runs.started_at,
    chosen.for_you_model,
    chosen.for_you_why,
    chosen.discover_model,
    chosen.discover_why,
    runs.model_version,
    runs.source_snapshot,
    runs.code_version,
    runs.user_count,
    runs.item_count,
    runs.event_count,
from chosen
inner join mart.runs as runs using (run_id)
order by chosen.as_of
