"""What the files below a folder hold: tables, how an adapter reads each, and what their columns look like.

Text is read line by line where every line is a row, so that a broken line takes none of its neighbours along.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import unicodedata
import zlib
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO

import duckdb
from duckdb import DuckDBPyConnection

from tasks.warehouse import SQL, quoted, read_select, scalar

SAMPLE_ROWS = 50_000
TEXT_BYTES = 64 * 2**20  # of a file's start, looked at for its character set
PARQUET = (".parquet", ".parq", ".pq")
OWN_NAMES = {
    "line",
    "fields",
    "record",
    "events",
    "source_file",
    "source_row",
    "is_broken",
    "event_time",
    "event_value",
}


@dataclass(frozen=True)
class Time:
    """A way to read values as times."""

    label: str
    sql: str  # of a timestamp, null where a value is none; {0} stands for the column
    is_instant: bool = False  # in UTC whatever the source's time zone is
    takes_text: bool = True
    years: tuple[int, int] = (1900, 2100)  # in which values of this kind are believed
    twin: str | None = None  # label of the way that exchanges day and month


@dataclass(frozen=True)
class Column:
    """A column, as a sample of its rows shows it. Shares are of the values that are not blank."""

    name: str  # plain, as the draft writes it
    given: str  # as the file writes it
    type: str
    filled: int = 0
    distinct: int = 0
    number_share: float = 0.0
    comma_share: float = 0.0  # numbers with a decimal comma
    whole_share: float = 0.0
    lowest: float | None = None
    mean_length: float = 0.0
    bar_share: float = 0.0  # lists such as 'drama|comedy'
    bracket_share: float = 0.0  # JSON lists
    words_share: float = 0.0
    point_zero_share: float = 0.0  # whole numbers written as '13085.0'
    time: Time | None = None
    other_time: Time | None = None  # reads as many values

    @property
    def is_unique(self) -> bool:
        """Whether nearly every value is another."""
        return self.distinct >= 0.98 * self.filled > 0

    @property
    def text(self) -> str:
        """SQL of the value as text; whole numbers have no decimals."""
        if self.type == "VARCHAR":
            return f"regexp_replace({self.name}, '\\.0$', '')" if self.point_zero_share > 0.99 else self.name
        is_whole = self.type in ("DOUBLE", "FLOAT") and self.whole_share == 1
        return f"cast({f'try_cast({self.name} as bigint)' if is_whole else self.name} as varchar)"

    @property
    def number(self) -> str:
        """SQL of the value as a number, null where it is none."""
        if self.type == "VARCHAR" and self.comma_share:
            return f"try_cast(replace(replace({self.name}, '.', ''), ',', '.') as double)"
        return f"try_cast({self.name} as double)"

    def timestamp(self, time: Time) -> str:
        """SQL of the value as a timestamp, null where it is none."""
        is_cast = time.takes_text and self.type != "VARCHAR"
        return time.sql.format(f"cast({self.name} as varchar)" if is_cast else self.name)


@dataclass(frozen=True)
class Table:
    """Files of one structure."""

    files: str  # glob below the input folder
    reader: str  # SELECT of the columns by their plain names, blanks around text removed, and source_file, source_row
    columns: tuple[Column, ...]
    rows: int
    sample: str  # temporary table of some rows
    sampled: int
    broken: str | None  # SQL that tells a line which is no row
    raw: str  # SQL of a row's text
    has_names: bool


class NoTable(Exception):
    """Why a file is not read."""


def look(connection: DuckDBPyConnection, root: Path, files: list[Path]) -> tuple[list[Table], dict[str, str]]:
    """The tables in these files below `root`, and by file why the others are none.

    The connection knows the macros of sql/text_files.sql; it keeps a sample of each table.
    """
    tables: list[Table] = []
    unread: dict[str, str] = {}
    waiting = _groups(root, files)
    while waiting:
        glob, group = waiting.pop(0)
        try:
            table = _open(connection, glob, group, f"sample_{len(tables)}")
        except (NoTable, duckdb.Error, UnicodeError, OSError, EOFError, zlib.error) as error:
            unread[glob] = str(error).strip().split("\n")[0]
            continue
        if len(group) > 1 and _repeats_itself(connection, table):  # folds or copies, not parts
            waiting = [(_escaped(str(path.relative_to(root))), [path]) for path in group] + waiting
        else:
            tables.append(table)
    return tables, unread


def plain(text: str, length: int = 80) -> str:
    """Text of the data on one line, fit for a comment or a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:length]


