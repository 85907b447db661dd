"""LightGCN on the split of its paper: recall@20, NDCG@20, and the CPU minutes they took.

Run: python -m benchmarks.lightgcn_gowalla (needs ALMANAC_DATA). The temperature is chosen by recall@20 + NDCG@20 on a tenth
of the training pairs of each user; the choice is then fitted to all of them and judged once on the test pairs. The other
options were set by hand on the same tenth. One thread; CPU time is user + system. Published for LightGCN (He et al. 2020,
arXiv 2002.02126): .1830 and .1554, by BPR with 64 numbers and 3 layers; NDCG as there, of an ideal list of min(20, true) hits.
"""

from __future__ import annotations

from math import inf
from time import process_time

import torch

from benchmarks.static import Pairs, judge, read
from benchmarks.static_models import undated
from models.graph import Graph
from models.lightgcn import fit_lightgcn
from models.propagation import offsets
from models.settings import ModelSettings

VALIDATION_SHARE = 0.1
TEMPERATURES = (0.15, 0.2)
OPTIONS = {
    "dimension": 256,
    "layers": 2,
    "epochs": 20,
    "learning_rate": 7e-3,
    "length_power": 0.5,
    "spectral": True,
    "users_per_step": 2048,
    "items_per_step": 4096,
}


def cut_each_user(pairs: Pairs, share: float, seed: int) -> tuple[Pairs, Pairs]:
    """All but a random share of every user's pairs, and that share, one pair at least: as the test pairs were cut."""
    order = torch.randperm(len(pairs.user), generator=torch.Generator().manual_seed(seed))
    order = order[torch.argsort(pairs.user[order], stable=True)]
    user = pairs.user[order]
    place = torch.arange(len(user)) - offsets(user, int(user.max()) + 1)[user]
    out = place < (torch.bincount(user) * share).round().clamp(min=1)[user]
    return tuple(Pairs(*(column[order[rows]] for column in vars(pairs).values())) for rows in (~out, out))  # pyright: ignore


def attempt(graph: Graph, truth: Pairs, temperature: float) -> tuple[dict[str, float], float]:
    """The metrics of a model learned from the graph, and the CPU seconds of learning it."""
    start = process_time()
    ranker = fit_lightgcn(graph, 1, ModelSettings(), inf, temperature=temperature, **OPTIONS)(graph)
    seconds = process_time() - start
    return judge(ranker, graph, truth, truth.user.unique()), seconds


def main() -> None:
    """Prints a line for each temperature tried, and the test's."""
    torch.set_num_threads(1)
    train, test = read("gowalla", 0)
    sizes = int(torch.cat([train.user, test.user]).max()) + 1, int(torch.cat([train.item, test.item]).max()) + 1
    fitted, validation = cut_each_user(train, VALIDATION_SHARE, 0)
    whole, part = (undated(pairs.user, pairs.item, pairs.stars, *sizes) for pairs in (train, fitted))
    print(
        "| pairs of | temperature | recall@20 | NDCG@20 | CPU min of learning | of all so far |\n" + "| --- " * 6 + "|",
        flush=True,
    )

    def row(name: str, graph: Graph, truth: Pairs, temperature: float) -> float:
        found, seconds = attempt(graph, truth, temperature)
        minutes = f"{seconds / 60:.1f} | {process_time() / 60:.1f}"
        print(f"| {name} | {temperature} | {found['recall']:.4f} | {found['ndcg']:.4f} | {minutes} |", flush=True)
        return found["recall"] + found["ndcg"]

    row("test", whole, test, max(TEMPERATURES, key=lambda one: row("validation", part, validation, one)))


if __name__ == "__main__":
    main()
