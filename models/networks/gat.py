"""Graph attention (Veličković et al. 2018, arXiv 1710.10903), and sums along edges whose weights are learned."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, elu, embedding_bag, leaky_relu
from torch_geometric.nn import GATConv
from torch_geometric.utils import softmax

from models.networks.view import View, degree
from models.propagation import Adjacency

HEADS = 4
warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # what is used of it is tested


@dataclass(frozen=True)
class Heard:
    """Who hears whom, sorted by hearer: edges that attention shares out."""

    adjacency: Adjacency
    edge_index: Tensor  # int64 [2, E], sources above hearers
    log_weight: Tensor  # float32 [E]
    order: Tensor  # int64 [E], where each edge stood in what was given

    @classmethod
    def of(cls, edge_index: Tensor, weight: Tensor, source_count: int, target_count: int) -> Heard:
        """Of edges in any order; weight: float32 [E], at least 0."""
        order = torch.argsort(edge_index[1], stable=True)
        source, target = edges = edge_index[:, order]
        adjacency = Adjacency.build(target, source, target_count, source_count)
        return cls(adjacency, edges, weight[order].clamp(min=1e-30).log(), order)

    def shares(self, logits: Tensor) -> Tensor:
        """α ∝ w · exp(logit), summing to 1 over what a node hears. float32 [E, K] → the same."""
        return softmax(logits + self.log_weight[:, None], ptr=self.adjacency.row_offsets.long())


def with_loops(view: View) -> Heard:
    """The edges of all relations, and a loop at each node as heavy as its edges are: Σ w² / Σ w, 1 where there are none."""
    edges, _ = view.joined
    nodes, target = torch.arange(view.node_count, device=edges.weight.device), edges.edge_index[1]
    squares, total = (degree(target, weight, view.node_count) for weight in (edges.weight.square(), edges.weight))
    loop = torch.where(total > 0, squares / total.clamp(min=1e-30), 1.0)
    both = torch.cat([edges.edge_index, nodes.repeat(2, 1)], 1)
    return Heard.of(both, torch.cat([edges.weight, loop]), view.node_count, view.node_count)


def attend(adjacency: Adjacency, shares: Tensor, values: Tensor) -> Tensor:
    """Σ over edges of share · values[column], for every row and head: shares [E, K], values [C, K, D] → [R, K, D].

    With gradients to both, a few times the cost of a sum with fixed weights; no tensor of size E · D is made.
    """
    return _Attend.apply(shares, values, adjacency)  # pyright: ignore[reportReturnType]


def dots(adjacency: Adjacency, left: Tensor, right: Tensor) -> Tensor:
    """⟨left[row], right[column]⟩ of every edge and head: left [R, K, D], right [C, K, D] → [E, K]."""
    return _Dots.apply(left, right, adjacency)  # pyright: ignore[reportReturnType]


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shares: Tensor, values: Tensor, adjacency: Adjacency) -> Tensor:
        ctx.save_for_backward(shares, values)
        ctx.adjacency = adjacency
        return _sums(adjacency, shares, values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        shares, values = ctx.saved_tensors
        return _products(ctx.adjacency, gradients[0], values), _sums_back(ctx.adjacency, shares, gradients[0]), None


class _Dots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, adjacency: Adjacency) -> Tensor:
        ctx.save_for_backward(left, right)
        ctx.adjacency = adjacency
        return _products(adjacency, left, right)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        left, right = ctx.saved_tensors
        return _sums(ctx.adjacency, gradients[0], right), _sums_back(ctx.adjacency, gradients[0], left), None


def _sums(adjacency: Adjacency, shares: Tensor, values: Tensor) -> Tensor:
    return _bags(adjacency.column, adjacency.row_offsets, shares, values)


def _sums_back(adjacency: Adjacency, shares: Tensor, values: Tensor) -> Tensor:
    return _bags(adjacency.row, adjacency.column_offsets, shares[adjacency.by_column], values)


def _bags(index: Tensor, start: Tensor, shares: Tensor, values: Tensor) -> Tensor:
    heads = zip(values.unbind(1), shares.unbind(1), strict=True)
    summed = [
        embedding_bag(
            index,
            value.contiguous(),
            start,
            mode="sum",
            per_sample_weights=share.contiguous(),
            include_last_offset=True,
        )
        for value, share in heads
    ]
    return torch.stack(summed, 1)


def _products(adjacency: Adjacency, left: Tensor, right: Tensor) -> Tensor:
    size, none = (len(left), len(right)), left.new_zeros(len(adjacency.column))
    pattern = torch.sparse_csr_tensor(adjacency.row_offsets, adjacency.column, none, size, check_invariants=False)
    heads = zip(left.unbind(1), right.unbind(1), strict=True)
    sampled = torch.sparse.sampled_addmm
    return torch.stack([sampled(pattern, one.contiguous(), other.T, beta=0.0).values() for one, other in heads], 1)


class AlongGAT(GATConv):
    """PyG's layer over what is `Heard`, with α_ij ∝ w_ij exp(LeakyReLU(aᵀ[W h_i ‖ W h_j]))."""

    def edge_updater(self, edge_index: Heard, alpha: Any, **values: Any) -> Tensor:  # pyright: ignore
        from_source, to_target = alpha
        source, target = edge_index.edge_index
        logits = leaky_relu(from_source[source] + to_target[target], self.negative_slope)
        return dropout(edge_index.shares(logits), self.dropout, self.training)

    def propagate(self, edge_index: Heard, x: Any, alpha: Tensor, **values: Any) -> Tensor:  # pyright: ignore
        return attend(edge_index.adjacency, alpha, x[0])

    def attention(self, values: Tensor, heard: Heard) -> Tensor:
        """α: float32 [E, K]."""
        mine = self.lin(values).view(-1, self.heads, self.out_channels)  # pyright: ignore[reportOptionalCall]
        alpha = ((mine * self.att_src).sum(-1), (mine * self.att_dst).sum(-1))
        return self.edge_updater(heard, alpha=alpha)