def literal(text: str) -> str:
    """A SQL string; signs that cannot be seen, or that a text file changes, are written as their numbers."""
    runs = [(is_seen, "".join(signs)) for is_seen, signs in groupby(text, str.isprintable)]
    written = [
        "'" + run.replace("'", "''") + "'" if is_seen else " || ".join(f"chr({ord(sign)})" for sign in run)
        for is_seen, run in runs
    ]
    return " || ".join(written) or "''"


def _groups(root: Path, files: list[Path]) -> list[tuple[str, list[Path]]]:
    """Files whose names differ only in digits belong together, for more of them will come."""
    groups: dict[str, list[Path]] = {}
    for path in files:
        glob = re.sub(r"\d+", "[0-9]*", _escaped(str(path.relative_to(root))))
        groups.setdefault(glob, []).append(path)
    return list(groups.items())


def _escaped(name: str) -> str:
    return re.sub(r"[\[*?]", r"[\g<0>]", name)


def _open(connection: DuckDBPyConnection, glob: str, group: list[Path], sample: str) -> Table:
    """The table in a group of files, as its largest shows it."""
    files = f"getvariable('input') || {literal('/' + glob)}"
    is_flat = len({path.name for path in group}) == len(group)
    file_name = "parse_filename(filename)" if is_flat else "filename[length(getvariable('input')) + 2:]"
    path = max(group, key=lambda file: file.stat().st_size)
    if path.suffix.lower() in PARQUET:
        return _open_parquet(connection, glob, files, file_name, sample)
    charset = _charset(path)
    with _opened(path) as file, io.TextIOWrapper(file, "utf-8-sig" if charset == "utf-8" else charset) as lines:
        first = lines.readline(2**20).rstrip("\r\n")
    if first.startswith("{") and is_flat:
        return _open_json(connection, glob, files, charset, sample)
    return _open_text(connection, glob, files, file_name, charset, first, path, is_flat, sample)


def _open_parquet(connection: DuckDBPyConnection, glob: str, files: str, file_name: str, sample: str) -> Table:
    source = f"read_parquet({files}, filename = true, file_row_number = true)"
    described = connection.execute(f"describe from {source}").fetchall()
    own = ("filename", "file_row_number")
    given = {row[0]: row[1] for row in described if row[0] not in own and "\r" not in row[0]}
    names = _plain_names(connection, list(given))
    values = [_trimmed(quoted(column)) if kind == "VARCHAR" else quoted(column) for column, kind in given.items()]
    reader = _select([f"{file_name} as source_file", "file_row_number as source_row", *_as(values, names)], source)
    return _profiled(connection, glob, reader, list(given), names, sample)


def _open_json(connection: DuckDBPyConnection, glob: str, files: str, charset: str, sample: str) -> Table:
    """One JSON object a line."""
    lines = f"lines({files}, {literal(charset)})"
    keys = f"select distinct unnest(json_keys(try_cast(line as json))) from (from {lines} limit 1000) order by all"
    given = [row[0] for row in connection.execute(keys).fetchall()]
    names = _plain_names(connection, given)
    pointers = [literal("/" + key.replace("~", "~0").replace("/", "~1")) for key in given]
    columns = _as([_trimmed(f"(record ->> {pointer})") for pointer in pointers], names)
    source = _nested("*, try_cast(line as json) as record", lines)
    reader = _select(["source_file", "source_row", "line", "record is null as is_broken", *columns], source)
    return _profiled(connection, glob, reader, given, names, sample, by_lines=True)


def _open_text(
    connection: DuckDBPyConnection,
    glob: str,
    files: str,
    file_name: str,
    charset: str,
    first: str,
    path: Path,
    is_flat: bool,
    sample: str,
) -> Table:
    """Delimited text: by lines where these can be split, else by DuckDB's CSV reader."""
    delimiter, quote, skipped, has_names, given = _sniff(connection, path, charset)
    given = given if has_names else [f"column{at}" for at in range(1, len(given) + 1)]
    names = _plain_names(connection, given)
    with _opened(path) as file:
        has_quotes = b'"' in file.read(TEXT_BYTES)
    is_quoted = has_quotes and quote != ""
    quote = quote or '"'
    header = "header = true" if has_names else f"header = false, names = [{', '.join(map(literal, given))}]"
    values = [_trimmed(quoted(column)) for column in given]
    by_reader = _select(
        [f"{file_name} as source_file", "row_number() over () as source_row", *_as(values, names)],
        f"read_csv(\n        {files}, all_varchar = true, delim = {literal(delimiter)}, quote = {literal(quote)},"
        f"\n        escape = {literal(quote)}, {header}, skip = {skipped},"
        f"\n        encoding = {literal(charset)}, filename = true\n    )",
    )
    if is_flat and not skipped and (delimiter == "," or not is_quoted):
        by_csv = delimiter == "," and has_quotes
        by_lines = _line_reader(files, charset, first if has_names else None, delimiter, by_csv, names)
        counts = f"select count(*) filter (is_broken), count(*) from ({by_lines})"
        broken, rows = connection.execute(counts).fetchall()[0]
        if not (broken and has_quotes and _can_read(connection, by_reader)):  # else a quoted field may break lines
            if broken > 0.5 * rows:
                raise NoTable(f"no table: {broken:,} of its {rows:,} lines do not have {len(names)} fields")
            return _profiled(connection, glob, by_lines, given, names, sample, has_names=has_names, by_lines=True)
    return _profiled(connection, glob, by_reader, given, names, sample, has_names=has_names)


