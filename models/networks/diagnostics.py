"""What happens layer by layer in any network: how alike its vectors become, and what a layer costs as measured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.profiler import ProfilerActivity, profile
from torch_geometric.nn import MessagePassing

from models.networks.view import Relation, View, degree


@dataclass(frozen=True)
class Smoothness:
    """How alike vectors are, before the first layer (0) or after one; 1 and 0 = nothing tells nodes apart any more."""

    layer: int
    mean_cosine: float  # of two nodes of one kind, the mean over kinds by pairs; 0 where directions are random
    dirichlet_energy: float  # along the edges; 0 = neighbours are the same up to their degree


@torch.no_grad()
def smoothness(encoder: nn.Module, view: View, values: Tensor) -> list[Smoothness]:
    """Of what goes into the encoder and of what each of its layers makes of it (Li et al. 2018, arXiv 1801.07606).

    values: float32 [V, D]. Nodes that nothing touches do not count. Where layers have no loops, as in LightGCN, the two sides
    of a bipartite graph take turns: the energy stays while the cosines rise.
    """
    edges, _ = view.joined
    touched = torch.zeros(view.node_count, dtype=torch.bool, device=values.device)
    touched[edges.edge_index.flatten()] = True
    kinds = [torch.nonzero(touched[place]).flatten() + place.start for place in view.kinds.values()]
    found = [values, *layer_outputs(encoder, view, values)]
    return [
        Smoothness(layer, _mean_cosine(states, kinds), dirichlet_energy(states, edges))
        for layer, states in enumerate(found)
    ]


def layer_outputs(encoder: nn.Module, view: View, values: Tensor) -> list[Tensor]:
    """The vectors after each layer, [V, D'] each: the blocks of an output [x, h¹, …, h^L], else what its layers returned.

    Layers are the members of `encoder.layers`, else the layers of PyG in it. ValueError where an encoder shows neither.
    """
    found: list[Tensor] = []

    def keep(module: nn.Module, given: Any, made: Any) -> None:
        made = made[0] if isinstance(made, tuple) else made
        if isinstance(made, dict) and all(isinstance(made.get(kind), Tensor) for kind in view.kinds):
            made = torch.cat([made[kind] for kind in view.kinds])
        if isinstance(made, Tensor) and made.shape[:1] == values.shape[:1]:
            found.append(made)

    with ExitStack() as stack:
        for layer in _layers(encoder):
            stack.callback(layer.register_forward_hook(keep).remove)
        made = encoder(view, values)
    blocks, width = divmod(made.shape[1], values.shape[1])
    if blocks > 1 and not width:
        return list(made.split(values.shape[1], 1)[1:])
    if not found:
        raise ValueError(
            f"{type(encoder).__name__} shows no layer: neither blocks in its output nor modules in `layers`"
        )
    return found


def _layers(encoder: nn.Module) -> list[nn.Module]:
    own = getattr(encoder, "layers", None)
    if isinstance(own, nn.ModuleList):
        return list(own)
    return [module for module in encoder.modules() if isinstance(module, MessagePassing)]


def mean_cosine(values: Tensor) -> float:
    """Of two different rows, zeros left out: (|Σ x/|x||² − n) / n(n − 1), NaN below two rows."""
    return _mean_cosine(values, [torch.arange(len(values), device=values.device)])


def _mean_cosine(values: Tensor, groups: list[Tensor]) -> float:
    total, pairs = 0.0, 0
    for group in groups:
        unit = normalize(values[group].double(), dim=1)
        count = int((unit.square().sum(1) > 0.5).sum())
        total += float(unit.sum(0).square().sum()) - count
        pairs += count * (count - 1)
    return total / pairs if pairs else float("nan")


def dirichlet_energy(values: Tensor, edges: Relation) -> float:
    """½ Σ_ij w_ij |x_i/√d_i − x_j/√d_j|² / Σ_i |x_i|², 0 to 2 (Cai and Wang 2020, arXiv 2006.13318).

    Each edge stands there in both directions, as a view has them.
    """
    source, target = edges.edge_index
    weight, states = edges.weight.double(), values.double()
    total = degree(target, edges.weight, len(values)).double()
    scaled = states * total.clamp(min=1e-30).rsqrt()[:, None]
    energy = sum(
        (part * (scaled[ends[0]] - scaled[ends[1]]).square().sum(1)).sum()
        for part, ends in zip(weight.split(2**18), edges.edge_index.split(2**18, 1), strict=True)
    )
    touched = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    touched[torch.cat([source, target])] = True
    return float(energy / 2 / states[touched].square().sum().clamp(min=1e-30))


@dataclass(frozen=True)
class Cost:
    """Of one call, with its gradients where it makes any."""

    seconds: float  # CPU time, least of the runs
    peak_bytes: int  # held at most at one time of what the call allocated


def cost(call: Callable[[], Tensor], runs: int = 3) -> Cost:
    """What a call and the gradient of its sum cost as measured, after one run to warm up. On CPU."""

    def once() -> None:
        made = call()
        if made.requires_grad:
            made.sum().backward()

    once()
    seconds = []
    for _ in range(runs):
        start = process_time()
        once()
        seconds.append(process_time() - start)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        once()
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    events: list[Any] = seen.profiler.kineto_results.events()
    changes = [event for event in events if event.name() == "[memory]"]
    held = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        held += change.nbytes()
        peak = max(peak, held)
    return Cost(min(seconds), peak)


def growth(sizes: list[float], costs: list[float]) -> float:
    """The power a of cost ∝ size^a that fits best: 1 = as much more as there is more to do."""
    logs = torch.tensor([sizes, costs], dtype=torch.float64).log()
    size, paid = logs - logs.mean(1, keepdim=True)
    return float((size * paid).sum() / size.square().sum())
