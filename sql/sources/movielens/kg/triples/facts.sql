-- One row per line of kg/kg.txt: an entity, a relation, an entity, between tabs; undated.
-- key: source_file, source_row
-- 'film.film.director' is short for the relation 'director'.
select
    subject,
    split_part(relation, '.', -1) as relation,
    object,
    since,
    excluded_because,
    raw_text,
    source_file,
    source_row,
from mkr_triples(getvariable('input') || '/kg')
