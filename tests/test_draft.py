"""A drafted source reads every row of files that nobody described, says what it guessed, and breaks on no name."""

from __future__ import annotations

import gzip
import json
import shutil
import tomllib
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import _left_out, _measured, app
from tasks.draft import Draft, draft_source, try_source
from tasks.errors import ContractError, UsageError
from tasks.warehouse import connect
from tests.tiny_source import tiny_source

HOSTILE = "'; drop table x; --\"\n\r\u2028]] \x1b[31m{0} $1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where files are delivered."""
    (tmp_path / "input").mkdir()
    return tmp_path / "input"


def drafted(path: Path, to: Path) -> tuple[Draft, dict[str, Any]]:
    """The draft for these files and how it fares on all of their rows."""
    draft = draft_source("drafted", path, to)
    return draft, try_source(to, path if path.is_dir() else path.parent)


def fates(tried: dict[str, Any]) -> dict[tuple[str, str, str | None], int]:
    """Rows by table, fate and rule."""
    return {(table, fate, rule): rows for table, _, fate, rule, rows in tried["accounting"]}


def guesses(draft: Draft, table: str) -> str:
    return "\n".join(draft.adapters[table].guesses)


def write_csv(path: Path, header: str, rows: list[str], charset: str = "utf-8") -> None:
    path.write_bytes("".join(f"{line}\n" for line in [header, *rows] if line).encode(charset))


