"""Quality on the classical random splits: full ranking, what is in training left out, K = 20.

Run: python -m benchmarks.static [ml-100k] [gowalla] [--fresh] (needs ALMANAC_DATA; `pip install -e '.[peers]'` adds the rows
of implicit). `ml-100k`: all 100,000 ratings are positives, 80/20 at random, five seeds. `gowalla`: the split of LightGCN (He
et al. 2020, arXiv 2002.02126). Nothing is decayed. Every choice is made on a tenth of the training pairs, then fitted to all
of them: options by recall@20, the weights of a stack by the mean of recall@10 to recall@30, which is less noisy. Each part of
a stack is the mean of fits with its best options. Finished rows are kept in .almanac-bench/static.jsonl by data set, model,
seed and what there was to choose from. CPU time is user + system of all threads.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from time import process_time
from typing import Any

import torch
from torch import Tensor

from benchmarks.kept_rows import Row, add_rows, read_rows
from benchmarks.static_models import (
    BAGS,
    GRIDS,
    STACKS,
    Options,
    Remembered,
    Stack,
    choices,
    fit,
    fit_bag,
    installed,
    undated,
)
from models.graph import Graph
from models.metrics import hits, ndcg, precision, recall
from models.ranking import Ranker, top_k

K = 20
SEEDS = {"ml-100k": range(5), "gowalla": range(1)}
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1
VALIDATION_USERS = 3000
USERS_PER_STEP = 256
STACK_WEIGHTS = (0.5, 1.0, 2.0)
STACK_ROUNDS = 2
STACK_CUTOFFS = range(10, 31)
KEPT = Path(".almanac-bench/static.jsonl")
METRICS = {"recall": recall, "precision": precision, "ndcg": ndcg}


@dataclass(frozen=True)
class Pairs:
    """Distinct (user, item) pairs: int64 [N] each, and their stars, float32 [N], 0 = none given."""

    user: Tensor
    item: Tensor
    stars: Tensor

    def cut(self, share: float, seed: int) -> tuple[Pairs, Pairs]:
        """All but a random share, and that share."""
        order = torch.randperm(len(self.user), generator=torch.Generator().manual_seed(seed))
        kept, out = order[int(share * len(order)) :], order[: int(share * len(order))]
        return tuple(Pairs(*(column[rows] for column in vars(self).values())) for rows in (kept, out))  # pyright: ignore


def read(data: str, seed: int) -> tuple[Pairs, Pairs]:
    """Training and test pairs."""
    folder = Path(os.environ["ALMANAC_DATA"])
    if data == "gowalla":
        return _listed(folder / "gowalla-lightgcn" / "train.txt"), _listed(folder / "gowalla-lightgcn" / "test.txt")
    lines = (folder / "ml-100k" / "u.data").read_text().splitlines()
    user, item, stars, _ = torch.tensor([[int(cell) for cell in line.split("\t")] for line in lines]).T
    return Pairs(user - 1, item - 1, stars.float()).cut(TEST_SHARE, seed)


def _listed(path: Path) -> Pairs:
    """Lines of a user and the user's items."""
    lines = [[int(cell) for cell in line.split()] for line in path.read_text().splitlines()]
    user = torch.tensor([line[0] for line in lines for _ in line[1:]])
    return Pairs(user, torch.tensor([item for line in lines for item in line[1:]]), torch.zeros(len(user)))


def judge(ranker: Ranker, graph: Graph, truth: Pairs, users: Tensor, cutoffs: Sequence[int] = (K,)) -> dict[str, float]:
    """Means over `users` (int64 [N], ascending, each with truth) and the lengths of the list."""
    mine = torch.isin(truth.user, users)
    items, _ = top_k(ranker, graph, users, max(cutoffs), "discover", repeats=False)
    hit, count = hits(items, users, truth.user[mine], truth.item[mine], graph.item_count)
    return {name: fmean(float(metric(hit[:, :k], count).mean()) for k in cutoffs) for name, metric in METRICS.items()}


