"""A network as plain tensors and plain values, so that it loads with torch.load(weights_only=True)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.network import LISTS, Network
from models.reranker import Reranker
from models.settings import ModelSettings


def pack(network: Network) -> dict[str, Any]:
    """Everything `unpack` needs: the tensors, on CPU, and the settings as plain values."""
    return {
        "tensors": {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()},
        "event_types": list(network.event_types),
        "horizon_days": network.horizon_days,
        "settings": network.settings.model_dump(mode="json"),
    }


def unpack(
    packed: dict[str, Any],
    item_ids: list[str] | None = None,
    entity_ids: list[str] | None = None,
    series: tuple[str, ...] | None = None,
) -> Network:
    """The network that was packed, on CPU and ready to score; its numbers are the same bits.

    item_ids, entity_ids: of the graph to score, by index; what training did not know has an embedding of zero, so that its
    facts and neighbours speak for it. series: of the graph's context; one that training did not know weighs nothing.
    None: those of training.
    """
    tensors = dict(packed["tensors"])
    for name, ids in (("item", item_ids), ("entity", entity_ids)):
        if ids is not None:
            tensors[name] = _rows_of(ids, packed[f"{name}_ids"], tensors[name])
    if series is not None and packed["settings"]["context"]:  # the last columns of the trend, one per series
        known = packed["context_series"]
        trend, context = tensors["trend"].T.split([tensors["trend"].shape[1] - len(known), len(known)])
        tensors["trend"] = torch.cat([trend, _rows_of(list(series), known, context)]).T.contiguous()
    network = Network(
        item_count=len(tensors["item"]),
        entity_count=len(tensors["entity"]),
        event_types=tuple(packed["event_types"]),
        horizon_days=packed["horizon_days"],
        source_count=tensors["mix"].shape[1],
        trend_count=tensors["trend"].shape[1],
        settings=ModelSettings(**packed["settings"]),
    )
    for name in LISTS:
        prefix = f"rerankers.{name}."
        values = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if values:
            network.rerankers[name] = Reranker.of(values)
    network.load_state_dict(tensors)
    return network.eval()


@torch.no_grad()
def carry_over(
    packed: dict[str, Any], network: Network, item_ids: list[str], entity_ids: list[str], series: tuple[str, ...]
) -> None:
    """Lets a new network begin where a stored one ended: its shared numbers, and the embeddings of what both know.

    Nothing is taken from a network of other settings or event types, and no weights of the trend from one that read other
    dated series. What it did not learn from begins anew.
    """
    if ModelSettings(**packed["settings"]) != network.settings:
        return
    for name, ids in (("item", item_ids), ("entity", entity_ids)):
        mine, its = _shared_rows(ids, packed[f"{name}_ids"])
        rows = packed["tensors"][name][its]
        learned = rows.any(1)
        getattr(network, name)[mine[learned]] = rows[learned].to(network.item.device)
    other = {"item", "entity"} if list(series) == packed["context_series"] else {"item", "entity", "trend"}
    for name, value in network.named_parameters():
        stored = packed["tensors"][name]
        if name not in other and stored.shape == value.shape:
            value.copy_(stored)
    network.filter_root.zero_()


def _rows_of(ids: list[str], known: list[str], rows: Tensor) -> Tensor:
    """The rows of the known ids as rows of these ids, zeros where one is not known."""
    mine, its = _shared_rows(ids, known)
    found = rows.new_zeros(len(ids), rows.shape[1])
    found[mine] = rows[its]
    return found


def _shared_rows(ids: list[str], known: list[str]) -> tuple[Tensor, Tensor]:
    """Positions, here and there, of the ids that both have: int64 [N] each."""
    place = {key: index for index, key in enumerate(known)}
    pairs = [(mine, place[key]) for mine, key in enumerate(ids) if key in place]
    mine, its = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return mine, its
