"""Self-attention over a user's latest events: what comes next, given the order of what came before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from models.factorisation import nearest_in_history, softmax_loss
from models.graph import Graph
from models.kernels import decay
from models.propagation import offsets, ranges
from models.ranking import Ranker
from models.settings import ModelSettings
from models.timeline import MOST_AGE_DAYS

LENGTH = 50  # events, and positions
DIMENSION = 64
BLOCKS, HEADS = 1, 2
DROPOUT = 0.3
STEPS = 400
LEARNING_RATE = 1e-2
TEMPERATURE = 0.1
WINDOWS_PER_STEP = 128
USERS_PER_CHUNK = 512


@dataclass(frozen=True)
class Visits:
    """A graph's events in the order of users and dates; a visit is a user's day."""

    user_offsets: Tensor  # int64 [U+1]
    user: Tensor  # int64 [E]
    item: Tensor  # int64 [E]
    age_days: Tensor  # int32 [E]
    visit: Tensor  # int64 [E], rising
    visit_offsets: Tensor  # int64 [V+1]

    @classmethod
    def of(cls, graph: Graph) -> Visits:
        events = graph.interactions
        day = events.user_index * MOST_AGE_DAYS - events.age_days
        order = torch.argsort(day, stable=True)
        _, visit = torch.unique_consecutive(day[order], return_inverse=True)
        starts = offsets(visit, int(visit[-1]) + 1 if len(visit) else 0)
        user = offsets(events.user_index, graph.user_count)
        return cls(user, events.user_index, events.item_index[order], events.age_days[order], visit, starts)

    def windows(self, stop: Tensor, start: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """The last `length` events of each range: their places (int64 [B, L], the real ones first) and number (int64 [B])."""
        count = (stop - start).clamp(max=length)
        place = (stop - count)[:, None] + torch.arange(length, device=stop.device)
        return torch.minimum(place, (stop - 1).clamp(min=0)[:, None]), count


class Block(nn.Module):
    """x + attention(norm x), then x + network(norm x); each position sees itself and the earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(DIMENSION), nn.LayerNorm(DIMENSION)
        self.project, self.join = nn.Linear(DIMENSION, 3 * DIMENSION), nn.Linear(DIMENSION, DIMENSION)
        self.network = nn.Sequential(
            nn.Linear(DIMENSION, DIMENSION), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(DIMENSION, DIMENSION)
        )
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, values: Tensor) -> Tensor:
        """float32 [B, L, D] → the same."""
        parts = self.project(self.before(values)).view(*values.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(*parts, is_causal=True)
        values = values + self.dropout(self.join(seen.transpose(1, 2).reshape(values.shape)))
        return values + self.dropout(self.network(self.between(values)))


class Sequence(nn.Module):
    """SASRec (Kang and McAuley 2018, arXiv 1808.09781) with a softmax over cosines."""

    def __init__(self, item_count: int, length: int, temperature: float) -> None:
        super().__init__()
        self.length, self.temperature = length, temperature
        self.item, self.position = nn.Embedding(item_count, DIMENSION), nn.Embedding(length, DIMENSION)
        nn.init.normal_(self.item.weight, std=0.1)
        nn.init.normal_(self.position.weight, std=0.1)
        self.dropout, self.norm = nn.Dropout(DROPOUT), nn.LayerNorm(DIMENSION)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))

    def forward(self, item: Tensor) -> Tensor:
        """Of each position, what it expects next, of length 1 / temperature: int64 [B, L] → float32 [B, L, D]."""
        values = self.dropout(self.item(item) + self.position.weight[: item.shape[1]])
        return normalize(self.norm(self.blocks(values)), dim=-1) / self.temperature

    def unit_items(self) -> Tensor:
        return normalize(self.item.weight, dim=1)


@dataclass(frozen=True)
class SequenceRanker:
    """Scores from the last events of each user as of the graph's date."""

    name: str
    graph: Graph
    half_life_days: float  # of explanations
    network: Sequence
    visits: Visits

    @torch.no_grad()
    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I], 0 for users without history."""
        items, parts = self.network.unit_items(), []
        for part in users.split(USERS_PER_CHUNK):
            start, stop = self.visits.user_offsets[part], self.visits.user_offsets[part + 1]
            place, count = self.visits.windows(stop, start, self.network.length)
            known = count > 0
            scores = items.new_zeros(len(part), len(items))
            expected = self.network(self.visits.item[place[known]])[torch.arange(int(known.sum())), count[known] - 1]
            scores[known] = expected @ items.T
            parts.append(scores)
        return torch.cat(parts)

    @torch.no_grad()
    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        return nearest_in_history(self.graph, self.half_life_days, self.network.item.weight, users, items)


def fit_sequence(
    graph: Graph,
    horizon_days: int,
    settings: ModelSettings,
    half_life: float,
    length: int = LENGTH,
    temperature: float = TEMPERATURE,
    steps: int = STEPS,
) -> Callable[[Graph], Ranker]:
    """Minimises −Σ log softmax of each item of the visit that follows a visit, weighted 2^(−age/half-life) / √(items)."""
    half_life_days, device = half_life * horizon_days, graph.interactions.strength.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        network, visits = Sequence(graph.item_count, length, temperature).to(device), Visits.of(graph)
        dice = torch.Generator(device).manual_seed(settings.seed)
        optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1 / steps, total_iters=steps)
        for places, row, slot, target in _steps(visits, half_life_days, steps, length, dice):
            expected = network(visits.item[places])[row, slot]
            query, place = ranges(visits.visit_offsets[target], visits.visit_offsets[target + 1])
            weight = visits.visit_offsets.diff()[target][query].rsqrt()
            loss = softmax_loss(expected, network.unit_items(), query, visits.item[place], weight, dice)
            optimizer.zero_grad()
            (loss / WINDOWS_PER_STEP).backward()
            optimizer.step()
            schedule.step()
    network.eval()
    return lambda now: SequenceRanker("sequence", now, half_life_days, network, Visits.of(now))


def _steps(
    visits: Visits, half_life_days: float, steps: int, length: int, dice: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Windows that end with a visit, drawn by 2^(−age/half-life) of the visit that follows.

    Their places [B, L], and of the last event of each visit in them: row, slot and the visit that follows, int64 [N] each.
    """
    stop = visits.visit_offsets[1:-1]
    stop = stop[visits.user[stop] == visits.user[stop - 1]]
    reach = torch.cumsum(decay(visits.age_days[stop].double(), half_life_days), 0)
    for _ in range(steps if len(reach) else 0):
        drawn = torch.rand(WINDOWS_PER_STEP, generator=dice, device=stop.device, dtype=torch.float64) * reach[-1]
        end = stop[torch.searchsorted(reach, drawn).clamp(max=len(reach) - 1)]
        places, count = visits.windows(end, visits.user_offsets[visits.user[end]], length)
        real = torch.arange(length, device=stop.device) < count[:, None]
        row, slot = torch.nonzero(real & (visits.visit[places + 1] != visits.visit[places]), as_tuple=True)
        yield places, row, slot, visits.visit[places[row, slot] + 1]