def events(count: int = 400) -> list[tuple[int, int, date]]:
    """User, item and day: 40 users, 30 items, each user on every tenth day."""
    return [(row % 40, row * 7 % 30, date(2024, 1, 1) + timedelta(days=row * 10 // 40)) for row in range(count)]


def test_film_ratings_are_read_whole_with_their_films(real_data: Path, tmp_path: Path) -> None:
    draft, tried = drafted(real_data / "ml-latest-small", tmp_path / "films")
    assert fates(tried) == {("interactions", "loaded", None): 100_836, ("items", "loaded", None): 9_742}
    assert (tried["users"], tried["items"], tried["as_of"]) == (610, 9_724, date(2018, 9, 25))
    assert 'occurred_at from "timestamp", seconds since 1970' in guesses(draft, "interactions")
    assert "string_split(genres, '|') as genres" in (tmp_path / "films" / "items.sql").read_text()
    assert draft.unused.keys() == {"README.txt", "links.csv", "tags.csv"}


def test_rows_of_a_real_shop_that_are_no_purchases_are_excluded_by_rule(real_data: Path, tmp_path: Path) -> None:
    files = real_data / "online-retail-ii"
    _, tried = drafted(files, tmp_path / "gifts")
    with connect() as connection:
        rows, unknown, returned = connection.execute(
            'select count(*), count(*) filter ("Customer ID" is null),'
            ' count(*) filter ("Customer ID" is not null and quantity <= 0) from read_parquet($files)',
            {"files": f"{files}/*.parquet"},
        ).fetchall()[0]
    assert fates(tried) == {
        ("interactions", "excluded", "no user"): unknown,
        ("interactions", "excluded", "quantity not positive"): returned,
        ("interactions", "loaded", None): rows - unknown - returned,
    }
    assert tried["event_types"] == [("purchase", rows - unknown - returned)]
    settings = tomllib.loads((tmp_path / "gifts" / "source.toml").read_text())
    assert settings["repeats"] is True and settings["horizon_days"] == 28


def test_day_month_and_year_make_a_date_and_friends_are_links(real_data: Path, tmp_path: Path) -> None:
    _, tried = drafted(real_data / "lastfm-2k", tmp_path / "music")
    assert fates(tried) == {
        ("interactions", "loaded", None): 186_474,
        ("interactions", "quarantined", "event_date before 1980"): 5,
        ("items", "loaded", None): 17_632,
        ("links", "loaded", None): 25_434,
    }


def test_without_names_the_list_of_users_tells_which_column_is_the_user(
    real_data: Path, folder: Path, tmp_path: Path
) -> None:
    for name in ("u.user", "u.item"):
        shutil.copy(real_data / "ml-100k" / name, folder)
    lines = [line.split("\t") for line in (real_data / "ml-100k" / "u.data").read_text().splitlines()[:20_000]]
    write_csv(folder / "u.data", "", ["\t".join([item, user, *rest]) for user, item, *rest in lines])
    draft, tried = drafted(folder, tmp_path / "films")
    assert draft.adapters["interactions"].columns["user_id"] == "column2"
    assert draft.adapters["interactions"].columns["item_id"] == "column1"
    assert any("is this the user" in choice for choice in draft.choices)
    assert tried["users"] == len({user for user, *_ in lines}) and tried["items"] == len({line[1] for line in lines})
    assert fates(tried)["users", "loaded", None] == 943 and fates(tried)["items", "loaded", None] == 1_682


def test_files_without_a_time_are_refused_with_what_was_looked_at(real_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"Almanac learns from dated events.*test\.txt.*train\.txt"):
        draft_source("gowalla", real_data / "gowalla-lightgcn", tmp_path / "gowalla")
    assert not (tmp_path / "gowalla").exists()


def test_german_columns_latin_1_and_a_decimal_comma_are_read(folder: Path, tmp_path: Path) -> None:
    rows = [f"K{user};A{item};{day:%d.%m.%Y};2;1.001,50;Straße {user}" for user, item, day in events()]
    header = "Kundennummer;Artikelnummer;Bestelldatum;Menge;Preis;Straße"
    write_csv(folder / "käufe.csv", header, [*rows, "K1;A1;31.02.2024;1;1,00;Weg", "K1;A1"], "latin-1")
    _, tried = drafted(folder, tmp_path / "laden")
    assert fates(tried) == {
        ("interactions", "loaded", None): 400,
        ("interactions", "quarantined", "unreadable"): 2,
    }
    assert (tried["users"], tried["items"]) == (40, 30)
    assert (tried["first"], tried["last"]) == (date(2024, 1, 1), date(2024, 4, 9))


@pytest.mark.parametrize(("month_first", "is_open"), [("%d/%m/%Y", True), ("%m/%d/%Y", False)])
def test_whether_day_or_month_comes_first_is_asked_only_where_both_fit(
    folder: Path, tmp_path: Path, month_first: str, is_open: bool
) -> None:
    days = [date(2024, 1 + row % 12, 1 + row % (11 if is_open else 28)) for row in range(300)]
    rows = [f"{row % 20},{row % 30},{day.strftime(month_first)}" for row, day in enumerate(days)]
    write_csv(folder / "visits.csv", "visitor_id,product_id,date", rows)
    draft, _ = drafted(folder, tmp_path / "visits")
    assert any("day or month first?" in choice for choice in draft.choices) is is_open
    assert is_open or month_first in guesses(draft, "interactions")


def test_without_a_date_the_draft_asks_for_one_and_invents_none(folder: Path, tmp_path: Path) -> None:
    write_csv(folder / "plays.csv", "user_id,artist_id,plays", [f"{u},{i},{u + i}" for u, i, _ in events()])
    draft, tried = drafted(folder, tmp_path / "plays")
    assert any("Almanac needs dated events" in choice for choice in draft.choices)
    assert fates(tried) == {("interactions", "quarantined", "unreadable"): 400}
    assert tried["as_of"] is None and tried["refused"] == {"interactions": 1.0}


def test_json_lines_and_their_event_types_are_read(folder: Path, tmp_path: Path) -> None:
    kinds = ["view", 'b"uy\\', "view", "caf\u00e9\U0001f600"]
    with gzip.open(folder / "log.jsonl.gz", "wt") as file:
        for row, (user, item, day) in enumerate(events()):
            record = {"user": {"no": 1}, "userId": f"u{user}", "item/~id": item, "event": kinds[row % 4]}
            file.write(json.dumps(record | {"at": f"{day}T23:30:00-02:00"}) + "\n")
        file.write('{"userId": "u1", broken\n')
    _, tried = drafted(folder, tmp_path / "log")
    assert fates(tried) == {
        ("interactions", "loaded", None): 400,
        ("interactions", "quarantined", "unreadable"): 1,
    }
    assert dict(tried["event_types"]) == {"view": 200, 'b"uy\\': 100, "caf\u00e9\U0001f600": 100}
    assert tried["first"] == date(2024, 1, 2)  # half past one in UTC


def test_lines_within_quotes_keep_a_row_together(folder: Path, tmp_path: Path) -> None:
    rows = [f'{user},{item},"so\nso, ""{user}""",{day}' for user, item, day in events()]
    write_csv(folder / "reviews.csv", "reviewerID,asin,text,date", rows)
    _, tried = drafted(folder, tmp_path / "reviews")
    assert fates(tried) == {("interactions", "loaded", None): 400}


def test_files_that_differ_in_digits_are_parts_unless_they_repeat_each_other(folder: Path, tmp_path: Path) -> None:
    rows = [f"{user},{item},{day}" for user, item, day in events()]
    for month, part in (("2024-01", rows[:200]), ("2024-02", rows[200:])):
        write_csv(folder / f"views-{month}.csv", "user_id,item_id,day", part)
    _, tried = drafted(folder, tmp_path / "parts")
    assert {file: count for _, file, *_, count in tried["accounting"]} == {
        "views-2024-01.csv": 200,
        "views-2024-02.csv": 200,
    }
    write_csv(folder / "views-2024-02.csv", "user_id,item_id,day", rows)
    write_csv(folder / "views-2024-01.csv", "user_id,item_id,day", rows[:350])
    draft, tried = drafted(folder, tmp_path / "copies")
    assert fates(tried) == {("interactions", "loaded", None): 400}
    assert draft.unused.keys() == {"views-2024-01.csv"}


def test_facts_and_dated_friends_are_found_by_their_names(folder: Path, tmp_path: Path) -> None:
    write_csv(folder / "views.csv", "user_id,item_id,day", [f"u{u},i{i},{day}" for u, i, day in events()])
    write_csv(folder / "facts.csv", "head,relation,tail", [f"i{i},made_by,maker {i % 4}" for i in range(30)])
    friends = [f"u{row % 40},u{(row + 1 + row // 40) % 40},{date(2023, 1, 1 + row % 28)},{row}" for row in range(120)]
    write_csv(folder / "friends.csv", "follower,followee,since,weight", friends)
    draft, tried = drafted(folder, tmp_path / "graph")
    assert fates(tried) == {
        (table, "loaded", None): n for table, n in (("interactions", 400), ("facts", 30), ("links", 120))
    }
    assert draft.adapters["links"].columns["since"] == "cast(try_cast(since as timestamp) as date)"
    assert draft.adapters["links"].columns["strength"] == "try_cast(weight as double)"


def test_friends_alone_are_no_events(folder: Path, tmp_path: Path) -> None:
    write_csv(
        folder / "friends.csv", "member,friend,since", [f"u{n % 40},u{n * 7 % 40},2023-01-01" for n in range(400)]
    )
    with pytest.raises(ContractError, match="no file holds events"):
        draft_source("friends", folder, tmp_path / "friends")


def test_names_that_hold_sql_and_line_breaks_stay_names(folder: Path, tmp_path: Path) -> None:
    name = HOSTILE.replace("\r", "")
    table = pa.table(
        {
            f"user_id {name}": [f"u{user}" for user, _, _ in events()],
            "item_id": [f"i{item}" for _, item, _ in events()],
            f"event {name}": [f"buy {HOSTILE}"] * 400,
            "event_time": [datetime(2024, 1, 1)] * 400,
            "select": [1] * 400,
            "SELECT": [2] * 400,
            'a"b': [3] * 400,
            "value": [-1.0] * 400,
            "": [5] * 400,
            "return\rwithin": [6] * 400,  # no text file can hold this name
        }
    )
    pq.write_table(table, folder / f"it's [1]*? {HOSTILE.replace('/', '')}.parquet")
    (folder / "users '\n.csv").write_text('id;"na""me\n--x"\n' + "".join(f"u{n};{n % 5}\n" for n in range(40)))
    draft, tried = drafted(folder, tmp_path / "hostile")
    assert fates(tried) == {
        ("interactions", "excluded", "value negative"): 400,
        ("users", "loaded", None): 40,
    }
    strengths = tomllib.loads((tmp_path / "hostile" / "source.toml").read_text())["event_strength"]
    assert strengths == {f"buy {HOSTILE}": 1.0}
    assert all(text.isprintable() for text in (*draft.choices, *draft.adapters["interactions"].guesses))


def test_a_name_or_folder_that_is_taken_is_left_alone(folder: Path, tmp_path: Path) -> None:
    write_csv(folder / "views.csv", "user_id,item_id,day", [f"{u},{i},{day}" for u, i, day in events()])
    for name in ("shop", "../shop", "a\nb", ""):
        with pytest.raises(UsageError, match="cannot name a source"):
            draft_source(name, folder, tmp_path / "new")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="exists and is left as it is"):
        draft_source("mine", folder, tmp_path / "mine")
    with pytest.raises(UsageError, match="does not exist"):
        draft_source("mine", folder / "nowhere", tmp_path / "new")
    assert not list((tmp_path / "mine").iterdir()) and not (tmp_path / "new").exists()


def test_the_command_prints_fates_choices_and_the_run_to_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(folder / "views.csv", "user_id,item_id,day", [f"{u},{i},{day}" for u, i, day in events()])
    result = CliRunner().invoke(app, ["sources", "new", "mine", "--from", "input"])
    assert result.exit_code == 0, result.output
    assert "almanac run --source ./mine --input input --as-of 2024-04-10" in result.output
    assert "40 users, 30 items; view 400" in result.output and "-- choose:" in result.output
    (folder / "views.csv").unlink()
    assert CliRunner().invoke(app, ["sources", "check", "mine", "--input", "input"]).exit_code == 3
    listed = CliRunner().invoke(app, ["sources"])
    assert listed.exit_code == 0 and "online-retail-ii" in listed.output and "rows of" not in listed.output


def test_a_warning_says_how_many_rows_or_what_was_found() -> None:
    assert _measured({"failed": 12, "checked": 4000, "observed": None}) == " (12 of 4,000 rows)"
    assert _measured({"failed": None, "checked": None, "observed": "2024-01-01"}) == " (found 2024-01-01)"
    assert _measured({"failed": 3, "checked": None, "observed": "3"}) == " (3 rows)"
    assert _measured({"failed": 0, "checked": 4000, "observed": None}) == ""


def test_selects_without_their_files_are_told(tmp_path: Path) -> None:
    tiny = tiny_source(
        tmp_path / "tiny", tables=("interactions", "items"), settings='needs = { items = ["items*.csv"] }'
    )
    assert _left_out(tiny.source, tiny.input) == "items.sql (no items*.csv)"
    (tiny.input / "items-1.csv").touch()
    assert not _left_out(tiny.source, tiny.input)
