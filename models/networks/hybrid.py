"""A graph network together with what else is known: of items, or of the order in which a user took them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention

from models.networks.light import LightGCN
from models.networks.view import View
from models.propagation import offsets, ranges

LENGTH = 20  # last items of a user


class WithContent(nn.Module):
    """e = e_graph + W e_content: LightGCN over who took what, and the mean of a node's facts, which knows no events.

    A user's content is that of the own facts and of the items taken, so an item without an event meets users by its facts.
    """

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.graph = LightGCN(view, dimension, layers, dropout)
        self.content = nn.Linear(dimension, dimension, bias=False)
        with torch.no_grad():
            self.content.weight.copy_(torch.eye(dimension))

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → the same."""
        taken, facts = view.only("user", "item"), view.without(lambda name: "entity" not in name)
        content = facts.hop(mean=True)(values)
        content = content + taken.hop(mean=True)(content)
        return self.graph(taken, values) + dropout(self.content(content), self.dropout, self.training)


class WithSequence(nn.Module):
    """e_u = e_graph + what attention over the user's last items expects, the newest asking (SASRec's last step, one block).

    The attention's logits have ln of each event's weight added, so older items say less as the clock says.
    """

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.graph = LightGCN(view, dimension, layers, dropout)
        self.place = nn.Parameter(torch.zeros(LENGTH, dimension))
        self.ask, self.offer, self.told = (nn.Linear(dimension, dimension, bias=False) for _ in range(3))

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → the same."""
        known, items, log_weight = last_items(view)
        read = values[view.kinds["item"]][items.clamp(min=0)] + self.place
        asked = self.ask(read[:, :1])
        heard = scaled_dot_product_attention(asked, self.offer(read), self.told(read), attn_mask=log_weight[:, None])
        expected = dropout(heard[:, 0], self.dropout, self.training)
        return self.graph(view, values).index_add(0, known, expected)


def last_items(view: View) -> tuple[Tensor, Tensor, Tensor]:
    """Users with events (int64 [K]), their last items, newest first (int64 [K, LENGTH], −1 = none), and ln of the weights.

    ln weight is relative to the user's heaviest, −∞ where there is no item.
    """
    graph = view.graph
    events, weight = graph.interactions, view.clock.weigh(graph).log()
    order = torch.argsort(events.age_days, stable=True)
    order = order[torch.argsort(events.user_index[order], stable=True)]
    start = offsets(events.user_index, graph.user_count)
    known = torch.nonzero(start.diff()).squeeze(1)
    row, position = ranges(start[known], torch.minimum(start[known + 1], start[known] + LENGTH))
    place = position - start[known][row]
    items = torch.full((len(known), LENGTH), -1, device=row.device)
    logs = torch.full((len(known), LENGTH), -torch.inf, device=row.device)
    items[row, place] = events.item_index[order[position]]
    logs[row, place] = weight[order[position]]
    return known, items, logs - logs.max(1, keepdim=True).values
