-- One row per known user or item, attribute and value known before as_of: text and each member of a list is a category; a
-- number, and the age in days of a date before as_of, stays a number and is in the category of its eighth among its like.
-- `since` is the first day this value was known (null = undated).
-- known_at: only rows that had arrived before that time and were not replaced by then; 'infinity': all known now.
-- key: node_kind, node_id, attribute, category
with versions as (
    select
        'user' as node_kind,
        user_id as node_id,
        valid_from,
        to_json(users) as fields,
        row_number() over (
            partition by user_id order by valid_from desc nulls last, loaded_at desc, source_file desc, source_row desc
        ) as recency,
    from raw.users as users
    where
        loaded_at < getvariable('known_at')
        and coalesce(superseded_at, timestamp 'infinity') >= getvariable('known_at')
        and excluded_because is null
        and (valid_from is null or valid_from < getvariable('as_of'))
        and user_id in (select user_id from staging.users)
    union all
    select
        'item' as node_kind,
        item_id as node_id,
        valid_from,
        to_json(items) as fields,
        row_number() over (
            partition by item_id order by valid_from desc nulls last, loaded_at desc, source_file desc, source_row desc
        ) as recency,
    from raw.items as items
    where
        loaded_at < getvariable('known_at')
        and coalesce(superseded_at, timestamp 'infinity') >= getvariable('known_at')
        and excluded_because is null
        and (valid_from is null or valid_from < getvariable('as_of'))
        and item_id in (select item_id from staging.items)
),

fields as (
    select
        versions.node_kind,
        versions.node_id,
        versions.valid_from,
        versions.recency,
        field.key as attribute,
        field.type as json_type,
        unnest(
            case field.type
                when 'ARRAY' then json_extract_string(field.value, '$[*]')
                else [json_extract_string(field.value, '$')]
            end
        ) as value,
    from versions, json_each(versions.fields) as field
    where
        field.type not in ('NULL', 'OBJECT')
        and field.key not in (
            'user_id',
            'item_id',
            'valid_from',
            'valid_to',
            'excluded_because',
            'source_file',
            'source_row',
            'loaded_at',
            'superseded_at'
        )
),

typed as (
    select
        node_kind,
        node_id,
        attribute,
        valid_from,
        recency,
        json_type = 'VARCHAR' and regexp_full_match(value, '\d{4}-\d{2}-\d{2}.*') as is_date,
        json_type in ('DOUBLE', 'BIGINT', 'UBIGINT') as is_number,
        case
            when is_number then try_cast(value as double)
            when is_date and try_cast(value[:10] as date) < getvariable('as_of')
                then getvariable('as_of') - try_cast(value[:10] as date)
        end as number,
        case when not is_number and not is_date then trim(value) end as category,
    from fields
),

current as (
    select
        node_kind,
        node_id,
        attribute,
        category,
        any_value(number order by recency) as number,
        case when count(*) = count(valid_from) then min(valid_from) end as since,
    from typed
    where category != '' or isfinite(number)
    group by node_kind, node_id, attribute, category
    having min(recency) = 1
),

ranked as (
    select
        *,
        percent_rank() over (partition by node_kind, attribute order by number) as position,
    from current
)

select
    node_kind,
    node_id,
    attribute,
    coalesce(category, 'eighth ' || least(8, 1 + cast(floor(8 * position) as integer))) as category,
    number,
    since,
from ranked
order by node_kind, node_id, attribute, category
