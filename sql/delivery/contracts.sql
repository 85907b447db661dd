-- One row per column that a SELECT gave under the contract version in force: by this delivery or an earlier one.
-- A number that once came in a wider type stays known by that. A SELECT left out today keeps what it gave before.
-- key: table_name, select_name, column_name
with known as (
    select *
    from raw.contracts
    where contract_version = getvariable('contract_version')
)

select
    coalesce(seen.source, known.source) as source,
    coalesce(seen.contract_version, known.contract_version) as contract_version,
    table_name,
    select_name,
    column_name,
    coalesce(known.column_type, seen.column_type) as column_type,
    coalesce(seen.select_hash, known.select_hash) as select_hash,
    coalesce(seen.select_text, known.select_text) as select_text,
    coalesce(seen.settings, known.settings) as settings,
    coalesce(known.first_seen_at, getvariable('loaded_at')) as first_seen_at,
    case when seen.source is null then known.last_seen_at else getvariable('loaded_at') end as last_seen_at,
from delivery.contracts as seen
full outer join known using (table_name, select_name, column_name)
order by table_name, select_name, column_name
