"""Items near each other in the space in which the network places them."""

from __future__ import annotations

import torch
from torch import Tensor

from models.graph import Graph
from models.network_ranker import NetworkRanker
from models.ranking import CHUNK_SCORES, best


@torch.no_grad()
def similar_items(ranker: NetworkRanker, graph: Graph, k: int) -> tuple[Tensor, Tensor]:
    """The k live items with the highest cosine to each live item, itself left out.

    Returns items int64 [I, k] padded with −1 and cosines float32 [I, k] padded with −∞; rows of items not live are empty.
    """
    live = torch.nonzero(graph.live_items).squeeze(1)
    unit = ranker.items.unit[live]
    items = torch.full((graph.item_count, k), -1, device=live.device)
    cosines = torch.full((graph.item_count, k), -torch.inf, device=live.device)
    width = min(k, len(live) - 1)
    position = torch.arange(len(live), device=live.device)
    for rows in position.split(max(1, CHUNK_SCORES // max(1, len(live)))) if width > 0 else ():
        cosine = unit[rows] @ unit.T
        cosine[torch.arange(len(rows)), rows] = -torch.inf
        cosines[live[rows], :width], columns = best(cosine, width)
        items[live[rows], :width] = live[columns]
    return items, cosines
