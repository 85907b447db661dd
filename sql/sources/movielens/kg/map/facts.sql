-- One row per line of kg/item_index2entity_id.txt: a film and the same as an entity of the knowledge graph; undated.
-- key: source_file, source_row
select
    subject,
    relation,
    object,
    since,
    excluded_because,
    raw_text,
    source_file,
    source_row,
from mkr_map(getvariable('input') || '/kg')
