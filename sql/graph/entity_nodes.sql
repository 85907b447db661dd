-- One row per entity: a category that two or more users or items share ('attribute=value'), or a member of a fact.
-- key: entity_index, 0..n-1 by entity_id
with entities as (
    select attribute || '=' || category as entity_id
    from staging.attributes
    where category is not null
    group by attribute, category
    having count(*) > 1
    union
    select object as entity_id
    from staging.facts
    union
    select subject as entity_id
    from staging.facts
    where subject not in (select item_id from staging.items)
)

select
    row_number() over (order by entity_id) - 1 as entity_index,
    entity_id,
from entities
order by entity_index
