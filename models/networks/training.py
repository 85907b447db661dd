"""One training for every network: see the graph as of a past date, say what users did in the horizon after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.baselines import popularity_scores
from models.factorisation import nearest_in_history
from models.graph import Graph
from models.kernels import decay
from models.neighbours import user_events
from models.networks import network
from models.networks.inputs import Inputs
from models.networks.losses import LOSSES
from models.networks.negatives import NEGATIVES, Catalogue, training_edges
from models.networks.samples import SAMPLES
from models.networks.view import Clock, View
from models.ranking import Ranker
from models.settings import ModelSettings

LEAST_DATES = 4  # of an older history the horizons after past dates are learned; else its own edges
USERS_PER_STEP = 512
DECAY_HALF_LIFE_DAYS = 180.0  # of what a past date teaches
HEAD_STEP = 4.0  # times the learning rate


@dataclass(frozen=True)
class Recipe:
    """What the loop may be told beside the network's own size."""

    temperature: float = 0.12  # of cosines; 0 = inner products
    loss: str = "softmax"  # of models.networks.losses, or "softmax" over all live items where negatives is "all"
    negatives: str = "all"  # or of models.networks.negatives
    negative_count: int = 64
    dates: int = 16  # past dates of one epoch, a horizon apart
    learning_rate: float = 1e-2
    dropout: float = 0.1
    id_dropout: float = 0.0
    user_ids: bool | None = None  # own vectors of users; None = only where the own edges are learned
    similar: int = 0  # item–item edges
    heaviest: int = 0  # edges that a node hears of each relation; 0 = all
    event_types: tuple[str, ...] = ()  # whose events are to be foreseen; () = all
    sample: str = ""  # of models.networks.samples: what a step hears of its graph; "" = all
    sample_size: float = 16.0  # edges of a node, nodes, clusters or a share, as the sample takes it


@dataclass(frozen=True)
class Lesson:
    """What B users did: N pairs, as places in `users` and item indices."""

    view: View
    users: Tensor  # int64 [B], ascending
    row: Tensor  # int64 [N]
    item: Tensor  # int64 [N]
    weight: Tensor  # float32 [N]
    live: Tensor  # bool [I], the items it is told apart from


class Model(nn.Module):
    """score(u, i) = ⟨z_u, z_i⟩ / temperature + a log(1 + popularity_i) + b log(1 + own events_ui), z unit vectors.

    The head's two numbers are learned; all weights are decayed by the view's clock. Without a head they are 0, and b is
    where own events are what is learned; with temperature 0, z is as long as the network made it.
    """

    def __init__(
        self, view: View, name: str, dimension: int, layers: int, head: bool, foresees: bool, recipe: Recipe
    ) -> None:
        super().__init__()
        user_ids = not foresees if recipe.user_ids is None else recipe.user_ids
        self.temperature, self.heaviest = recipe.temperature, recipe.heaviest
        self.inputs = Inputs(view, dimension, user_ids=user_ids, id_dropout=recipe.id_dropout)
        self.encoder: Any = network(name)(view, dimension, layers, recipe.dropout)
        self.head = nn.Parameter(torch.ones(2))
        self.heard = nn.Buffer(torch.tensor([head, head and foresees]).float())

    def forward(self, view: View) -> tuple[Tensor, Tensor]:
        """Vectors of users and items: float32 [U, D'] and [I, D']."""
        values = self.encoder(view.heaviest(self.heaviest) if self.heaviest else view, self.inputs(view))
        users, items = (values[view.kinds[kind]] for kind in ("user", "item"))
        if not self.temperature:
            return users, items
        return normalize(users, dim=1) / self.temperature, normalize(items, dim=1)

    def shared(self, view: View) -> Tensor:
        """What all users' scores of an item have in common: float32 [I]."""
        return self.heard[0] * self.head[0] * _popularity(view)

    def scores(self, view: View, users: Tensor, queries: Tensor, items: Tensor) -> Tensor:
        """float32 [B, I] of the users (int64 [B]) whose vectors are `queries` [B, D']."""
        scores = torch.addmm(self.shared(view), queries, items.T)
        return scores + self.heard[1] * self.head[1] * _own(view, users) if self.heard[1] else scores


