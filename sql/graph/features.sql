-- One row per numeric attribute of a user or item.
-- key: node_kind, attribute, node_index
with nodes as (
    select
        'user' as node_kind,
        user_index as node_index,
        user_id as node_id,
    from graph.user_nodes
    union all
    select
        'item' as node_kind,
        item_index as node_index,
        item_id as node_id,
    from graph.item_nodes
)

select
    node_kind,
    attributes.attribute,
    nodes.node_index,
    attributes.number,
from staging.attributes as attributes
inner join nodes using (node_kind, node_id)
where attributes.number is not null
order by node_kind, attribute, node_index
