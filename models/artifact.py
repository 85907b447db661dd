"""A network as plain tensors and plain values, so that it loads with torch.load(weights_only=True)."""

from __future__ import annotations

from typing import Any

import torch

from models.network import Network
from models.settings import ModelSettings


def pack(network: Network) -> dict[str, Any]:
    """Everything `unpack` needs: the tensors, on CPU, and the settings as plain values."""
    return {
        "tensors": {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()},
        "event_types": list(network.event_types),
        "horizon_days": network.horizon_days,
        "settings": network.settings.model_dump(mode="json"),
    }


def unpack(packed: dict[str, Any]) -> Network:
    """The network that was packed, on CPU and ready to score; its numbers are the same bits."""
    tensors = packed["tensors"]
    network = Network(
        item_count=len(tensors["item"]),
        entity_count=len(tensors["entity"]),
        event_types=tuple(packed["event_types"]),
        horizon_days=packed["horizon_days"],
        source_count=tensors["mix"].shape[1],
        trend_count=tensors["trend"].shape[1],
        settings=ModelSettings(**packed["settings"]),
    )
    network.load_state_dict(tensors)
    return network.eval()


@torch.no_grad()
def carry_over(packed: dict[str, Any], network: Network, item_ids: list[str], entity_ids: list[str]) -> None:
    """Lets a new network begin where a stored one ended: its shared numbers, and the embeddings of what both know.

    Nothing is taken from a network of other settings or event types.
    """
    if packed["settings"] != network.settings.model_dump(mode="json"):
        return
    for name, ids, known in (("item", item_ids, packed["item_ids"]), ("entity", entity_ids, packed["entity_ids"])):
        place = {key: index for index, key in enumerate(known)}
        pairs = [(mine, place[key]) for mine, key in enumerate(ids) if key in place]
        mine, its = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
        getattr(network, name)[mine] = packed["tensors"][name][its].to(network.item.device)
    for name, value in network.named_parameters():
        stored = packed["tensors"][name]
        if name not in ("item", "entity") and stored.shape == value.shape:
            value.copy_(stored)
    network.filter_root.zero_()