@dataclass(frozen=True)
class NetworkFactors:
    """A network as of one date: `Model.scores` of vectors that were made once."""

    name: str
    view: View
    model: Model
    users: Tensor  # float32 [U, D']
    items: Tensor  # float32 [I, D']

    @torch.no_grad()
    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I]."""
        return self.model.scores(self.view, users, self.users[users], self.items)

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        return nearest_in_history(self.view.graph, self.view.clock.half_life_days, self.items, users, items)


def fit_network(
    graph: Graph,
    horizon_days: int,
    settings: ModelSettings,
    half_life: float,
    season: float = 0.0,
    dimension: int = 64,
    layers: int = 2,
    epochs: int = 4,
    head: float = 1.0,
    *,
    name: str,
    **recipe: Any,
) -> Callable[[Graph], Ranker]:
    """Learns the network of that name, half-life in horizons; a later graph is encoded anew without training.

    Where the history is shorter than a few horizons (a random split has one day), the network learns to tell the own
    edges of users from other items, as the papers do.
    """
    own: dict[str, Any] = getattr(network(name), "RECIPE", {}) | recipe
    told = Recipe(**own)
    clock, device = Clock(half_life * horizon_days, season, horizon_days), graph.interactions.strength.device
    foresees = graph.oldest_days >= LEAST_DATES * horizon_days
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        dice = torch.Generator(device).manual_seed(settings.seed)
        view = View.of(graph, clock, told.similar)
        model = Model(view, name, dimension, layers, head > 0, foresees, told).to(device)
        others = [value for key, value in model.named_parameters() if key != "head"]
        rates = [{"params": others}, {"params": [model.head], "lr": HEAD_STEP * told.learning_rate}]
        if hasattr(model.encoder, "begin"):
            model.encoder.begin(view, model.inputs)
        optimizer = torch.optim.Adam(rates, lr=told.learning_rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1 / epochs, total_iters=epochs)
        for _ in range(epochs):
            for lesson in _ahead(view, horizon_days, told, dice) if foresees else _own_edges(view, told, dice):
                heard = sampled(lesson, told, dice) if told.sample else lesson
                if len(heard.users):
                    optimizer.zero_grad()
                    _loss(model, heard, told, dice).backward()
                    optimizer.step()
            schedule.step()
    model.eval()

    @torch.no_grad()
    def refresh(now: Graph) -> Ranker:
        seen = view if now is graph else View.of(now, clock, told.similar, like=view)
        return NetworkFactors(name, seen, model, *model(seen))

    return refresh


def sampled(lesson: Lesson, recipe: Recipe, dice: torch.Generator) -> Lesson:
    """The lesson on a sample of its graph; of users and items that are not in it, nothing is learned."""
    view, inside = SAMPLES[recipe.sample](lesson.view, recipe.sample_size, dice)
    if inside is None:
        return replace(lesson, view=view)
    live = lesson.live & inside[view.kinds["item"]]
    kept = inside[lesson.users][lesson.row] & live[lesson.item]
    users, row = torch.unique(lesson.users[lesson.row[kept]], return_inverse=True)
    return Lesson(view, users, row, lesson.item[kept], lesson.weight[kept], live)


def _ahead(view: View, horizon_days: int, recipe: Recipe, dice: torch.Generator) -> Iterator[Lesson]:
    """Past dates in random order: the view as of each, and what its known users did in the horizon after it."""
    graph = training_edges(view.graph, recipe.event_types)
    dates = list(range(horizon_days, graph.oldest_days, horizon_days))[: recipe.dates]
    for place in torch.randperm(len(dates), generator=dice, device=dice.device).tolist():
        past = View.of(view.graph.back(dates[place]), view.clock, recipe.similar, like=view)
        user, item = graph.targets(horizon_days, dates[place])
        events = past.graph.interactions
        kept = torch.isin(user, events.user_index) & past.graph.live_items[item]
        users, row = torch.unique(user[kept], return_inverse=True)
        if len(users):
            told = float(decay(torch.tensor(float(dates[place])), DECAY_HALF_LIFE_DAYS))
            weight = told * torch.bincount(row).float().rsqrt()[row]
            yield Lesson(past, users, row, item[kept], weight, past.graph.live_items)


def _own_edges(view: View, recipe: Recipe, dice: torch.Generator) -> Iterator[Lesson]:
    """The users in random batches, with all their pairs, weighted as the clock says."""
    graph = training_edges(view.graph, recipe.event_types)
    everyone = torch.unique(graph.interactions.user_index)
    for batch in everyone[torch.randperm(len(everyone), generator=dice, device=dice.device)].split(USERS_PER_STEP):
        users = batch.sort().values
        row, event = user_events(graph, users)
        pairs, pair = torch.unique(row * graph.item_count + graph.interactions.item_index[event], return_inverse=True)
        weight = torch.zeros(len(pairs), device=row.device).index_add_(0, pair, view.clock.weigh(graph)[event])
        yield Lesson(view, users, pairs // graph.item_count, pairs % graph.item_count, weight, graph.live_items)


def _loss(model: Model, lesson: Lesson, recipe: Recipe, dice: torch.Generator) -> Tensor:
    """Per user of the lesson."""
    model.train()
    users, items = model(lesson.view)
    beside = model.encoder.beside(lesson.view, model.inputs) if hasattr(model.encoder, "beside") else 0.0
    return beside + _foresight(model, lesson, users, items, recipe, dice)


def _foresight(
    model: Model, lesson: Lesson, users: Tensor, items: Tensor, recipe: Recipe, dice: torch.Generator
) -> Tensor:
    scores = model.scores(lesson.view, lesson.users, users[lesson.users], items)
    positive = scores[lesson.row, lesson.item]
    if recipe.negatives == "all":
        total = torch.logsumexp(scores.masked_fill(~lesson.live, -inf), 1)[lesson.row]
        return ((total - positive) * lesson.weight).sum() / len(lesson.users)

    def score(rows: Tensor, found: Tensor) -> Tensor:
        return scores[lesson.row[rows, None], found]

    catalogue = Catalogue.build(lesson.row, lesson.item, lesson.live, lesson.weight)
    draw = NEGATIVES[recipe.negatives]
    drawn = draw(catalogue, lesson.row, lesson.item, recipe.negative_count, dice, score)
    negative = drawn.masked(scores[lesson.row[:, None], drawn.item.clamp(min=0)])
    return LOSSES[recipe.loss](positive, negative, lesson.weight, drawn.log_q, lesson.row)


def _popularity(view: View) -> Tensor:
    """log(1 + Σ weight), by the view's clock: float32 [I]."""
    return popularity_scores(view.graph, view.clock.half_life_days).log1p()


def _own(view: View, users: Tensor) -> Tensor:
    """log(1 + Σ weight) of each of the users' own pairs, by the view's clock: float32 [B, I]."""
    graph = view.graph
    row, event = user_events(graph, users)
    events = graph.interactions
    weight = events.strength[event] * decay(events.age_days[event], view.clock.half_life_days)
    pairs = torch.zeros(len(users) * graph.item_count, device=weight.device)
    pairs.index_add_(0, row * graph.item_count + events.item_index[event], weight)
    return pairs.log1p_().view(len(users), graph.item_count)
