"""A network as plain tensors and plain values, so that it loads with torch.load(weights_only=True)."""

from __future__ import annotations

from typing import Any

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
