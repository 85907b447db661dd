"""What a training step of LightGCN costs: Almanac's, PyG's and RecBole's, on the same Gowalla batches, side by side.

Run: python -m benchmarks.lightgcn_step [steps] (needs ALMANAC_DATA). 3 layers, 64 numbers, batches of 2048 pairs with one
other item each, BPR with λ = 1e-4, Adam, one thread. All start from the same vectors: their first losses must agree. CPU
time is user + system, of everything from the batch to the changed vectors; drawing the batch is not in it.

PyG's step is that of its example, and once more along a matrix; RecBole's is its own model and losses. RecBole 1.2.1 comes
with pins of its own, so into an environment of its own, beside Almanac's packages: `pip install --no-deps recbole
colorlog==4.7.2 tensorboard protobuf absl-py scikit-learn joblib threadpoolctl thop tabulate texttable psutil pyyaml`.
Without it, its row is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from math import inf
from statistics import mean, median
from time import process_time
from types import SimpleNamespace

import numpy as np
import torch
from scipy.sparse import coo_matrix, dok_matrix
from torch import Tensor, nn

from benchmarks.static import Pairs, read
from benchmarks.static_models import undated
from models.lightgcn import hops, smooth
from models.networks.losses import bpr, ridge

BATCH = 2048
LAYERS = 3
DIMENSION = 64
RIDGE = 1e-4
LEARNING_RATE = 1e-3
STEPS = 20
WARM_UP = 2

Batch = tuple[Tensor, Tensor, Tensor]  # users, their items, other items: int64 [B] each
Step = Callable[[Batch], float]  # changes the vectors, returns the BPR loss they had


def of_almanac(pairs: Pairs, users: Tensor, items: Tensor) -> Step:
    """`smooth` along the hops of `models.lightgcn`."""
    users, items = nn.Parameter(users.clone()), nn.Parameter(items.clone())
    along = hops(undated(pairs.user, pairs.item, pairs.stars, len(users), len(items)), inf)
    optimizer = torch.optim.Adam([users, items], lr=LEARNING_RATE, fused=True)

    def step(batch: Batch) -> float:
        user, item, other = batch
        user_vectors, item_vectors = smooth(users, items, *along, LAYERS)
        asked = user_vectors[user]
        positive, negative = ((asked * item_vectors[index]).sum(1) for index in (item, other))
        loss = bpr(positive, negative[:, None], torch.ones_like(positive))
        optimizer.zero_grad()
        (loss + RIDGE / 2 * ridge(users[user], items[item], items[other])).backward()
        optimizer.step()
        return float(loss.detach())

    return step


def of_pyg(pairs: Pairs, users: Tensor, items: Tensor, sparse: bool = False) -> Step:
    """LightGCN of PyG over the edges of both directions; sparse: as a CSR matrix, normalised once."""
    from torch_geometric.nn import LightGCN
    from torch_geometric.nn.conv.gcn_conv import gcn_norm
    from torch_geometric.utils import to_torch_csr_tensor

    model = LightGCN(len(users) + len(items), DIMENSION, LAYERS, normalize=not sparse)
    model.embedding.weight.data = torch.cat([users, items])
    edge = torch.stack([pairs.user, pairs.item + len(users)])
    edge = torch.cat([edge, edge.flip(0)], 1)
    if sparse:
        shares = gcn_norm(edge, add_self_loops=False)
        edge = to_torch_csr_tensor(*shares, size=model.num_nodes)  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

    def step(batch: Batch) -> float:
        user, item, other = batch
        asked = torch.stack([user.repeat(2), torch.cat([item, other]) + len(users)])
        optimizer.zero_grad()
        positive, negative = model(edge, asked).chunk(2)
        model.recommendation_loss(positive, negative, asked.unique(), lambda_reg=RIDGE).backward()
        optimizer.step()
        return float(model.recommendation_loss(positive.detach(), negative.detach(), lambda_reg=0))

    return step


def of_recbole(pairs: Pairs, users: Tensor, items: Tensor) -> Step:
    """LightGCN of RecBole, told its options and pairs by hand: its readers of both need numpy 1."""
    from recbole.data.interaction import Interaction  # pyright: ignore[reportMissingImports]
    from recbole.model.general_recommender.lightgcn import LightGCN  # pyright: ignore[reportMissingImports]

    if not hasattr(dok_matrix, "_update"):  # RecBole calls what scipy no longer has
        dok_matrix._update = lambda self, entries: self._dict.update(entries)  # pyright: ignore[reportAttributeAccessIssue]
    fields = {"USER_ID_FIELD": "user", "ITEM_ID_FIELD": "item", "NEG_PREFIX": "other_", "device": "cpu"}
    options = {"embedding_size": DIMENSION, "n_layers": LAYERS, "reg_weight": RIDGE, "require_pow": True}
    ones = np.ones(len(pairs.user), np.float32)
    matrix = coo_matrix((ones, (pairs.user.numpy(), pairs.item.numpy())), shape=(len(users), len(items)))
    data = SimpleNamespace(num={"user": len(users), "item": len(items)}.get, inter_matrix=lambda form: matrix)
    model = LightGCN(fields | options, data)
    model.user_embedding.weight.data, model.item_embedding.weight.data = users.clone(), items.clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    losses = []
    model.mf_loss.register_forward_hook(lambda module, scores, loss: losses.append(float(loss.detach())))

    def step(batch: Batch) -> float:
        optimizer.zero_grad()
        model.calculate_loss(Interaction(dict(zip(("user", "item", "other_item"), batch, strict=True)))).backward()
        optimizer.step()
        return losses.pop()

    return step


def batches(pairs: Pairs, item_count: int, count: int) -> Iterator[Batch]:
    """Random pairs, each with an item drawn evenly."""
    dice = torch.Generator().manual_seed(0)
    for _ in range(count):
        place = torch.randint(len(pairs.user), (BATCH,), generator=dice)
        yield pairs.user[place], pairs.item[place], torch.randint(item_count, (BATCH,), generator=dice)


def measure(steps: dict[str, Step], pairs: Pairs, item_count: int, count: int) -> dict[str, list[float]]:
    """CPU seconds of `count` steps of each, in turns; ValueError where their first losses differ."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number, batch in enumerate(batches(pairs, item_count, WARM_UP + count)):
        losses = {}
        for name, step in steps.items():
            start = process_time()
            losses[name] = step(batch)
            seconds[name].append(process_time() - start)
        if number == 0 and max(losses.values()) - min(losses.values()) > 1e-6:
            raise ValueError(f"not the same model: the losses of the first batch are {losses}")
    return {name: spent[WARM_UP:] for name, spent in seconds.items()}