def _sniff(connection: DuckDBPyConnection, path: Path, charset: str) -> tuple[str, str, int, bool, list[str]]:
    """Delimiter, quote, lines before the table, whether its first line names the columns, and these names."""
    query = (
        "select delimiter, replace(quote, '(empty)', ''), skiprows, hasheader, list_transform(columns, lambda c: c.name)"
        " from sniff_csv($path, encoding = $charset, ignore_errors = true"
    )
    given = {"path": _escaped(str(path)), "charset": charset}
    for choice in (")", ", delim = '::')"):
        try:
            row = connection.execute(query + choice, given).fetchall()[0]
        except duckdb.InvalidInputException:
            continue
        if len(row[4]) > 1:
            return row
    raise NoTable("no table: none of , ; | tab and :: splits its lines")


def _line_reader(
    files: str, charset: str, header: str | None, delimiter: str, has_quotes: bool, names: list[str]
) -> str:
    lines = f"lines({files}, {literal(charset)})"
    if header is not None:
        other = "" if charset == "utf-8" else f", charset := {literal(charset)}"
        lines = f"csv_lines({files}, {literal(header)}{other})"
    split = "csv_fields(line)" if has_quotes else f"string_split(line, {literal(delimiter)})"
    fields = _as([_trimmed(f"fields[{at}]") for at in range(1, len(names) + 1)], names)
    own = ["source_file", "source_row", "line", f"len(fields) is distinct from {len(names)} as is_broken"]
    return _select(own + fields, _nested(f"*, {split} as fields", lines))


def _trimmed(text: str) -> str:
    return f"nullif(trim({text}), '')"


def _as(values: list[str], names: list[str]) -> list[str]:
    pairs = zip(values, names, strict=True)
    return [name if value == quoted(name) else f"{value} as {name}" for value, name in pairs]


def _select(columns: list[str], source: str) -> str:
    listed = "".join(f"        {column},\n" for column in columns)
    return f"    select\n{listed}    from {source}"


def _nested(columns: str, source: str) -> str:
    return f"(\n        select {columns}\n        from {source}\n    )"


def _can_read(connection: DuckDBPyConnection, reader: str) -> bool:
    try:
        connection.execute(f"select count(columns(*)) from ({reader})").fetchall()
    except duckdb.Error:
        return False
    return True


def _profiled(
    connection: DuckDBPyConnection,
    glob: str,
    reader: str,
    given: list[str],
    names: list[str],
    sample: str,
    *,
    has_names: bool = True,
    by_lines: bool = False,
) -> Table:
    """The table, a sample of it kept and each column's values looked at."""
    rows = scalar(connection, f"select count(*) from ({reader})")
    connection.execute(
        f"create or replace temp table {sample} as select {', '.join(names)} from ({reader})"
        f" {'where not is_broken' if by_lines else ''} using sample reservoir({SAMPLE_ROWS} rows) repeatable (7)"
    )
    connection.execute(f"create or replace temp view sample as from {sample}")
    profile = connection.execute(read_select(SQL / "draft/columns.sql", connection))
    measures = [field[0] for field in profile.description or ()][1:]
    profiles = {row[0]: dict(zip(measures, row[1:], strict=True)) for row in profile.fetchall()}
    types = {row[0]: row[1] for row in connection.execute(f"describe {sample}").fetchall()}
    columns = []
    for name, column in zip(names, given, strict=True):
        time, other = _times(connection, sample, name, types[name]) if name in profiles else (None, None)
        columns.append(Column(name, column, types[name], time=time, other_time=other, **profiles.get(name, {})))
    return Table(
        files=glob,
        reader=reader,
        columns=tuple(columns),
        rows=rows,
        sample=sample,
        sampled=scalar(connection, f"select count(*) from {sample}"),
        broken="is_broken" if by_lines else None,
        raw="line" if by_lines else "cast(to_json(events) as varchar)",
        has_names=has_names,
    )


