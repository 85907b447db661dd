"""Drift, health and status: what is out of the ordinary is told, what is ordinary is not, and nobody has to wait for it."""

from __future__ import annotations

import json
import logging
import math
import shutil
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from flows.cli import app
from models.evaluation import holdout
from models.metrics import METRICS, hits
from tasks import drift
from tasks.graph import load_graph, node_ids
from tasks.health import alarms, measure_health
from tasks.notify import announce, without_credentials
from tasks.runs import ensure_runs
from tasks.sources import load_source
from tasks.status import troubles, write_status
from tasks.transform import build_staging
from tasks.warehouse import exclusive, open_warehouse
from tests.conftest import Published
from tests.tiny_source import TinySource, event, tiny_source

END = date(2024, 6, 3)  # a Monday
WEEKS = 22
LISTS = "as_of date, list varchar, user_id varchar, rank integer, item_id varchar, score float, model varchar"


def named(rows: list[dict], list_name: str | None = None) -> dict[str, dict]:
    return {row["name"]: row for row in rows if row["list"] == list_name}


def told(rows: list[dict]) -> set[str]:
    return {row["name"] for row in alarms(rows)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> TinySource:
    """Twenty-two weeks of a steady shop that is closed on Sundays: 40 users, 12 items of 4 brands, two event types."""
    tiny = tiny_source(tmp_path_factory.mktemp("steady"), tables=("interactions", "items"))
    random, rows = Random(3), []
    for back in range(WEEKS * 7, 0, -1):
        day = END - timedelta(days=back)
        share = min(0.9, 0.5 * random.lognormvariate(0, 0.2))  # of users who come: some days are better than others
        for user in range(40) if day.isoweekday() < 7 else ():
            if random.random() < share:
                item, bought = random.randrange(12), random.random() < 0.3
                price = str(round(random.lognormvariate(2, 0.5), 2)) if bought else ""
                kind = "purchase" if bought else "view"
                rows.append(event(f"u{user}", f"i{item}", f"{day} 10:00:00", event_type=kind, value=price))
    tiny.deliver("interactions.csv", rows)
    blank = {"valid_from": "", "valid_to": "", "tags": "", "price": "", "made": "", "excluded": ""}
    tiny.deliver("items.csv", [{"item_id": f"i{item}", "brand": f"brand {item % 4}", **blank} for item in range(12)])
    tiny.ingest(END)
    return tiny


def staged(shop: TinySource, root: Path, as_of: date = END) -> TinySource:
    """A copy of the steady shop's home, staged for a date."""
    shutil.copytree(shop.root, root / "copy")
    copy = TinySource(root / "copy")
    build_staging(copy.home, copy.source, as_of)
    return copy


def change(shop: TinySource, query: str) -> None:
    with open_warehouse(shop.home) as warehouse:
        warehouse.execute(query)


LAST_WEEK = f"event_date >= date '{END}' - 7"
HALVED = f"delete from staging.interactions where {LAST_WEEK} and hash(user_id, occurred_at) % 2 = 0"
PLANTED = {
    "halved volume": (HALVED, {"events_week"}),
    "a new event type": (
        f"update staging.interactions set event_type = 'return' where {LAST_WEEK} and hash(user_id, event_date) % 4 = 0",
        {"event_type mix"},
    ),
    "a category gone": (
        f"update staging.interactions set item_id = 'i1' where {LAST_WEEK} and item_id in ('i0', 'i4', 'i8')",
        {"item brand mix"},
    ),
    "prices times ten": (
        f"update staging.interactions set value = 10 * value where {LAST_WEEK}",
        {"value mix"},
    ),
    "a stuck feed": (
        f"delete from staging.interactions where event_date >= date '{END}' - 4",
        {"silent_days"},
    ),
    "new users only": (
        f"update staging.interactions set user_id = 'n' || user_id where {LAST_WEEK}",
        {"new_user_share"},
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_planted_drift_is_told_by_the_measure_that_sees_it(shop: TinySource, tmp_path: Path, planted: str) -> None:
    query, expected = PLANTED[planted]
    copy = staged(shop, tmp_path)
    assert not told(measure_health(copy.home, copy.source, END, "r1"))
    change(copy, query)
    rows = measure_health(copy.home, copy.source, END, "r2")
    assert expected <= told(rows) <= expected | {"events_week", "users_week", "events_day"}
    assert all(row["message"] and "usually" in row["message"] for row in alarms(rows))


def test_twenty_ordinary_dates_in_a_row_raise_at_most_one_alarm(shop: TinySource, tmp_path: Path) -> None:
    copy, count = staged(shop, tmp_path), 0
    for back in range(20):
        build_staging(copy.home, copy.source, END - timedelta(days=back))
        count += len(told(measure_health(copy.home, copy.source, END - timedelta(days=back), "r")))
    assert count <= 1


def test_a_closed_day_is_an_alarm_unless_the_source_says_so(shop: TinySource, tmp_path: Path) -> None:
    saturday = END - timedelta(days=2)
    copy = staged(shop, tmp_path, saturday + timedelta(days=1))
    change(copy, f"delete from staging.interactions where event_date = date '{saturday}'")
    rows = measure_health(copy.home, copy.source, saturday + timedelta(days=1), "r")
    assert told(rows) == {"events_day"} and named(rows)["events_day"]["value"] == 0
    settings = copy.root / "source" / "source.toml"
    settings.write_text(settings.read_text() + f"\n[health]\nclosed_dates = [{saturday}]\n")
    assert not told(measure_health(copy.home, copy.source, saturday + timedelta(days=1), "r"))
    settings.write_text(settings.read_text().replace(f"closed_dates = [{saturday}]", 'quiet = ["events_day"]'))
    assert not told(measure_health(copy.home, copy.source, saturday + timedelta(days=1), "r"))


def test_a_date_measured_later_has_the_rows_it_had_and_twice_is_once(shop: TinySource, tmp_path: Path) -> None:
    as_of = END - timedelta(days=9)
    copy, query = staged(shop, tmp_path, as_of), "select * exclude (run_id) from mart.drift order by all"
    measure_health(copy.home, copy.source, as_of, "r1")
    before = copy.rows(query)
    build_staging(copy.home, copy.source, END)  # now with nine days more
    measure_health(copy.home, copy.source, as_of, "r2")
    assert copy.rows(query) == before and len(before) > 10


def test_a_young_source_is_not_judged(shop: TinySource, tmp_path: Path) -> None:
    young = END - timedelta(days=7 * (WEEKS - 3))
    copy = staged(shop, tmp_path, young)
    rows = measure_health(copy.home, copy.source, young, "r")
    assert {row["severity"] for row in rows} == {None} and named(rows)["events_week"]["value"] > 0


def test_bands_and_distances_are_those_computed_by_hand() -> None:
    assert drift.psi([3, 1], [1, 3]) == pytest.approx(0.8 * math.log(3.5 / 1.5))
    assert drift.psi([10, 10], [5, 5]) == 0
    steady = drift.count_band([100.0] * 8, units=10_000)
    assert steady and steady.reference == pytest.approx(100) and steady.low == pytest.approx(101 * 0.6 - 1)
    few = drift.count_band([4.0] * 8, units=4)
    assert few and few.low == 0, "of four users, none is no surprise"
    assert drift.count_band([1.0, 2.0, 3.0], units=9) is None
    rare = drift.share_band([0.0] * 8, units=20)
    assert rare and rare.low == 0 and rare.high > 0.1, "one of twenty is no surprise"
    assert drift.share_band([0.5] * 8, units=100_000) == drift.Band(0.5, pytest.approx(1 / 3), pytest.approx(2 / 3))  # pyright: ignore


def test_the_weekly_retraining_of_a_daily_job_is_no_alarm_and_twice_its_change_is() -> None:
    kept = [0.97, 0.96, 0.97, 0.7, 0.97, 0.96, 0.98, 0.97]
    band = drift.listing_band(kept)
    assert band and band.low < 0.66 and band.low > 0.4 and band.high == 1
    shifts = drift.listing_distance_band([0.01, 0.02, 0.3, 0.01], chance=0.05)
    assert shifts and shifts.high == pytest.approx(0.45)


def test_psi_of_samples_of_one_distribution_stays_below_what_chance_makes() -> None:
    draw = np.random.default_rng(1)
    shares = [0.5, 0.3, 0.1, 0.05, 0.05]
    found = [
        drift.psi(draw.multinomial(150, shares).tolist(), draw.multinomial(900, shares).tolist()) for _ in range(400)
    ]
    limit = drift.psi_by_chance(5, 150, 900)
    assert sum(value > limit for value in found) <= 4
    assert np.mean(found) == pytest.approx(4 * (1 / 150 + 1 / 900), rel=0.15), "(B − 1)(1/n + 1/m)"


def publish_by_hand(tiny: TinySource, as_of: date, lists: dict[tuple[str, str], list[str]], model: str = "m") -> None:
    """A publication whose lists are stated: (list, user) → items."""
    rows = [
        (as_of, name, user, rank, item, 1 / rank, model, "taste", f"run {as_of}")
        for (name, user), items in lists.items()
        for rank, item in enumerate(items, 1)
    ]
    with open_warehouse(tiny.home) as warehouse:
        warehouse.execute(f"create table if not exists mart.recommendations ({LISTS}, reason varchar, run_id varchar)")
        ensure_runs(warehouse)
        if not warehouse.execute("select count(*) from mart.publications where as_of = ?", [as_of]).fetchall()[0][0]:
            run = "select ? as run_id, ? as as_of, 'published' as status, ?::timestamp as started_at"
            warehouse.execute(f"insert into mart.runs by name {run}", [rows[0][-1], as_of, as_of])
        for row in rows:
            warehouse.execute("insert into mart.recommendations values (?, ?, ?, ?, ?, ?, ?, ?, ?)", list(row))


def grades(tiny: TinySource, list_name: str) -> dict[str, tuple]:
    query = "select metric, value, users from mart.realised where list = $list"
    with open_warehouse(tiny.home) as warehouse:
        return {metric: row for metric, *row in warehouse.execute(query, {"list": list_name}).fetchall()}


@pytest.mark.parametrize("repeats", [True, False])
def test_realised_quality_is_the_fraction_computed_by_hand(tmp_path: Path, repeats: bool) -> None:
    """u1 takes a (again) and b; u2 takes c, which is on no list of theirs; u3 is new and d too: neither counts."""
    tiny = tiny_source(tmp_path, settings=f"repeats = {str(repeats).lower()}")
    before, within = "2024-03-01 10:00:00", "2024-03-12 10:00:00"
    old = [event("u1", "a", before), event("u2", "b", before), event("u2", "c", before, value="2")]
    seen = [event("u1", item, within) for item in ("a", "b", "d")] + [
        event("u2", "c", within),
        event("u3", "a", within),
    ]
    late = [event("u2", "a", "2024-03-16 10:00:00")]
    tiny.deliver("interactions.csv", old + seen + [event("u1", "c", "2024-03-17 00:00:00")])
    as_of = date(2024, 3, 10)
    for user_list in ("for_you", "discover"):
        first, second = ("u1", ["x", "a", "b"]), ("u2", ["x", "y", "b"])
        publish_by_hand(tiny, as_of, {(user_list, user): items for user, items in (first, second, ("u3", ["a"]))})
    tiny.stage(date(2024, 3, 16))
    measure_health(tiny.home, tiny.source, date(2024, 3, 16), "r")
    assert not grades(tiny, "for_you"), "a horizon that still runs is not measured"
    tiny.stage(date(2024, 3, 17))
    measure_health(tiny.home, tiny.source, date(2024, 3, 17), "r")
    second, third, ideal = 1 / math.log2(3), 1 / 2, 1 + 1 / math.log2(3)
    new_only = {"ndcg": third / 1, "recall": 1.0, "precision": 1 / 3, "hit_rate": 1.0}  # b of u1, and nothing else
    both = {"ndcg": (second + third) / ideal / 2, "recall": 0.5, "precision": 1 / 3, "hit_rate": 0.5}
    for name, expected in (("for_you", both if repeats else new_only), ("discover", new_only)):
        users = 2 if expected is both else 1
        for metric, value in expected.items():
            assert grades(tiny, name)[metric] == [pytest.approx(value, abs=1e-9), users]
    tiny.deliver("interactions_late.csv", late)
    tiny.stage(date(2024, 3, 18))
    measure_health(tiny.home, tiny.source, date(2024, 3, 18), "r")
    assert grades(tiny, "discover")["hit_rate"] == [pytest.approx(1 / 2), 2], "what arrives late counts at the next run"


def test_realised_quality_of_a_real_run_is_what_the_holdouts_would_measure(
    published: Published, tmp_path: Path
) -> None:
    shutil.copytree(published.home, tmp_path / "home", symlinks=True)
    home, source, as_of = tmp_path / "home", load_source("shop"), published.as_of - timedelta(days=7)
    measure_health(home, source, published.as_of, "r")
    with open_warehouse(home) as warehouse:
        graph = load_graph(warehouse, published.as_of, tuple(source.event_strength))
        users, items, _ = node_ids(warehouse)
        query = "select list, user_id, rank, item_id from mart.recommendations where as_of = $as_of"
        rows = warehouse.execute(query, {"as_of": as_of}).fetchall()
        query = "select list, metric, value, users from mart.realised where as_of = $as_of"
        found = {(name, metric): row for name, metric, *row in warehouse.execute(query, {"as_of": as_of}).fetchall()}
    truth = holdout(graph, source.horizon_days, 7, most_users=10**9)
    user_at, item_at = ({key: place for place, key in enumerate(keys)} for keys in (users, items))
    for name in ("for_you", "discover"):
        served = {user: row for row, user in enumerate(truth.users[name].tolist())}
        listed = torch.full((len(served), 20), -1)
        for list_name, user, rank, item in rows:
            if list_name == name and user_at[user] in served:
                listed[served[user_at[user]], rank - 1] = item_at[item]
        hit, count = hits(listed, truth.users[name], *truth.truth[name], graph.item_count)
        assert len(served) > 5
        for metric in ("ndcg", "recall", "precision", "hit_rate"):
            expected = float(METRICS[metric](hit, count).double().mean())
            assert found[name, metric] == [pytest.approx(expected, abs=1e-6), len(served)]


def test_lists_that_change_more_than_they_used_to_are_told_unless_another_model_made_them(
    shop: TinySource, tmp_path: Path
) -> None:
    copy = staged(shop, tmp_path)
    users = [f"u{number}" for number in range(40)]

    def lists(first: int, spread: int = 1) -> dict[tuple[str, str], list[str]]:
        """Four items a user; next day's lists share three of them."""
        return {
            ("for_you", user): [f"i{(first + at + spread * place) % 12}" for at in range(4)]
            for place, user in enumerate(users)
        }

    days = [END - timedelta(days=back) for back in range(8, -1, -1)]
    for place, day in enumerate(days[:-1]):
        publish_by_hand(copy, day, lists(place))
        rows = measure_health(copy.home, copy.source, day, f"run {day}")
        assert not told(rows)
        kept = named(rows, "for_you")["kept_share"]["value"] if place else 0.75
        assert kept == pytest.approx(0.75)
    publish_by_hand(copy, END, lists(len(days) + 4))
    assert {"kept_share", "rank_overlap"} <= told(measure_health(copy.home, copy.source, END, f"run {END}"))
    change(copy, f"update mart.recommendations set model = 'other' where as_of = date '{END}'")
    assert "kept_share" not in told(measure_health(copy.home, copy.source, END, f"run {END}"))
    change(copy, f"update mart.recommendations set item_id = 'i' || rank where as_of = date '{END}'")
    assert "coverage" in told(measure_health(copy.home, copy.source, END, f"run {END}"))


def test_rank_overlap_of_equal_lists_is_one_and_of_strangers_none(shop: TinySource, tmp_path: Path) -> None:
    copy = staged(shop, tmp_path)
    publish_by_hand(copy, END - timedelta(days=1), {("for_you", "u1"): ["i1", "i2"], ("discover", "u1"): ["i1", "i2"]})
    publish_by_hand(copy, END, {("for_you", "u1"): ["i1", "i2"], ("discover", "u1"): ["i2", "i3"]})
    rows = measure_health(copy.home, copy.source, END, f"run {END}")
    assert named(rows, "for_you")["rank_overlap"]["value"] == pytest.approx(1)
    # at depth 1 nothing is shared, at depth 2 one of two: (1/2)·0.9² + (0.1/0.9)·(0.9²/2)·1
    assert named(rows, "discover")["rank_overlap"]["value"] == pytest.approx(0.405 + 0.045)
    assert named(rows, "discover")["kept_share"]["value"] == pytest.approx(0.5)


@contextmanager
def listening(answer: Callable[[str], int]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """An HTTP server on this machine: its address, and what was posted to it as (path, body)."""
    posted: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append((self.path, self.rfile.read(int(self.headers.get("content-length", 0))).decode()))
            self.send_response(answer(self.path))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", posted
    server.shutdown()


def test_alarms_reach_a_webhook_and_prefect_and_a_broken_one_is_only_logged(
    prefect: None, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.blocks.webhook import Webhook
    from prefect.client.orchestration import get_client

    alarm = {"severity": "warning", "name": "events_week", "list": None, "message": "events of the last 7 days: 3"}
    names = ("webhook/good", "custom-webhook/good", "webhook/broken", "webhook/nowhere")
    logging.getLogger("almanac").propagate = True
    with listening(lambda path: 500 if "broken" in path else 200) as (url, posted):
        Webhook(url=f"{url}/good-s3cret").save("good", overwrite=True)  # pyright: ignore
        Webhook(url=f"{url}/broken-s3cret").save("broken", overwrite=True)  # pyright: ignore
        text = {"text": "{{subject}}: {{body}}"}
        CustomWebhookNotificationBlock(name="x", url=f"{url}/custom", json_data=text).save("good", overwrite=True)  # pyright: ignore
        with caplog.at_level(logging.WARNING, "almanac"):
            announce("run.published", "shop", END, "r0", notify=names)
            assert not posted, "a good day is an event, no message"
            announce("health.warning", "shop", END, "r1", "see postgresql://u:hidden@db/x", [alarm], notify=names)
    bodies = dict(posted)
    assert set(bodies) == {"/good-s3cret", "/custom", "/broken-s3cret"}
    sent = json.loads(bodies["/good-s3cret"])
    assert sent["alarms"] == [alarm] and sent["as_of"] == str(END) and "warning: events" in sent["body"]
    assert "almanac shop" in json.loads(bodies["/custom"])["text"]
    assert "hidden" not in str(bodies) and "s3cret" not in caplog.text
    assert "webhook/broken was not sent (HTTPStatusError" in caplog.text and "webhook/nowhere" in caplog.text
    with get_client(sync_client=True) as client:
        wanted, names = {"filter": {"event": {"prefix": ["almanac."]}}}, set()
        for _ in range(100):
            events = client._client.post("/events/filter", json=wanted).json()["events"]
            names = {one["event"] for one in events if one["payload"]["run_id"] in ("r0", "r1")}
            if names == {"almanac.run.published", "almanac.health.warning"}:
                break
            time.sleep(0.1)
        assert names == {"almanac.run.published", "almanac.health.warning"}


def test_an_e_mail_goes_out_through_the_credentials_of_a_mail_server(prefect: None) -> None:
    mail = pytest.importorskip("prefect_email")
    heard: list[str] = []

    class Sink(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 sink\r\n")
            is_text = False
            while line := self.rfile.readline().decode():
                heard.append(line.strip())
                if is_text and line != ".\r\n":
                    continue
                is_text = line.upper().startswith("DATA")
                self.wfile.write(b"354 go on\r\n" if is_text else b"250 ok\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        mail.EmailServerCredentials(smtp_server="127.0.0.1", smtp_port=port, smtp_type="INSECURE").save(
            "ops", overwrite=True
        )
        notify = ("email-server-credentials/ops?to=ops@example.org",)
        announce("run.failed", "shop", END, "r2", "RunError: the disk is full", notify=notify)
        server.shutdown()
    assert "Subject: almanac shop 2024-06-03: failed" in heard and "RunError: the disk is full" in heard


def test_messages_lose_what_looks_like_a_password() -> None:
    told = without_credentials("could not reach postgresql://bi:pa55@db:5432/x?password=pa55 token: abc\nnext")
    assert told == "could not reach postgresql://***@db:5432/x?password=*** token: *** next"


def test_status_tells_all_on_one_screen_and_as_json_also_while_a_run_writes(
    published: Published, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(published.home, home, symlinks=True)
    measure_health(home, load_source("shop"), published.as_of, _newest_run(home))
    with open_warehouse(home) as warehouse:
        warehouse.execute("alter table mart.runs add column if not exists stale_since timestamp")
        warehouse.execute(
            "update mart.runs set stale_since = started_at where as_of = $as_of", {"as_of": published.as_of}
        )
    write_status(home, datetime(2024, 1, 1))
    screen = CliRunner().invoke(app, ["status", "--home", str(home)])
    assert screen.exit_code == 0, screen.output
    for part in (
        f"lists for {published.as_of}",
        "no baseline",
        "Last runs",
        "promised",
        "backfill --source shop",
        "Disk",
    ):
        assert part in screen.output, screen.output
    told = json.loads(CliRunner().invoke(app, ["status", "--home", str(home), "--json"]).output)
    assert told["served"]["as_of"] == str(published.as_of) and told["served"]["rows"] == 6000
    assert told["stale"] == [str(published.as_of)] and not told["is_writing"]
    assert {row["list"] for row in told["models"]} == {"for_you", "discover"}
    assert [row["as_of"] for row in told["promises"]] == 2 * [str(published.as_of - timedelta(days=7))]
    with exclusive(home), open_warehouse(home):
        during = CliRunner().invoke(app, ["status", "--home", str(home)])
        assert during.exit_code == 0 and "writing now" in during.output and "lists for" in during.output
    assert "writing now" not in CliRunner().invoke(app, ["status", "--home", str(home)]).output


def test_status_check_fails_where_somebody_should_look(published: Published, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(published.home, home, symlinks=True)
    found = CliRunner().invoke(app, ["status", "--home", str(home), "--check"])
    assert found.exit_code == 1 and "late" in found.output
    run = {"as_of": "2022-02-25", "status": "published"}
    good = {"runs": [run], "alarms": [], "published": {"as_of": "2022-02-25"}}
    day = date(2022, 2, 25)
    assert troubles(good, day, day + timedelta(days=1), False) == []
    assert "2 days ago" in troubles(good, day, day + timedelta(days=2), False)[0]
    assert "refused" in troubles(good | {"runs": [run | {"status": "refused"}]}, day, day, False)[0]
    assert "killed" in troubles(good | {"runs": [run | {"status": "running"}]}, day, day, False)[0]
    assert not troubles(good | {"runs": [run | {"status": "running"}]}, day, day, True)
    assert "1 alarm" in troubles(good | {"alarms": [{}]}, day, day, False)[0]
    assert "nothing" in troubles(good, None, day, False)[0]


def _newest_run(home: Path) -> str:
    with open_warehouse(home) as warehouse:
        return warehouse.execute("select arg_max(run_id, as_of) from mart.runs").fetchall()[0][0]


def test_a_run_that_is_killed_is_told_by_status(published: Published, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(published.home, home, symlinks=True)
    with open_warehouse(home) as warehouse:
        warehouse.execute("update mart.runs set status = 'running' where as_of = $as_of", {"as_of": published.as_of})
    write_status(home, datetime(2024, 1, 1))
    assert "was killed" in CliRunner().invoke(app, ["status", "--home", str(home)]).output
