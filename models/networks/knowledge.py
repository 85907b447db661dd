"""What is known of items as vectors before any event is learned from: TransE, DistMult and RotatE as pretraining."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.nn.kge import DistMult, KGEModel, RotatE, TransE

from models.networks.inputs import SPREAD, Inputs
from models.networks.view import View

MODELS = {  # relation r from h to t: h + r ≈ t, ⟨h, r, t⟩ large, or r turns h into t
    "transe": TransE,  # Bordes et al. 2013
    "distmult": DistMult,  # Yang et al. 2015, arXiv 1412.6575
    "rotate": RotatE,  # Sun et al. 2019, arXiv 1902.10197
}
STEPS = 300
BATCH = 4096  # triples of one step, at most
LEARNING_RATE = 1e-2


@dataclass(frozen=True)
class Triples:
    """Facts about items and entities, numbered together from 0: (head, relation, tail), and how much each one counts."""

    head: Tensor  # int64 [N]
    relation: Tensor  # int64 [N]
    tail: Tensor  # int64 [N]
    weight: Tensor  # float32 [N]
    node_count: int
    relation_count: int

    @classmethod
    def of(cls, view: View) -> Triples:
        """The relations between items and entities, each in its own direction only."""
        facts = view.only("item", "entity")
        forward = [edges for name, edges in facts.relations.items() if not _turned(name, facts)]
        edge = torch.cat([torch.zeros(2, 0, dtype=torch.int64), *(edges.edge_index.cpu() for edges in forward)], 1)
        weight = torch.cat([torch.zeros(0), *(edges.weight.cpu() for edges in forward)])
        relation = torch.repeat_interleave(torch.tensor([len(edges.weight) for edges in forward], dtype=torch.int64))
        first = view.kinds["item"].start
        device = view.graph.interactions.strength.device
        head, tail = edge.to(device) - first
        return cls(head, relation.to(device), tail, weight.to(device), view.node_count - first, len(forward))


def embed(name: str, triples: Triples, dimension: int, steps: int = STEPS) -> KGEModel:
    """PyG's model of that name, trained to tell the triples from corrupted ones.

    Draws from the global generator, as PyG does.
    """
    size = dimension // 2 if name == "rotate" else dimension  # of complex numbers
    model = MODELS[name](triples.node_count, triples.relation_count, size).to(triples.head.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    batch = min(BATCH, 2 * len(triples.head))
    for _ in range(steps):
        some = drawn(triples.weight, batch)
        optimizer.zero_grad()
        model.loss(triples.head[some], triples.relation[some], triples.tail[some]).backward()
        optimizer.step()
    return model


def drawn(weight: Tensor, count: int) -> Tensor:
    """Places drawn by weight, with replacement: int64 [count]. torch.multinomial ends at 2²⁴ of them."""
    reach = weight.double().cumsum(0)
    dice = torch.rand(count, dtype=torch.float64, device=weight.device)
    return torch.searchsorted(reach, dice * reach[-1], right=True).clamp(max=len(weight) - 1)


def vectors(model: KGEModel) -> Tensor:
    """What the model knows of each node: float32 [node_count, D]; RotatE's real parts, then its imaginary ones."""
    parts = [model.node_emb, model.node_emb_im] if isinstance(model, RotatE) else [model.node_emb]
    return torch.cat([part.weight for part in parts], 1).detach()


@torch.no_grad()
def pretrain(name: str, view: View, inputs: Inputs) -> None:
    """Sets the own vectors of items and entities of which something is known, as widely spread as others start."""
    triples = Triples.of(view)
    if not len(triples.head):
        return
    with torch.enable_grad():
        model = embed(name, triples, inputs.own.shape[1])
    touched = torch.unique(torch.cat([triples.head, triples.tail]))
    learned = vectors(model)[touched]
    inputs.own[touched + view.kinds["item"].start, : learned.shape[1]] = learned * (SPREAD / learned.std())


def _turned(name: tuple[str, str, str], view: View) -> bool:
    source, relation, target = name
    return relation.startswith("rev_") and (target, relation.removeprefix("rev_"), source) in view.relations
