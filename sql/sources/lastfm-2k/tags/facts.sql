-- One row per line of tags.dat after the header: the name of a tag, used with the taggings and no fact of its own.
-- key: source_file, source_row
-- Published in latin-1; a copy in UTF-8 reads as well, with other signs for letters beyond ASCII.
select
    split_part(line, chr(9), 1) as subject,
    'name' as relation,
    split_part(line, chr(9), 2) as object,
    cast(null as date) as since,
    'the name of a tag' as excluded_because,
    case
        when not regexp_full_match(line, '[1-9]\d{0,7}\t[^\t[:cntrl:]]*[^\t\s[:cntrl:]][^\t[:cntrl:]]*') then line
    end as raw_text,
    source_file,
    source_row,
from csv_lines(getvariable('input') || '/tags.dat', E'tagID\ttagValue', charset := 'latin-1')
