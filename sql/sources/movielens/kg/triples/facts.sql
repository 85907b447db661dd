-- One row per line of kg/kg.txt: an entity, a relation, an entity, between tabs; undated.
-- key: source_file, source_row
-- 'film.film.director' is short for the relation 'director'.
with lines as (
    select
        *,
        string_split(line, chr(9)) as field,
    from lines(getvariable('input') || '/kg/kg.txt', 'utf-8')
)

select
    'kg:' || field[1] as subject,
    split_part(field[2], '.', -1) as relation,
    'kg:' || field[3] as object,
    cast(null as date) as since,
    cast(null as varchar) as excluded_because,
    case
        when not regexp_full_match(line, '(0|[1-9]\d{0,7})\t[a-z_]+(\.[a-z_]+)+\t(0|[1-9]\d{0,7})') then line
    end as raw_text,
    source_file,
    source_row,
from lines