def _times(connection: DuckDBPyConnection, sample: str, name: str, type: str) -> tuple[Time | None, Time | None]:
    """How the values of a column read as times, and another way that reads as many; None where they are none."""
    if type == "TIMESTAMP WITH TIME ZONE":
        return Time("instants of the file's own type", "timezone('UTC', {0})", is_instant=True, takes_text=False), None
    if type == "DATE" or type.startswith("TIMESTAMP"):
        return Time("times of the file's own type", "cast({0} as timestamp)", takes_text=False), None
    if type not in ("VARCHAR", "BIGINT", "INTEGER", "UBIGINT", "UINTEGER", "HUGEINT", "DOUBLE"):
        return None, None
    values = f"select distinct cast({name} as varchar) as value from {sample} where {name} is not null limit 1000"
    counts = ", ".join(
        f"count(*) filter (year({time.sql.format('value')}) between {time.years[0]} and {time.years[1]})"
        for time in TIMES
    )
    all_values, *read = connection.execute(f"select count(*), {counts} from ({values})").fetchall()[0]
    best = TIMES[read.index(max(read))]
    if max(read) < 0.9 * all_values:
        return None, None
    twins = [time for time, count in zip(TIMES, read, strict=True) if time.label == best.twin and count == max(read)]
    return best, twins[0] if twins else None


def _all_times() -> list[Time]:
    offset = r"\d\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?)$"
    instant = f"case when regexp_matches({{0}}, '{offset}') then timezone('UTC', try_cast({{0}} as timestamptz)) end"
    times = [
        Time("ISO times with their offset from UTC", instant, is_instant=True),
        Time("ISO dates or times", "try_cast({0} as timestamp)"),
    ]
    for unit, scale in (("seconds", " * 1000000"), ("milliseconds", " * 1000"), ("microseconds", "")):
        sql = f"try(make_timestamp(try_cast({{0}} as bigint){scale}))"
        times.append(Time(f"{unit} since 1970", sql, is_instant=True, takes_text=False, years=(1990, 2040)))
    days = ["%d.%m.%Y", "%d.%m.%y", "%Y/%m/%d", "%Y%m%d", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y"]
    twins = {f"%d{sign}%m{sign}%{year}": f"%m{sign}%d{sign}%{year}" for sign in "/-" for year in "Yy"}
    twins |= {other: day for day, other in twins.items()}
    for clock in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p"):
        for day in [*days, *twins]:
            twin = twins[day] + clock if day in twins else None
            times.append(Time(day + clock, f"try_strptime({{0}}, '{day}{clock}')", twin=twin))
    return times


TIMES = _all_times()


def _plain_names(connection: DuckDBPyConnection, given: list[str]) -> list[str]:
    """A plain lower-case name for each column, no two the same and none that SQL or the draft uses."""
    words = "select keyword_name from duckdb_keywords() where keyword_category != 'unreserved'"
    taken = OWN_NAMES | {row[0] for row in connection.execute(words).fetchall()}
    names: list[str] = []
    for title in given:
        letters = unicodedata.normalize("NFKD", title.replace("ß", "ss")).encode("ascii", "ignore").decode()
        name = re.sub(r"\W+", "_", letters.lower()).strip("_")[:40] or "column"
        name = f"c_{name}" if name[0].isdigit() else name
        while name in taken:
            name += "_"
        taken.add(name)
        names.append(name)
    return names


def _repeats_itself(connection: DuckDBPyConnection, table: Table) -> bool:
    columns = ", ".join(column.name for column in table.columns)
    distinct = scalar(connection, f"select approx_count_distinct(hash({columns})) from ({table.reader})")
    return distinct < 0.7 * table.rows


def _charset(path: Path) -> str:
    """The character set that reads the file's start; raises where DuckDB has none for it or it is no text."""
    utf8 = codecs.getincrementaldecoder("utf-8")()
    charset, size = "utf-8", 0
    with _opened(path) as file:
        while size < TEXT_BYTES and (chunk := file.read(2**20)):
            if size == 0 and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                return "utf-16"
            if b"\0" in chunk:
                raise NoTable("neither Parquet nor text")
            size += len(chunk)
            try:
                utf8.decode(chunk) if charset == "utf-8" else None
            except UnicodeDecodeError:
                charset = "latin-1"
            if charset == "latin-1" and re.search(rb"[\x80-\x9f]", chunk):
                raise NoTable("neither UTF-8 nor latin-1; rewrite it, e.g. iconv -f windows-1252 -t utf-8")
    if not size:
        raise NoTable("empty")
    return charset


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # pyright: ignore[reportReturnType]
