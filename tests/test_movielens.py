"""MovieLens as published, in both layouts, and the knowledge graph of its films."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from tasks.errors import ContractError
from tasks.transform import build_staging
from tests.shipped_source import add_files, append, shipped_source
from tests.tiny_source import TinySource

AFTER_100K, AFTER_LATEST = date(1998, 5, 1), date(2019, 2, 1)
GRAPH_FILES = ("kg.txt", "item_index2entity_id.txt")
FLAGS = "|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0"  # Animation, Children, Comedy
BROKEN = {
    "u.data": [
        "",
        "196\t242\t3",
        "196\t242\t3\t881250949\t1",
        "196,242,3,881250949",
        "x196\t242\t3\t881250949",
        " 196\t242\t3\t881250949",
        "196\t242 \t3\t881250949",
        "-196\t242\t3\t881250949",
        "196\t242.5\t3\t881250949",
        "196196196\t242\t3\t881250949",
        "881250949\t242\t3\t196",
        "\t242\t3\t881250949",
        "196\t24\x002\t3\t881250949",
        "196\t242\t6\t881250949",
        "196\t242\t0\t881250949",
        "196\t242\t-3\t881250949",
        "196\t242\tnan\t881250949",
        "196\t242\tinf\t881250949",
        "196\t242\t3\t",
        "196\t242\t3\tyesterday",
        "196\t242\t3\t-62135596800",
        "196\t242\t3\t253370764800",
        "196\t242\t3\t881250949000",
        "196\t242\t3\t881250",
        '"196\t242\t3\t881250949',
        "196\t242\t3\t881250949186\t302\t3\t891717742",
    ],
    "u.item": [
        "",
        f"|Toy Story (1995)|01-Jan-1995||url{FLAGS}",
        f"x1|Toy Story (1995)|01-Jan-1995||url{FLAGS}",
        f"1| |01-Jan-1995||url{FLAGS}",
        f"1|Toy\x07Story|01-Jan-1995||url{FLAGS}",
        f"1|Toy Story (1995)|32-Jan-1995||url{FLAGS}",
        f"1|Toy Story (1995)|01-Jan-0001||url{FLAGS}",
        f"1|Toy Story (1995)|01-Jan-9999||url{FLAGS}",
        f"1|Toy Story (1995)|1995-01-01||url{FLAGS}",
        f"1|Toy Story (1995)|01-Jan-1995|url{FLAGS}",
        f"1|Toy Story (1995)|01-Jan-1995||url{FLAGS}|0",
        f"1|Toy Story (1995)|01-Jan-1995||url{FLAGS[:-1]}2",
    ],
    "u.user": ["", "1|24|M|technician", "1|24|X|technician|85711", "1|many|M|technician|85711", "1|-4|M|other|85711"],
    "ratings.csv": [
        "",
        "1,1,4.0",
        "1,1,4.0,964982703,x",
        "1;1;4.0;964982703",
        '"1,1,4.0,964982703',
        "1 ,1,4.0,964982703",
        "1,,4.0,964982703",
        "1,1.5,4.0,964982703",
        "1,1,5.5,964982703",
        "1,1,0.0,964982703",
        "1,1,3.7,964982703",
        "1,1,NaN,964982703",
        "1,1,-4.0,964982703",
        "1,1,4.0,9649827030",
        "1,1,4.0,-964982703",
        "1,1,4.0,964982703000",
        "1,1,4.0,",
        "userId,movieId,rating,timestamp",
    ],
    "movies.csv": [
        "",
        "1,Toy Story (1995)",
        "1,Toy Story, The (1995),Comedy",
        '1,"Toy Story (1995),Comedy',
        "one,Toy Story (1995),Comedy",
        "Toy Story (1995),1,Comedy",
        "1,Comedy,Toy Story (1995)",
        "1,,Comedy",
        "1,Toy Story (1995),",
        "1,Toy Story (9999),Comedy",
        "1,Toy\x00Story (1995),Comedy",
    ],
    "tags.csv": [
        "",
        "2,60756,funny",
        '2,60756,"funny,1445714994',
        "2,60756,funny, very,1445714994",
        "funny,60756,2,1445714994",
        "2,x,funny,1445714994",
        "2,60756,  ,1445714994",
        "2,60756,funny,yesterday",
        "2,60756,funny,253370764800",
    ],
    "kg.txt": ["", "749\tfilm.film.writer", "749\tfilm.film.writer\t-1", "x\tfilm.film.writer\t1", "749\t\t2347"],
    "item_index2entity_id.txt": ["", "1", "1\t0\t0", "1\tzero", " 1\t0"],
}


@pytest.fixture(scope="module")
def small(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TinySource:
    """The 100K files, staged after their last day."""
    source = shipped_source(
        tmp_path_factory.mktemp("100k"), "movielens", real_data / "ml-100k", "u.data", "u.item", "u.user"
    )
    source.stage(AFTER_100K)
    return source


@pytest.fixture(scope="module")
def latest(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TinySource:
    """The files of latest-small and the knowledge graph, staged after their last day."""
    files, names = real_data / "ml-latest-small", ("ratings.csv", "movies.csv", "tags.csv")
    source = shipped_source(tmp_path_factory.mktemp("latest"), "movielens", files, *names)
    add_files(source.input / "kg", real_data / "movielens-kg", *GRAPH_FILES)
    source.stage(AFTER_LATEST)
    return source


def fates(source: TinySource) -> dict[str, dict[str, int]]:
    """By file, the rows of each fate in the only run."""
    found: dict[str, dict[str, int]] = {}
    for file, fate, count in source.rows(
        "select source_file, fate, sum(row_count)::bigint from mart.accounting group by all"
    ):
        found.setdefault(file, {})[fate] = count
    return found


def test_every_line_of_the_100k_files_is_accounted_for(small: TinySource) -> None:
    assert fates(small) == {
        "u.data": {"loaded": 100_000},
        "u.item": {"loaded": 1_680, "deferred": 2},
        "u.user": {"loaded": 943},
    }


def test_every_line_of_the_latest_files_is_accounted_for(latest: TinySource) -> None:
    assert fates(latest) == {
        "ratings.csv": {"loaded": 100_836},
        "movies.csv": {"loaded": 9_742},
        "tags.csv": {"loaded": 3_683},
        "kg.txt": {"loaded": 20_782},
        "item_index2entity_id.txt": {"loaded": 2_347},
    }


def test_lines_of_the_100k_files_as_rows(small: TinySource) -> None:
    rating = "select * exclude (loaded_at, superseded_at, excluded_because) from raw.interactions where source_row = 1"
    at = datetime(1997, 12, 4, 15, 55, 49)
    assert small.rows(rating) == [("196", "242", "rating", at, at.date(), 3.0, "u.data", 1)]
    film = "select valid_from, title, genres, decade from raw.items where item_id = "
    toys = (date(1995, 1, 1), "Toy Story (1995)", ["Animation", "Children", "Comedy"], "1990s")
    assert small.rows(f"{film} '1'") == [toys]
    assert small.rows(f"{film} '267'") == [(None, "unknown", [], None)]
    assert small.rows(f"{film} '543'") == [(date(1995, 1, 1), "Misérables, Les (1995)", ["Drama", "Musical"], "1990s")]
    assert small.rows(
        "select age, gender, occupation, region from raw.users where user_id in ('1', '74') order by 1"
    ) == [
        (24, "M", "technician", "8"),
        (39, "M", "scientist", "T"),
    ]


def test_lines_of_the_latest_files_as_rows(latest: TinySource) -> None:
    rating = "select user_id, item_id, occurred_at, value, source_row from raw.interactions where source_row = 2"
    assert latest.rows(rating) == [("1", "1", datetime(2000, 7, 30, 18, 45, 3), 4.0, 2)]
    films = "select item_id, valid_from, title, genres, decade from raw.items where item_id in ('1', '40697', '1282', '7789')"
    assert latest.rows(f"{films} order by item_id::int") == [
        (
            "1",
            date(1996, 1, 1),
            "Toy Story (1995)",
            ["Adventure", "Animation", "Children", "Comedy", "Fantasy"],
            "1990s",
        ),
        ("1282", date(1941, 1, 1), "Fantasia (1940)", ["Animation", "Children", "Fantasy", "Musical"], "1940s"),
        ("7789", date(2003, 1, 1), "11'09\"01 - September 11 (2002)", ["Drama"], "2000s"),
        ("40697", None, "Babylon 5", ["Sci-Fi"], None),
    ]
    assert latest.rows("select count(*) from raw.items where genres is null") == [(34,)]
    tags = "select subject, relation, object, since from raw.facts where source_file = 'tags.csv' and source_row = 3"
    assert latest.rows(tags) == [("60756", "tag", "tag=highly quotable", date(2015, 10, 24))]


def test_a_film_is_known_after_its_release_or_from_its_first_rating(latest: TinySource) -> None:
    released = "select item_id, valid_from, event_date from raw.items left join raw.interactions using (item_id)"
    rated_early = f"{released} where event_date < valid_from order by event_date limit 1"
    never_rated = f"{released} where event_date is null and valid_from > '1996-01-01' order by item_id limit 1"
    for query in (rated_early, never_rated):
        film, valid_from, rated_on = latest.rows(query)[0]
        first = rated_on or valid_from
        for as_of, count in ((first, 0), (first + timedelta(days=1), 1)):
            build_staging(latest.home, latest.source, as_of)
            assert latest.rows(f"select count(*) from staging.items where item_id = '{film}'") == [(count,)]


def test_the_knowledge_graph_ties_films_to_entities_and_entities_to_each_other(latest: TinySource) -> None:
    facts = "select object from raw.facts where subject = '{}' and relation = '{}' order by source_row"
    assert latest.rows(facts.format(1, "is")) == [("kg:0",)]
    assert latest.rows(facts.format("kg:749", "writer"))[0] == ("kg:2347",)
    relations = "select distinct relation from raw.facts where source_file = 'kg.txt' order by 1"
    names = ["country", "director", "genre", "language", "rating", "star", "writer"]
    assert [name for (name,) in latest.rows(relations)] == names


def test_without_its_folder_there_is_no_knowledge_graph(real_data: Path, tmp_path: Path) -> None:
    source = shipped_source(tmp_path, "movielens", real_data / "ml-latest-small", "ratings.csv", "movies.csv")
    assert source.land(AFTER_LATEST) == {"interactions": 100_836, "items": 9_742}


def test_a_folder_holds_the_files_of_one_layout(real_data: Path, tmp_path: Path) -> None:
    source = shipped_source(tmp_path, "movielens", real_data / "ml-100k", "u.data", "u.item")
    with pytest.raises(
        ContractError, match=r"one layout .*, found 0: u\.data, u\.item, u\.user or ratings\.csv, movies\.csv"
    ):
        source.land(AFTER_100K)
    add_files(source.input, real_data / "ml-100k", "u.user", "u1.base")
    assert source.land(AFTER_100K)["interactions"] == 100_000
    add_files(source.input, real_data / "ml-latest-small", "ratings.csv", "movies.csv")
    with pytest.raises(ContractError, match="found 2"):
        source.land(AFTER_100K)


@pytest.mark.parametrize(
    ("files", "names", "as_of"),
    [
        ("ml-100k", ("u.data", "u.item", "u.user"), AFTER_100K),
        ("ml-latest-small", ("ratings.csv", "movies.csv", "tags.csv"), AFTER_LATEST),
    ],
)
def test_broken_lines_and_no_others_are_quarantined(
    files: str, names: tuple[str, ...], as_of: date, real_data: Path, tmp_path: Path
) -> None:
    source = shipped_source(tmp_path, "movielens", real_data / files, *names)
    paths = {name: source.input / name for name in names}
    if "ratings.csv" in names:
        add_files(source.input / "kg", real_data / "movielens-kg", *GRAPH_FILES)
        paths |= {name: source.input / "kg" / name for name in GRAPH_FILES}
    whole = {name: len(path.read_bytes().splitlines()) - name.endswith(".csv") for name, path in paths.items()}
    for name, path in paths.items():
        line_end = "\r" if name in GRAPH_FILES else ""
        append(path, [line + line_end for line in BROKEN[name]])
    source.ingest(as_of)
    quarantined = "select raw_text from quarantine.rows where source_file = '{}' order by source_row"
    for name, counts in fates(source).items():
        assert [text for (text,) in source.rows(quarantined.format(name))] == BROKEN[name]
        assert counts.pop("quarantined") == len(BROKEN[name]) and sum(counts.values()) == whole[name]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("ratings.csv", "movieId,userId,rating,timestamp\n1,1,4.0,964982703\n", "movieId,userId,rating,timestamp"),
        ("ratings.csv", "1,1,4.0,964982703\n", "its first line must be 'userId,movieId,rating,timestamp'"),
        ("movies.csv", "movieId;title;genres\n1;Toy Story (1995);Comedy\n", "movieId;title;genres"),
    ],
)
def test_a_wrong_header_is_refused(name: str, text: str, said: str, real_data: Path, tmp_path: Path) -> None:
    source = shipped_source(tmp_path, "movielens", real_data / "ml-latest-small", "ratings.csv", "movies.csv")
    (source.input / name).write_text(text)
    with pytest.raises(ContractError, match=said):
        source.land(AFTER_LATEST)
