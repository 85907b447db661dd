"""The cache of tuned baselines: what is read again, and what is searched anew."""

from __future__ import annotations

import json
from pathlib import Path

from models.baselines import BASELINES
from models.settings import BaselineName, ModelSettings
from tasks.tuning import tuned
from tests.models.canary import HORIZON_DAYS, shop


def search(home: Path, *names: BaselineName, key: str = "snapshot 1", settings: ModelSettings | None = None):
    return tuned(home, "shop", key, shop(), HORIZON_DAYS, True, names, settings or ModelSettings())


def test_what_was_tuned_is_read_again_and_only_the_rest_is_searched(tmp_path: Path) -> None:
    first = search(tmp_path, "recent_popularity")
    assert set(first["recent_popularity"]) == {"for_you", "discover"}
    path = tmp_path / "backtests" / "tuning.json"
    (record,) = json.loads(path.read_text())
    assert record["options"] == first["recent_popularity"]
    assert 2 <= record["trials"] <= len(BASELINES["recent_popularity"].space["window"])

    record["options"]["for_you"] = {"window": 99}
    path.write_text(json.dumps([record]))
    both = search(tmp_path, "recent_popularity", "popularity")
    assert both["recent_popularity"]["for_you"] == {"window": 99}
    assert both["popularity"] == {"for_you": {}, "discover": {}}
    assert [one["baseline"] for one in json.loads(path.read_text())] == ["recent_popularity", "popularity"]
    assert search(tmp_path, "recent_popularity", key="snapshot 2") == first
    assert search(tmp_path, "recent_popularity", settings=ModelSettings(seed=1)) == first


def test_a_catalogue_too_large_for_a_baseline_is_not_tuned(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(vars(BASELINES["ease"]), "most_items", 12)
    assert search(tmp_path, "ease") == {}