class Trial:
    """One data set and seed: finds options on the validation part, then judges them on the test part."""

    def __init__(self, data: str, seed: int, kept: list[Row]) -> None:
        train, self.test = read(data, seed)
        fitted, self.validation = train.cut(VALIDATION_SHARE, seed)
        sizes = (
            max(int(train.user.max()), int(self.test.user.max())) + 1,
            max(int(train.item.max()), int(self.test.item.max())) + 1,
        )
        self.train, self.fitted = (undated(part.user, part.item, part.stars, *sizes) for part in (train, fitted))
        users = self.validation.user.unique()
        self.validation_users = users[:: max(1, -(-len(users) // VALIDATION_USERS))]
        self.data, self.seed, self.kept = data, seed, kept

    def row(self, model: str) -> Row:
        """The model's finished row, from the file or measured now and written there."""
        key = {"data": self.data, "model": model, "seed": self.seed, "choices": self._choices(model)}
        for row in self.kept:
            if all(row[name] == value for name, value in key.items()):
                return row
        row = key | (self._stack() if model == "stack" else self._single(model))
        self.kept.append(row)
        add_rows(KEPT, [row])
        return row

    def _choices(self, model: str) -> Any:
        grid, bag = GRIDS[self.data], {"bag": BAGS[self.data]}
        parts = {part: grid[part] for part in STACKS[self.data]} | {"weights": STACK_WEIGHTS}
        return json.loads(json.dumps(bag | (parts if model == "stack" else grid[model])))

    def _single(self, model: str) -> Row:
        start = process_time()
        ranked = sorted(
            choices(GRIDS[self.data][model]),
            key=lambda options: self._validate(fit(model, self.fitted, options, self.seed)),
            reverse=True,
        )
        searched = process_time() - start
        found = {"options": ranked[: BAGS[self.data]], "search_seconds": searched}
        return found | self._test({model: ranked[:1]}, (1.0,))

    def _stack(self) -> Row:
        rows = {part: self.row(part) for part in STACKS[self.data]}
        parts = {part: row["options"] for part, row in rows.items()}
        start = process_time()
        rankers = tuple(self._remember(fit_bag(part, self.fitted, bag, self.seed)) for part, bag in parts.items())
        weights, best = [1.0] * len(rankers), -1.0
        for place, weight in product([*range(len(rankers))] * STACK_ROUNDS, STACK_WEIGHTS):
            tried = [*weights[:place], weight, *weights[place + 1 :]]
            score = self._validate(Stack("stack", rankers, tuple(tried)), STACK_CUTOFFS)
            if score > best:
                weights, best = tried, score
        searched = process_time() - start + sum(row["search_seconds"] for row in rows.values())
        options = dict(zip(rows, weights, strict=True))
        return {"options": options, "search_seconds": searched} | self._test(parts, tuple(weights))

    def _validate(self, ranker: Ranker, cutoffs: Sequence[int] = (K,)) -> float:
        return judge(ranker, self.fitted, self.validation, self.validation_users, cutoffs)["recall"]

    def _remember(self, ranker: Ranker) -> Ranker:
        """The ranker's scores of the validation users, computed once."""
        parts = self.validation_users.split(USERS_PER_STEP)
        return Remembered(ranker.name, self.validation_users, torch.cat([ranker.scores(p, "discover") for p in parts]))

    def _test(self, parts: dict[str, list[Options]], weights: tuple[float, ...]) -> Row:
        start = process_time()
        rankers = tuple(fit_bag(model, self.train, bag, self.seed) for model, bag in parts.items())
        ranker = rankers[0] if len(rankers) == 1 else Stack("stack", rankers, weights)
        scores = judge(ranker, self.train, self.test, self.test.user.unique())
        return {"seconds": process_time() - start} | scores


def table(rows: list[Row]) -> str:
    """Markdown: means over the seeds; the CPU seconds of the fit and the lists, and of the search before them."""
    lines = [
        "| data | model | recall@20 | precision@20 | NDCG@20 | ± recall | CPU s | search, CPU s |",
        "| --- " * 8 + "|",
    ]
    for data, model in dict.fromkeys((row["data"], row["model"]) for row in rows):
        mine = [row for row in rows if (row["data"], row["model"]) == (data, model)]
        means = [fmean(row[name] for row in mine) for name in METRICS]
        spread = f"{stdev(row['recall'] for row in mine):.4f}" if len(mine) > 1 else "–"
        seconds = [fmean(row[name] for row in mine) for name in ("seconds", "search_seconds")]
        cells = [data, model, *(f"{mean:.4f}" for mean in means), spread, *(f"{value:.0f}" for value in seconds)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Measures what is not yet measured, and prints the table."""
    torch.set_num_threads(1)
    chosen = [data for data in SEEDS if data in arguments] or list(SEEDS)
    kept = read_rows(KEPT, chosen if "--fresh" in arguments else ())
    rows = []
    for data in chosen:
        for seed in SEEDS[data]:
            trial = Trial(data, seed, kept)
            for model in ("stack", *filter(installed, GRIDS[data])):
                rows.append(trial.row(model))
                print(data, seed, model, {name: round(rows[-1][name], 4) for name in METRICS}, file=sys.stderr)
    print(table(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
