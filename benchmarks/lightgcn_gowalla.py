"""LightGCN on the split of its paper: recall@20, NDCG@20, and the CPU minutes they took.

Run: python -m benchmarks.lightgcn_gowalla (needs ALMANAC_DATA). The temperature is chosen by recall@20 on a tenth of the
training pairs; the choice is then fitted to all of them and judged once on the test pairs. One thread; CPU time is user +
system. Published for LightGCN (He et al. 2020, arXiv 2002.02126): .1830 and .1554, by BPR with 64 numbers and 3 layers.
"""

from __future__ import annotations

from math import inf
from time import process_time

import torch
from torch import Tensor

from benchmarks.static import Pairs, Trial, judge
from models.graph import Graph
from models.lightgcn import fit_lightgcn
from models.settings import ModelSettings

TEMPERATURES = (0.15, 0.2)
OPTIONS = {
    "dimension": 128,
    "layers": 2,
    "epochs": 40,
    "length_power": 0.5,
    "spectral": True,
    "users_per_step": 2048,
    "items_per_step": 4096,
}


def attempt(graph: Graph, truth: Pairs, users: Tensor, temperature: float) -> tuple[dict[str, float], float]:
    """The metrics of a model learned from the graph, and the CPU seconds of learning it."""
    start = process_time()
    ranker = fit_lightgcn(graph, 1, ModelSettings(), inf, temperature=temperature, **OPTIONS)(graph)
    seconds = process_time() - start
    return judge(ranker, graph, truth, users), seconds


def main() -> None:
    """Prints a line for each temperature tried, and the test's."""
    torch.set_num_threads(1)
    trial = Trial("gowalla", 0, [])
    print(
        "| pairs of | temperature | recall@20 | NDCG@20 | CPU min of learning | of all so far |\n" + "| --- " * 6 + "|"
    )

    def row(part: str, temperature: float) -> float:
        graph, truth = (trial.fitted, trial.validation) if part == "validation" else (trial.train, trial.test)
        users = trial.validation_users if part == "validation" else truth.user.unique()
        found, seconds = attempt(graph, truth, users, temperature)
        minutes = f"{seconds / 60:.1f} | {process_time() / 60:.1f}"
        print(f"| {part} | {temperature} | {found['recall']:.4f} | {found['ndcg']:.4f} | {minutes} |", flush=True)
        return found["recall"]

    row("test", max(TEMPERATURES, key=lambda temperature: row("validation", temperature)))


if __name__ == "__main__":
    main()
