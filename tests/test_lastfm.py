"""Last.fm 2K as published: taggings, friends, names of tags, play counts, and the knowledge graph of the artists."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pytest

from tasks.errors import ContractError
from tasks.transform import build_graph, build_staging
from tests.shipped_source import add_files, append, shipped_source
from tests.tiny_source import TinySource

FILES = ("user_taggedartists.dat", "user_artists.dat", "user_friends.dat", "artists.dat", "tags.dat")
GRAPH_FILES = ("kg.txt", "item_index2entity_id.txt")
AFTER = date(2011, 6, 1)
MUSIC = "http://www.last.fm/music/Metallica"
BROKEN = {
    "user_taggedartists.dat": [
        "",
        "2\t52\t13\t1\t4",
        "2\t52\t13\t1\t4\t2009\t1",
        "2 52 13 1 4 2009",
        "2a\t52\t13\t1\t4\t2009",
        " 2\t52\t13\t1\t4\t2009",
        "2\t-52\t13\t1\t4\t2009",
        "2\t52\t13.5\t1\t4\t2009",
        "2\t\t13\t1\t4\t2009",
        "2\t52\t13\t2009\t4\t1",
        "2\t52\t13\t31\t4\t2009",
        "2\t52\t13\t1\t13\t2009",
        "2\t52\t13\t1\t4\t0001",
        "2\t52\t13\t1\t4\t9999",
        "2\t52\t13\t1\t4\tnan",
        '"2\t52\t13\t1\t4\t2009',
    ],
    "user_artists.dat": [
        "",
        "2\t51",
        "2\t51\t-1",
        "2\t51\t0",
        "2\t51\tnan",
        "2\tx51\t13883",
        "2\t51\t1.5",
        "2\t51\t1\t1",
    ],
    "user_friends.dat": ["", "2", "2\t275\t1", "2\tfriend", "-2\t275", "2;275", "2 \t275", "2\t275\x00"],
    "artists.dat": [
        "",
        f"x707\tMetallica\t{MUSIC}\t",
        f"707\t \t{MUSIC}\t",
        f"707\tMetallica\t{MUSIC}",
        "707\tMetallica\t\t",
    ],
    "tags.dat": ["", "1", "one\tmetal", "1\tmetal\tmetal", "1\t ", "1.5\tmetal"],
    "kg.txt": ["", "2086\tmusic.artist.origin", "2086\tmusic artist origin\t3846", "2086\tmusic.artist.origin\t-1"],
    "item_index2entity_id.txt": ["", "2", "2\t0\t0", "two\t0"],
}


def known(table: str) -> str:
    return f"select count(*) from staging.{table}"


@pytest.fixture(scope="module")
def lastfm(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TinySource:
    """All files, loaded after the last day and staged as of it."""
    source = shipped_source(tmp_path_factory.mktemp("lastfm"), "lastfm-2k", real_data / "lastfm-2k", *FILES)
    add_files(source.input / "kg", real_data / "lastfm-2k-kg", *GRAPH_FILES)
    source.stage(AFTER)
    return source


def test_every_line_is_accounted_for(lastfm: TinySource) -> None:
    accounting = "select table_name, source_file, fate, rule, row_count from mart.accounting order by all"
    assert lastfm.rows(accounting) == [
        ("facts", "item_index2entity_id.txt", "loaded", None, 3_846),
        ("facts", "kg.txt", "loaded", None, 15_518),
        ("facts", "tags.dat", "excluded", "the name of a tag", 11_946),
        ("facts", "user_artists.dat", "loaded", None, 92_834),
        ("facts", "user_taggedartists.dat", "loaded", None, 186_474),
        ("facts", "user_taggedartists.dat", "quarantined", "unreadable", 5),
        ("interactions", "user_taggedartists.dat", "loaded", None, 186_474),
        ("interactions", "user_taggedartists.dat", "quarantined", "event_date before 1980", 5),
        ("items", "artists.dat", "loaded", None, 17_632),
        ("links", "user_friends.dat", "loaded", None, 25_434),
    ]


def test_lines_as_rows(lastfm: TinySource) -> None:
    """The first line of each file after its header."""
    at = datetime(2009, 4, 1)
    tagging = "select * exclude (loaded_at, superseded_at, excluded_because) from raw.interactions where source_row = 2"
    assert lastfm.rows(tagging) == [("2", "52", "tagging", at, at.date(), None, "user_taggedartists.dat", 2)]
    facts = "select subject, relation, object, since from raw.facts where source_file = '{}' and source_row = {}"
    assert lastfm.rows(facts.format(FILES[0], 2)) == [("52", "tag", "tag=chillout", at.date())]
    assert lastfm.rows(facts.format(FILES[1], 2)) == [("51", "listener", "listener=2", date(2011, 5, 31))]
    assert lastfm.rows(facts.format("kg.txt", 1)) == [("kg:2086", "artist.origin", "kg:3846", None)]
    assert lastfm.rows(facts.format("item_index2entity_id.txt", 1)) == [("2", "is", "kg:0", None)]
    assert lastfm.rows("select item_id, valid_from, name from raw.items where source_row = 2") == [
        ("1", None, "MALICE MIZER")
    ]
    link = "select user_id, other_user_id, relation, since from raw.links where source_row = 2"
    assert lastfm.rows(link) == [("2", "275", "friend", None)]


def test_several_tags_of_one_day_are_one_event(lastfm: TinySource) -> None:
    distinct = "select count(distinct (user_id, item_id, event_date)) from raw.interactions"
    assert lastfm.rows(known("interactions")) == lastfm.rows(distinct)
    assert lastfm.rows("select sum(duplicate_count)::bigint from staging.interactions") == [(186_474,)]


def test_friends_are_social_edges_in_both_directions(lastfm: TinySource) -> None:
    edges = "select count(*) from graph.social_edges as a join graph.social_edges as b"
    back = "a.user_index = b.other_user_index and a.other_user_index = b.user_index"
    assert lastfm.rows(f"{edges} on {back}") == lastfm.rows("select count(*) from graph.social_edges") == [(25_434,)]


def test_play_counts_are_facts_from_the_end_of_may_2011_and_never_events(lastfm: TinySource) -> None:
    listened = "select count(*) from staging.facts where relation = 'listener'"
    for as_of, found in ((date(2011, 5, 31), False), (AFTER, True)):
        build_staging(lastfm.home, lastfm.source, as_of)
        build_graph(lastfm.home, lastfm.source, as_of)
        assert (lastfm.rows(listened)[0][0] > 80_000) == found
    assert lastfm.rows("select distinct event_type from raw.interactions") == [("tagging",)]
    assert lastfm.rows("select max(event_date) from raw.interactions") == [(date(2011, 5, 9),)]


def test_for_an_earlier_date_later_taggings_and_play_counts_are_deferred(real_data: Path, tmp_path: Path) -> None:
    source = shipped_source(tmp_path, "lastfm-2k", real_data / "lastfm-2k", *FILES)
    fates = source.ingest(date(2011, 5, 1))
    assert fates["user_artists.dat"] == {("deferred", None): 92_834}
    assert fates["user_taggedartists.dat"]["deferred", None] == 3_531
    assert "kg.txt" not in fates


def test_broken_lines_and_no_others_are_quarantined(real_data: Path, tmp_path: Path) -> None:
    source = shipped_source(tmp_path, "lastfm-2k", real_data / "lastfm-2k", *FILES)
    add_files(source.input / "kg", real_data / "lastfm-2k-kg", *GRAPH_FILES)
    for name, lines in BROKEN.items():
        append(source.input / ("kg" if name in GRAPH_FILES else "") / name, lines)
    source.ingest(AFTER)
    quarantined = "select raw_text from quarantine.rows where table_name = '{}' and source_file = '{}'"
    tables = dict.fromkeys(BROKEN, "facts") | {"artists.dat": "items", "user_friends.dat": "links"}
    for name, table in tables.items():
        found = source.rows(f"{quarantined.format(table, name)} and raw_text not like '%\t19%' order by source_row")
        assert [text for (text,) in found] == BROKEN[name]
    events = source.rows(f"{quarantined.format('interactions', FILES[0])} and rule != 'event_date before 1980'")
    assert sorted(text for (text,) in events) == sorted(BROKEN[FILES[0]])
    kept = (
        "select table_name, sum(row_count)::bigint from mart.accounting where fate in ('loaded', 'excluded') group by 1"
    )
    assert sorted(source.rows(kept)) == [
        ("facts", 310_618),
        ("interactions", 186_474),
        ("items", 17_632),
        ("links", 25_434),
    ]


def test_tags_in_latin_1_have_their_names_and_tags_without_a_name_their_number(real_data: Path, tmp_path: Path) -> None:
    source = shipped_source(tmp_path, "lastfm-2k", real_data / "lastfm-2k", *FILES)
    (source.input / "tags.dat").write_text("tagID\ttagValue\n13\tRock Français \n", encoding="latin-1")
    (source.input / FILES[0]).write_text(
        "userID\tartistID\ttagID\tday\tmonth\tyear\n2\t52\t13\t1\t4\t2009\n2\t52\t15\t1\t4\t2009\n"
    )
    source.land(AFTER)
    tags = "select object from delivery.facts where relation = 'tag' order by source_row"
    assert source.rows(tags) == [("tag=rock français",), ("tag=#15",)]


def test_a_wrong_header_is_refused(real_data: Path, tmp_path: Path) -> None:
    source = shipped_source(tmp_path, "lastfm-2k", real_data / "lastfm-2k", *FILES)
    (source.input / "user_friends.dat").write_text("friendID\tuserID\n2\t275\n")
    with pytest.raises(ContractError, match=r"user_friends\.dat: its first line must be"):
        source.land(AFTER)
