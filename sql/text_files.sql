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