class GAT(nn.Module):
    """z = [x, h¹, …, h^L]: K heads side by side and ELU, in the last layer the mean of the heads.

    x beside the layers keeps users near the items they heard of from the first step on.
    """

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        heads, last = gcd(HEADS, dimension), layers - 1
        inner = [AlongGAT(dimension, dimension // heads, heads, add_self_loops=False) for _ in range(last)]
        outer = AlongGAT(dimension, dimension, heads, concat=False, add_self_loops=False)
        self.layers = nn.ModuleList([*inner, outer])

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, (L + 1) D]."""
        return torch.cat(self._states(with_loops(view), values), 1)

    @torch.no_grad()
    def attention(self, view: View, values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Edges, sources above hearers, int64 [2, E], and the α of each layer, float32 [E, K], summing to 1 per hearer."""
        heard = with_loops(view)
        states = self._states(heard, values)[:-1]
        return heard.edge_index, [layer.attention(x, heard) for layer, x in zip(self.layers, states, strict=True)]  # pyright: ignore

    def attention_to_items(self, view: View, values: Tensor, users: Tensor) -> Tensor:
        """How much each user (int64 [B]) hears each item, the mean of α over layers and heads: float32 [B, I]."""
        (source, target), alphas = self.attention(view, values)
        items, row = view.kinds["item"], torch.full((view.node_count,), -1, device=source.device)
        row[users] = torch.arange(len(users), device=source.device)
        mine = (row[target] >= 0) & (source >= items.start) & (source < items.stop)
        place = row[target[mine]] * view.graph.item_count + source[mine] - items.start
        share = torch.stack([alpha.mean(1) for alpha in alphas]).mean(0)[mine]
        total = share.new_zeros(len(users) * view.graph.item_count).index_add_(0, place, share)
        return total.view(len(users), view.graph.item_count)

    def _states(self, heard: Heard, values: Tensor) -> list[Tensor]:
        states = [values]
        for place, layer in enumerate(self.layers):
            values = layer(values, heard)
            values = elu(values) if place < len(self.layers) - 1 else values
            values = dropout(values, self.dropout, self.training)
            states.append(values)
        return states