def main(arguments: list[str]) -> None:
    """Prints the milliseconds of a step of each, and how many times Almanac's they are."""
    torch.set_num_threads(1)
    count = int(arguments[0]) if arguments else STEPS
    pairs, test = read("gowalla", 0)
    sizes = [1 + max(int(pairs.user.max()), int(test.user.max())), 1 + max(int(pairs.item.max()), int(test.item.max()))]
    dice = torch.Generator().manual_seed(0)
    users, items = (torch.randn(size, DIMENSION, generator=dice) * 0.1 for size in sizes)
    peers = {"Almanac": of_almanac, "PyG": of_pyg, "PyG, normalised CSR matrix": partial(of_pyg, sparse=True)}
    peers |= {"RecBole": of_recbole} if find_spec("recbole") else {}
    seconds = measure({name: make(pairs, users, items) for name, make in peers.items()}, pairs, len(items), count)
    print(f"| {count} steps of | median, CPU ms | mean | least | times Almanac's (median) |\n{'| --- ' * 5}|")
    for name, spent in seconds.items():
        times = median(spent) / median(seconds["Almanac"])
        print(
            f"| {name} | {1e3 * median(spent):.0f} | {1e3 * mean(spent):.0f} | {1e3 * min(spent):.0f} | {times:.1f} |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
