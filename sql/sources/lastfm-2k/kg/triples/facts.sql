-- One row per line of kg/kg.txt: an entity, a relation, an entity, between tabs; undated.
-- key: source_file, source_row
-- The relation loses its domain: 'music.artist.origin' is 'artist.origin', as several types have a property of one name.
select
    subject,
    regexp_extract(relation, '[^.]+\.[^.]+$') as relation,
    object,
    since,
    excluded_because,
    raw_text,
    source_file,
    source_row,
from mkr_triples(getvariable('input') || '/kg')
