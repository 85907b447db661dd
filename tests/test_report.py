"""The report of a backtest: one file that needs no other, says what the tables say, and takes every name as data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks.errors import UsageError
from tasks.report import write_report
from tasks.warehouse import open_warehouse

ORIGINS = (date(2011, 1, 3), date(2011, 1, 10))
USERS = (10, 30)
NDCG = {  # at the two origins
    "almanac": (0.50, 0.40),
    "ease": (0.30, 0.30),
    "popularity": (0.10, 0.14),
    "published": (0.60, 0.60),
    "almanac without decay": (0.55, 0.55),
}
HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(2)> "it\'s" &amp; <b>%{x}'
BY_USER, BY_ORIGIN = (0.05, 0.15), (0.01, 0.2)


class Page(HTMLParser):
    """A report as a browser takes it apart; `code` holds scripts and styles by id or tag."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.code: dict[str, str] = {}
        self.pieces: list[str] = []
        self.feed(file.read_text())
        self.text = " ".join(" ".join(self.pieces).split())
        self.charts: dict[str, Any] = json.loads(self.code["charts"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.part = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("script", "style") and self.cdata_elem:
            self.code[self.part] = self.code.get(self.part, "") + data
        else:
            self.pieces.append(data)


def fill(
    home: Path,
    ndcg: dict[str, tuple[float, ...]] = NDCG,
    by_user: tuple[float, float] | None = BY_USER,
    by_origin: tuple[float, float] | None = BY_ORIGIN,
    strata: Iterable[str] = ("all", "cold users"),
    name: str = "test-shop",
    choice: dict[str, Any] | None = None,
) -> Path:
    """A warehouse that holds one backtest, measured by NDCG@20 and coverage; returns its home."""
    key = {"backtest_id": "b1", "horizon_days": 7, "list": "for_you"}
    origins = ORIGINS[: len(ndcg["almanac"])]
    scores = [
        key
        | {"source": name, "as_of": day, "model": model, "seed": 0, "stratum": stratum}
        | {"metric": metric, "k": 20, "value": value, "users": users if metric == "ndcg" else None}
        for model, values in ndcg.items()
        for day, value, users in zip(origins, values, USERS, strict=False)
        for stratum in strata
        for metric in ("ndcg", "coverage")
    ]
    pooled = {
        model: sum(value * users for value, users in zip(values, USERS, strict=False)) / sum(USERS[: len(values)])
        for model, values in ndcg.items()
    }
    differences = [
        key
        | {"stratum": "all", "metric": "ndcg", "k": 20, "model": "almanac", "against": other}
        | {"value": pooled["almanac"], "against_value": pooled[other], "difference": pooled["almanac"] - pooled[other]}
        | dict(zip(("by_user_low", "by_user_high"), by_user or (None, None), strict=True))
        | dict(zip(("by_origin_low", "by_origin_high"), by_origin or (None, None), strict=True))
        | {"users": sum(USERS), "origins": len(origins)}
        for other in ndcg
        if other != "almanac"
    ]
    fits = [
        {"backtest_id": "b1", "as_of": day, "horizon_days": 7, "model": model, "seed": 0, "seconds": 2.0 + place}
        | {
            "peak_mb": None,
            "choice": json.dumps({"epochs": 3 + place, "half_lives_days": [7.0, 30.0]} | (choice or {})),
        }
        for model in ndcg
        for place, day in enumerate(origins)
    ]
    run = {"backtest_id": "b1", "source": name, "source_snapshot": "s1", "code_version": "c1", "config": '{"seeds": 1}'}
    run |= {"started_at": datetime(2026, 1, 1), "finished_at": datetime(2026, 1, 2)}
    tables = {"runs": [run], "fits": fits, "differences": differences}
    home.mkdir(exist_ok=True)
    with open_warehouse(home) as warehouse:
        for table, rows in [("backtests", scores), *((f"backtest_{part}", rows) for part, rows in tables.items())]:
            frame = pl.DataFrame(rows).cast({pl.Null: pl.Float64})
            warehouse.register("frame", frame.to_arrow())
            warehouse.execute(f"create or replace table mart.{table} as select * from frame")
    return home


def report(home: Path) -> Page:
    return Page(write_report(home, "b1"))


def test_the_file_loads_nothing(tmp_path: Path) -> None:
    page = report(fill(tmp_path))
    assert not {"link", "img", "iframe", "object", "base"} & set(page.tags)
    targets = [value for name, value in page.attributes if name in ("src", "href", "action", "srcset", "data")]
    assert targets and all(target.startswith("#") for target in targets)
    assert "url(" not in page.code["style"] and "@import" not in page.code["style"]
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'")


def test_verdict_is_against_the_best_other_model_with_both_intervals(tmp_path: Path) -> None:
    text = report(fill(tmp_path)).text
    assert "almanac is better than the best other model in 1 of 1 comparison of NDCG@20." in text
    assert (  # (0.5·10 + 0.4·30) / 40 = 0.425; neither an ablation nor what the gate picked is another model
        "better than the best other model, ease: NDCG@20 0.4250 against 0.3000, +0.1250 (+41.7 %); "
        "95 % interval +0.0500 to +0.1500 by user, +0.0100 to +0.2000 by origin." in text
    )


@pytest.mark.parametrize(
    ("by_user", "by_origin", "words"),
    [
        ((0.05, 0.15), None, "better than"),
        ((0.05, 0.15), (-0.01, 0.2), "not clearly different from"),
        ((-0.15, -0.05), (-0.2, -0.01), "worse than"),
        (None, None, "not clearly different from"),
    ],
)
def test_better_and_worse_need_every_interval_to_exclude_zero(
    tmp_path: Path, by_user: tuple[float, float] | None, by_origin: tuple[float, float] | None, words: str
) -> None:
    text = report(fill(tmp_path, by_user=by_user, by_origin=by_origin)).text
    assert f"for_you, 7 days : {words} the best other model, ease" in text


def test_leaderboard_curve_forest_and_strata_show_the_tables_values(tmp_path: Path) -> None:
    page = report(fill(tmp_path))
    assert re.search(r"2 almanac 0\.4250 – –.* 3 ease 0\.3000 \+0\.1250 \+0\.0500 to \+0\.1500", page.text)
    curve, forest = page.charts["chart-1-curve"], page.charts["chart-1-forest"]
    lines = {trace["name"]: trace["y"] for trace in curve["data"]}
    assert lines == {model: list(values) for model, values in NDCG.items() if model != "almanac without decay"}
    assert forest["data"][1]["y"] == ["published", "ease", "popularity"]
    assert forest["data"][1]["x"] == [-0.175, 0.125, 0.295]
    assert page.charts["chart-1-ablations"]["data"][1]["y"] == ["without decay"]
    assert curve["measures"].keys() == {"NDCG@20"}
    assert "model all cold users published" in page.text


def test_settings_tell_what_changed_from_what_did_not(tmp_path: Path) -> None:
    text = report(fill(tmp_path, choice={"note": {"deep": True}})).text
    assert "almanac , 7 days half_lives_days 7, 30 note.deep true origin epochs 2011-01-03 3 2011-01-10 4" in text


def test_names_are_data_in_the_page_and_in_its_charts(tmp_path: Path) -> None:
    harmless = report(fill(tmp_path / "harmless"))
    names = {f"{HOSTILE} {model}" if model == "ease" else model: values for model, values in NDCG.items()}
    home = fill(tmp_path / "hostile", names, strata=("all", HOSTILE), name=HOSTILE, choice={HOSTILE: HOSTILE})
    page = report(home)
    assert page.tags.count("script") == harmless.tags.count("script") and "img" not in page.tags
    assert "onerror" not in dict(page.attributes)
    assert f"Backtest of {HOSTILE}" in page.text and f"best other model, {HOSTILE} ease" in page.text
    labels = page.charts["chart-1-forest"]["data"][1]["y"]
    assert labels[1].startswith("&lt;/script&gt;&lt;script&gt;alert(1)")  # plotly reads tags in its labels
    drawn = json.dumps(page.charts)
    assert "<script" not in drawn and "<img" not in drawn


def test_one_origin_without_ablations_strata_or_intervals_still_makes_a_report(tmp_path: Path) -> None:
    page = report(fill(tmp_path, {"almanac": (0.5,), "ease": (0.25,)}, by_origin=None, strata=("all",)))
    assert page.charts.keys() == {"chart-1-forest", "chart-1-cost"}
    assert (
        "+0.2500 (+100.0 %); 95 % interval +0.0500 to +0.1500 by user; with one origin there is none by origin."
        in page.text
    )


def test_a_single_model_has_no_verdict(tmp_path: Path) -> None:
    home = fill(tmp_path)
    with open_warehouse(home) as warehouse:
        warehouse.execute("delete from mart.backtest_differences")
        warehouse.execute("delete from mart.backtests where model != 'ease'")
        warehouse.execute("delete from mart.backtest_fits")
    page = report(home)
    assert "No two models were compared" in page.text
    assert page.charts.keys() == {"chart-1-curve"}


def test_the_same_tables_make_the_same_file(tmp_path: Path) -> None:
    home = fill(tmp_path)
    first = write_report(home, "b1").read_bytes()
    assert write_report(home, "b1", tmp_path / "elsewhere" / "report.html").read_bytes() == first


def test_an_unknown_backtest_and_a_closed_place_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no backtest b1"):
        write_report(tmp_path, "b1")
    home = fill(tmp_path)
    with pytest.raises(UsageError, match="no backtest b2"):
        write_report(home, "b2")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(home, "b1", tmp_path / "file" / "report.html")
