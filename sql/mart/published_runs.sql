-- One row per published date: the run whose lists it shows, and why the gate chose its models.
-- key: as_of
-- next_* are the tables of mart as they will be once the current run is published.
with published as (
    select distinct
        as_of,
        run_id,
    from next_recommendations
),

chosen as (
    select
        as_of,
        max(ranker) filter (where list = 'for_you') as for_you_model,
        max(why) filter (where list = 'for_you') as for_you_why,
        max(ranker) filter (where list = 'discover') as discover_model,
        max(why) filter (where list = 'discover') as discover_why,
    from next_gate
    group by as_of
)

select
    published.as_of,
    published.run_id,
    runs.source,
    runs.started_at,
    chosen.for_you_model,
    chosen.for_you_why,
    chosen.discover_model,
    chosen.discover_why,
    models.model_version,
    runs.source_snapshot,
    runs.code_version,
    runs.user_count,
    runs.item_count,
    runs.event_count,
from published
inner join mart.runs as runs using (run_id)
left join chosen on published.as_of = chosen.as_of
left join mart.models as models on published.run_id = models.run_id
order by published.as_of
