-- One row per line of kg/item_index2entity_id.txt: an artist and the same as an entity of the knowledge graph; undated.
-- key: source_file, source_row
with lines as (
    select
        *,
        string_split(line, chr(9)) as field,
    from lines(getvariable('input') || '/kg/item_index2entity_id.txt', 'utf-8')
)

select
    field[1] as subject,
    'is' as relation,
    'kg:' || field[2] as object,
    cast(null as date) as since,
    cast(null as varchar) as excluded_because,
    case when not regexp_full_match(line, '[1-9]\d{0,7}\t(0|[1-9]\d{0,7})') then line end as raw_text,
    source_file,
    source_row,
from lines
