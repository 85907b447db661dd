-- One row per published date: the run whose lists it shows, and why the gate chose its models.
-- key: as_of
-- next_gate is the table of mart as it will be once the current run is published.
with chosen as (
    select
        as_of,
        run_id,
        max(ranker) filter (where list = 'for_you') as for_you_model,
        max(why) filter (where list = 'for_you') as for_you_why,
        max(ranker) filter (where list = 'discover') as discover_model,
        max(why) filter (where list = 'discover') as discover_why,
    from next_gate
    group by as_of, run_id
)

select
    chosen.as_of,
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
