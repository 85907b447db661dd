-- One row per fact: what items are made of, which brand makes them, which company owns the brand.
-- key: subject, relation, object
-- made_of is undated, made_by dates from the launch, owned_by from the 1990s. Items go by id, all else by name.
with made_of as (
    select
        item_id as subject,
        'made_of' as relation,
        material as object,
        cast(null as date) as since,
    from planted_items
),

made_by as (
    select
        item_id as subject,
        'made_by' as relation,
        brand as object,
        launch_date as since,
    from planted_items
),

owned_by as (
    select distinct
        brand as subject,
        'owned_by' as relation,
        company as object,
        date '1990-01-01' + cast(company_index as integer) * 365 as since,
    from planted_items
)

select
    subject,
    relation,
    object,
    since,
from made_of
union all
select
    subject,
    relation,
    object,
    since,
from made_by
union all
select
    subject,
    relation,
    object,
    since,
from owned_by
order by subject, relation, object
