"""KGAT: attention over users, items and what is known of them, by translated vectors (Wang et al. 2019, arXiv 1905.07854)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu, logsigmoid
from torch_geometric.utils import softmax

from models.hops import Hop
from models.networks.gat import dots
from models.networks.inputs import Inputs
from models.networks.knowledge import drawn, pretrain
from models.networks.view import View

TRIPLES = 512  # of each relation and step
SHARE = 0.1  # of the knowledge loss in the whole


class KGAT(nn.Module):
    """h^l = LeakyReLU(W1 (h + n)) + LeakyReLU(W2 (h ⊙ n)), n = Σ π_ht h_t; z = [x, h¹, …, h^L].

    π ∝ w · exp((W_r e_t)ᵀ tanh(W_r e_h + e_r)) over all that h hears. As in the authors' code no gradient passes through
    π; e_r and W_r are learned by `beside`: −ln σ(g(h, r, t') − g(h, r, t)), t' another tail,
    g = |W_r e_h + e_r − W_r e_t|² (TransR, Lin et al. 2015).
    """

    pretraining: str | None = None  # a name of `models.networks.knowledge.MODELS`

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.relation = nn.Parameter(torch.empty(len(view.relations), dimension))
        self.project = nn.Parameter(torch.empty(len(view.relations), dimension, dimension))
        self.sum = nn.ModuleList(nn.Linear(dimension, dimension) for _ in range(layers))
        self.product = nn.ModuleList(nn.Linear(dimension, dimension) for _ in range(layers))
        nn.init.xavier_uniform_(self.relation)
        for transform in self.project:
            nn.init.xavier_uniform_(transform)

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, (L + 1) D]."""
        hop, every = self.attention(view, values), [values]
        for together, alike in zip(self.sum, self.product, strict=True):
            heard = hop(values)
            values = leaky_relu(together(values + heard)) + leaky_relu(alike(values * heard))
            values = dropout(values, self.dropout, self.training)
            every.append(values)
        return torch.cat(every, 1)

    @torch.no_grad()
    def attention(self, view: View, values: Tensor) -> Hop:
        """π, along the edges of `view.joined`."""
        edges, ends = view.joined[0], view.ends
        relations = zip(
            ends.adjacency, ends.heard(values), ends.hearers(values), self.project, self.relation, strict=True
        )
        fits = [values.new_zeros(0)]
        for adjacency, tail, head, project, relation in relations:
            asked = torch.tanh(head @ project + relation)
            fits.append(dots(adjacency, asked[:, None], (tail @ project)[:, None])[:, 0])
        logits = edges.weight.log().index_add(0, ends.joined, torch.cat(fits))
        return Hop(view.hop().adjacency, softmax(logits, edges.edge_index[1], num_nodes=view.node_count))

    def begin(self, view: View, inputs: Inputs) -> None:
        """Item and entity vectors start from what knowledge alone says, if a pretraining is set."""
        if self.pretraining:
            pretrain(self.pretraining, view, inputs)

    def beside(self, view: View, inputs: Inputs) -> Tensor:
        """The knowledge loss: as many triples of each relation, drawn by weight, against tails of the same kind."""
        values, places, triples = inputs(view), [], []
        for place, (name, edges) in enumerate(view.relations.items()):
            if len(edges.weight):
                tail, head = edges.edge_index[:, drawn(edges.weight, TRIPLES)]
                kind = view.kinds[name[0]]
                other = torch.randint(kind.start, kind.stop, tail.shape, device=tail.device)
                places.append(place)
                triples.append(torch.stack([head, tail, other]))
        if not places:
            return values.sum() * 0
        told = values[torch.stack(triples)] @ self.project[places][:, None]  # [R, 3, TRIPLES, D]
        asked = told[:, 0] + self.relation[places][:, None]
        gap = (asked - told[:, 2]).square().sum(2) - (asked - told[:, 1]).square().sum(2)
        return SHARE * -logsigmoid(gap).mean()


class TransEKGAT(KGAT):
    """Starts from TransE's vectors."""

    pretraining = "transe"


class DistMultKGAT(KGAT):
    """Starts from DistMult's vectors."""

    pretraining = "distmult"


class RotatEKGAT(KGAT):
    """Starts from RotatE's vectors."""

    pretraining = "rotate"
