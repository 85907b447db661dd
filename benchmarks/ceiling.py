"""What an oracle would make of the models' lists: the best order of all that any of them ranks among its first hundred.

Run: python -m benchmarks.ceiling [ORIGIN ...] (default 2011-08-08; needs ALMANAC_DATA) after `benchmarks.backtests retail`,
whose graphs and tuned options it reads. NDCG@20 of Online Retail II, the next 7 days, mean over users: of each model; of the
oracle, which puts what followed first; and the share of what followed that is among the hundreds at all.
"""

from __future__ import annotations

import json
import sys
from datetime import date

import torch
from torch import Tensor

from benchmarks.backtests import HOMES
from models.contenders import fitted
from models.metrics import hits, ndcg
from models.network import served_lists
from models.origin import Origin, strata
from models.ranking import top_k
from models.settings import MODEL, ModelSettings
from tasks.backtest import read_origin

MODELS = (MODEL, "repeat_trend", "ease", "item_knn", "personal_repeat")
HORIZON_DAYS, DEPTH, K = 7, 100, 20
HOME = HOMES / "retail" / "backtests"


def main(origins: list[str]) -> None:
    """Prints a row per origin and list."""
    torch.set_num_threads(1)
    print(
        f"| origin | list | {' | '.join(MODELS)} | oracle | found |\n| --- | --- {'| --- ' * len(MODELS)}| --- | --- |"
    )
    tuned = {row["baseline"]: row["options"] for row in json.loads((HOME / "tuning.json").read_text())}
    for day in origins:
        file = max((HOME / "origins").glob(f"{date.fromisoformat(day)}-*.pt"), key=lambda one: one.stat().st_mtime)
        origin, _ = read_origin(file, HORIZON_DAYS)
        graph = origin.graph
        rankers = {name: fitted(name, graph, HORIZON_DAYS, True, ModelSettings(), K, tuned)[0] for name in MODELS}
        for list_name in served_lists(True):
            truth = next(strata(origin, list_name))
            users = torch.unique(truth.user)
            lists = {
                name: top_k(one[list_name], graph, users, DEPTH, list_name, True)[0] for name, one in rankers.items()
            }
            values = [_ndcg(items[:, :K], users, truth.user, truth.item, origin) for items in lists.values()]
            best, found = _oracle(torch.cat(list(lists.values()), dim=1), users, truth.user, truth.item, origin)
            cells = [*(f"{value:.4f}" for value in (*values, best)), f"{found:.0%}"]
            print(f"| {day} | {list_name} | {' | '.join(cells)} |", flush=True)


def _ndcg(items: Tensor, users: Tensor, user: Tensor, item: Tensor, origin: Origin) -> float:
    return float(ndcg(*hits(items, users, user, item, origin.graph.item_count)).mean())


def _oracle(items: Tensor, users: Tensor, user: Tensor, item: Tensor, origin: Origin) -> tuple[float, float]:
    """NDCG of the hits put first, and the share of the true items that are hits. items: int64 [U, N], repeated ones once."""
    items = items.sort(dim=1).values
    items[:, 1:] = items[:, 1:].masked_fill(items[:, 1:] == items[:, :-1], -1)
    hit, count = hits(items, users, user, item, origin.graph.item_count)
    return float(ndcg(hit.sort(dim=1, descending=True).values[:, :K], count).mean()), float(hit.sum() / count.sum())


if __name__ == "__main__":
    main(sys.argv[1:] or ["2011-08-08"])
