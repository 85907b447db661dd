-- One row per relation of a user, item or entity to an entity; age_days null = undated, always known.
-- key: source_kind, source_index, relation, entity_index
-- A fact that repeats a category is one edge, undated where one of the two is.
-- An item that is the object of facts is an entity too, tied to itself by the relation 'is'.
with category_edges as (
    select
        node_kind as source_kind,
        node_id as source_id,
        attribute as relation,
        attribute || '=' || category as entity_id,
        since,
    from staging.attributes
    where category is not null
),

fact_edges as (
    select
        case when items.item_id is null then 'entity' else 'item' end as source_kind,
        facts.subject as source_id,
        facts.relation,
        facts.object as entity_id,
        facts.since,
    from staging.facts as facts
    left join staging.items as items on facts.subject = items.item_id
),

same_edges as (
    select
        'item' as source_kind,
        item_id as source_id,
        'is' as relation,
        item_id as entity_id,
        cast(null as date) as since,
    from staging.items
    where item_id in (select object from staging.facts)
),

edges as (
    select
        source_kind,
        source_id,
        relation,
        entity_id,
        case when count(*) = count(since) then min(since) end as since,
    from (
        from category_edges
        union all
        from fact_edges
        union all
        from same_edges
    )
    group by source_kind, source_id, relation, entity_id
),

nodes as (
    select
        'user' as source_kind,
        user_index as source_index,
        user_id as source_id,
    from graph.user_nodes
    union all
    select
        'item' as source_kind,
        item_index as source_index,
        item_id as source_id,
    from graph.item_nodes
    union all
    select
        'entity' as source_kind,
        entity_index as source_index,
        entity_id as source_id,
    from graph.entity_nodes
)

select
    nodes.source_kind,
    nodes.source_index,
    edges.relation,
    entity_nodes.entity_index,
    cast(1 as float) as weight,
    cast(getvariable('as_of') - edges.since as integer) as age_days,
from edges
inner join nodes using (source_kind, source_id)
inner join graph.entity_nodes using (entity_id)
order by source_kind, source_index, relation, entity_index
