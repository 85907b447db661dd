-- The words in which adapters read text files line by line, so that a broken line cannot take its neighbours along.
-- noqa: disable=LT01,LT02

-- lines(files, charset): one row per line of the text files a glob finds, plain or compressed, whatever the lines hold.
-- key: source_file, source_row (from 1)
-- Files may be larger than memory: windows without partition and order stream, in the order of the files.
create or replace temp macro lines(files, charset) as table
select
    parse_filename(filename) as source_file,
    position - max(first_position) over so_far + 1 as source_row,
    line,
from (
    select
        filename,
        position,
        if(coalesce(lag(filename) over () = filename, false), null, position) as first_position,
        line,
    from (
        select
            filename,
            row_number() over () as position,
            coalesce(line, '') as line,
        from read_csv(
            files,
            columns = {'line': 'VARCHAR'}, delim = chr(1), quote = '', escape = '', header = false, auto_detect = false,
            encoding = charset, filename = true
        )
    )
)
window so_far as (rows between unbounded preceding and current row);  -- noqa: PRS

-- csv_lines(files, header): one row per line of text files after the first, which must be the header, in any case (else an
-- error); UTF-8 unless `charset` says otherwise.
-- key: source_file, source_row (from 2)
create or replace temp macro csv_lines(files, header, charset := 'utf-8') as table
select *
from lines(files, charset)
where
    if(
        source_row = 1,
        if(
            lower(line) = lower(header),
            false,
            error(source_file || ': its first line must be ''' || header || ''', found ''' || line[:200] || '''')
        ),
        true
    );

-- csv_fields(line): the comma-separated fields of one line, unquoted; null where a quote is broken.
create or replace temp macro csv_fields(line) as
case
    when not contains(line, '"') then string_split(line, ',')
    when regexp_full_match(line, '(("([^"]|"")*"|[^",]*),)*("([^"]|"")*"|[^",]*)')
        then list_transform(
            regexp_extract_all(line, '(?:^|,)("(?:[^"]|"")*"|[^",]*)', 1),
            lambda field: if(starts_with(field, '"'), replace(field[2:-2], '""', '"'), field)
        )
end;

-- time_of_seconds(seconds): the time so many seconds after 1970, given as text; null where not between 1995 and 2033.
create or replace temp macro time_of_seconds(seconds) as
case
    when try_cast(seconds as bigint) between 800000000 and 1999999999
        then make_timestamp(try_cast(seconds as bigint) * 1000000)
end;

-- mkr_map(folder): one fact per line of item_index2entity_id.txt, as MKR publishes it: an item and the same as an entity of
-- the knowledge graph, between tabs; undated.
-- key: source_file, source_row
create or replace temp macro mkr_map(folder) as table
select
    string_split(line, chr(9))[1] as subject,
    'is' as relation,
    'kg:' || string_split(line, chr(9))[2] as object,
    cast(null as date) as since,
    cast(null as varchar) as excluded_because,
    case when not regexp_full_match(line, '[1-9]\d{0,7}\t(0|[1-9]\d{0,7})') then line end as raw_text,
    source_file,
    source_row,
from lines(folder || '/item_index2entity_id.txt', 'utf-8');

-- mkr_triples(folder): one fact per line of kg.txt, as MKR publishes it: an entity, a relation such as 'film.film.director',
-- an entity, between tabs; undated.
-- key: source_file, source_row
create or replace temp macro mkr_triples(folder) as table
select
    'kg:' || string_split(line, chr(9))[1] as subject,
    string_split(line, chr(9))[2] as relation,
    'kg:' || string_split(line, chr(9))[3] as object,
    cast(null as date) as since,
    cast(null as varchar) as excluded_because,
    case
        when not regexp_full_match(line, '(0|[1-9]\d{0,7})\t[a-z_]+(\.[a-z_]+)+\t(0|[1-9]\d{0,7})') then line
    end as raw_text,
    source_file,
    source_row,
from lines(folder || '/kg.txt', 'utf-8');
