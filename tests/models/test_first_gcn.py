"""The first network of a beginner, with its usual faults mended: three graph convolutions that learn ratings by squared error.

The faults: no features given, one output a node held against one target an edge, edges in one direction, nothing held out.
"""

from __future__ import annotations

from itertools import pairwise

import polars as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from torch_geometric.utils import get_laplacian, to_dense_adj

from benchmarks.static import Pairs
from models.hops import Hop
from models.networks.along import AlongGCN
from models.networks.gcn import looped
from models.networks.losses import RATING_LOSSES
from models.networks.view import Clock, View
from tests.models.tiny import tiny_graph

USERS, ITEMS, WIDTH = 30, 20, 64


def ratings() -> pl.DataFrame:
    """240 ratings in no order: even users give even items 4 stars, odd users give odd items 2, more or less."""
    dice = torch.Generator().manual_seed(1)
    user, item = torch.cartesian_prod(torch.arange(USERS), torch.arange(ITEMS)).T
    pairs = torch.nonzero(user % 2 == item % 2).squeeze(1)
    pairs = pairs[torch.randperm(len(pairs), generator=dice)[:240]]
    user, item = user[pairs], item[pairs]
    stars = 4 - 2 * (user % 2) + 0.3 * torch.randn(len(pairs), generator=dice)
    names = {"user_id": [f"u{9 * n % 31}" for n in user.tolist()], "item_id": [f"i{5 * n % 23}" for n in item.tolist()]}
    return pl.DataFrame(names | {"interaction": stars.tolist()})


def split(table: pl.DataFrame) -> tuple[View, Pairs, Pairs]:
    """The graph of four fifths of the ratings, these, and the others, of which the graph knows nothing."""
    user, item = (table[name].rank("dense").to_torch().long() - 1 for name in ("user_id", "item_id"))
    seen, unseen = Pairs(user, item, table["interaction"].to_torch().float()).cut(0.2, seed=0)
    events = [(u, i, 1) for u, i in zip(seen.user.tolist(), seen.item.tolist(), strict=True)]
    return View.of(tiny_graph(events, users=USERS, items=ITEMS), Clock()), seen, unseen


class FirstGCN(nn.Module):
    """V → 64 → 64 → 1 from one number of its own for each node; r̂_ui = mean + z_u + z_i, items numbered after users."""

    def __init__(self, view: View, mean: float) -> None:
        super().__init__()
        widths = (view.node_count, WIDTH, WIDTH, 1)
        self.layers = nn.ModuleList(AlongGCN(wide, narrow, normalize=False) for wide, narrow in pairwise(widths))
        self.mean = mean

    def forward(self, hop: Hop) -> Tensor:
        """float32 [V, 1]."""
        values = torch.eye(len(hop.adjacency.row_offsets) - 1)
        for layer in self.layers[:-1]:
            values = relu(layer(values, hop))
        return self.layers[-1](values, hop)

    def rate(self, hop: Hop, pairs: Pairs) -> Tensor:
        """float32 [N], one for each pair."""
        z = self(hop).squeeze(1)
        return self.mean + z[pairs.user] + z[USERS + pairs.item]


def test_users_and_items_are_numbered_once_and_the_graph_is_both_ways_without_what_is_held_out() -> None:
    table = ratings()
    view, seen, unseen = split(table)
    users, items = (sorted(table[name].unique()) for name in ("user_id", "item_id"))
    named = {(users[u], items[i]) for part in (seen, unseen) for u, i in zip(part.user, part.item, strict=True)}
    assert named == set(table.select("user_id", "item_id").iter_rows())
    assert (len(seen.user), len(unseen.user)) == (192, 48)
    matrix = to_dense_adj(view.joined[0].edge_index, max_num_nodes=USERS + ITEMS)[0]
    rated = torch.zeros(USERS, ITEMS).index_put_((seen.user, seen.item), torch.ones(192))
    assert torch.equal(matrix[:USERS, USERS:], rated) and torch.equal(matrix, matrix.T)
    assert not matrix[:USERS, :USERS].any() and not matrix[USERS:, USERS:].any()
    assert not matrix[unseen.user, unseen.item + USERS].any()


def test_a_hop_is_the_identity_less_the_normalised_laplacian() -> None:
    view, _, _ = split(ratings())
    edges, weight = get_laplacian(view.joined[0].edge_index, normalization="sym", num_nodes=view.node_count)
    laplacian = to_dense_adj(edges, edge_attr=weight, max_num_nodes=view.node_count)[0]
    identity = torch.eye(view.node_count)
    torch.testing.assert_close(view.hop()(identity), identity - laplacian)
    frequencies = torch.linalg.eigvalsh(laplacian)
    assert frequencies[0] > -1e-5 and frequencies[-1] < 2 + 1e-5


def test_200_epochs_of_squared_error_foretell_ratings_that_were_held_out() -> None:
    view, seen, unseen = split(ratings())
    mean, hop = float(seen.stars.mean()), looped(view)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FirstGCN(view, mean)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.01), []
    for _ in range(200):
        optimizer.zero_grad()
        loss = RATING_LOSSES["mse"](model.rate(hop, seen), seen.stars, torch.ones(len(seen.stars)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        error = (model.rate(hop, unseen) - unseen.stars).square().mean()
    assert losses[-1] < losses[0] / 4
    assert error < (mean - unseen.stars).square().mean() / 4
