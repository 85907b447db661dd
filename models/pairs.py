"""What the second stage reads about a user and an item: their history with each other, and what both are like."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.graph import Graph
from models.kernels import decay
from models.timeline import CONTEXT, EARLIER_YEARS, MOST_AGE_DAYS, RECENT, Snapshot

HALF_LIVES = (1, 4, 13, 52)  # in horizons, of the own events with an item
FRESH = 20.0  # log(1 + FRESH) is what one fresh event counts
NEW_HORIZONS = 4  # half-life of an item's being new
ITEM_PRIOR, USER_PRIOR = 20.0, 5.0  # pairs that an item or a user needs to show how readily it repeats
PART_OF_TREND = {RECENT: "trend", EARLIER_YEARS: "season", CONTEXT: "context"}
Columns = list[tuple[str, Tensor]]  # the part of the score that a column tells of, and its float32 [N]


@dataclass(frozen=True)
class Traits:
    """What users and items of one graph are like; without decay, all that depends on when is left out."""

    user: Tensor  # float32 [U, A]
    item: Tensor  # float32 [I, C]
    user_repeats: Tensor  # float32 [U], log of how readily a user repeats, relative to all
    item_repeats: Tensor  # float32 [I]
    user_breadth: Tensor  # float32 [U], log(1 + distinct items), minus its mean
    user_popularity: Tensor  # float32 [U], mean popularity of the user's items, minus its mean
    item_popularity: Tensor  # float32 [I], log(1 + buyers), minus its mean


def traits(graph: Graph, horizon_days: int, timed: bool) -> Traits:
    """Read from the graph's events alone. timed: with what depends on when they were."""
    events, users, items = graph.interactions, graph.user_count, graph.item_count
    ages = graph.oldest_days + 1
    # an item had twice on a day, in two types of event say, is no repeat
    day = torch.unique_consecutive((events.user_index * items + events.item_index) * ages + events.age_days)
    pair, count = torch.unique_consecutive(day // ages, return_counts=True)
    user, item, repeated = pair // items, pair % items, (count > 1).float()
    usual = repeated.mean().nan_to_num().clamp(1e-6, 1)
    breadth, buyers = (torch.bincount(index, minlength=size).float() for index, size in ((user, users), (item, items)))

    def readiness(index: Tensor, total: Tensor, prior: float) -> Tensor:
        again = torch.zeros_like(total).index_add_(0, index, repeated)
        return torch.log((again + prior * usual) / (total + prior) / usual)

    popularity = torch.log1p(buyers)
    liked = torch.zeros_like(breadth).index_add_(0, user, popularity[item]) / breadth.clamp(min=1)
    user_repeats, item_repeats = readiness(user, breadth, USER_PRIOR), readiness(item, buyers, ITEM_PRIOR)
    known = breadth > 0
    of_users, of_items = [torch.log1p(breadth), user_repeats, liked], [item_repeats]
    if timed:
        visitor = torch.unique(events.user_index * ages + events.age_days) // ages
        visits = torch.bincount(visitor, minlength=users).float()
        size = torch.bincount(events.user_index, minlength=users) / visits.clamp(min=1)
        last = torch.full_like(visits, ages).scatter_reduce(0, events.user_index, events.age_days.float(), "amin")
        of_users += [torch.log(last / horizon_days), torch.log1p(visits), torch.log1p(size)]
        age = graph.item_age_days.clamp(min=1).float()
        of_items += [torch.log(age.clamp(max=ages) / horizon_days), decay(age, NEW_HORIZONS * horizon_days)]
    breadth = torch.log1p(breadth)
    return Traits(
        user=torch.stack(of_users, dim=1),
        item=torch.stack(of_items, dim=1),
        user_repeats=user_repeats,
        item_repeats=item_repeats,
        user_breadth=breadth - breadth[known].mean().nan_to_num(),
        user_popularity=liked - liked[known].mean().nan_to_num(),
        item_popularity=popularity - popularity[graph.live_items].mean().nan_to_num(),
    )


def history_columns(
    snapshot: Snapshot, row: Tensor, item: Tensor, repeats: Tensor, traits: Traits, horizon_days: int, timed: bool
) -> Columns:
    """Of each pair, what the user's own events with the item tell; 0 without any.

    row, item: int64 [N], row being the position in snapshot.users; repeats: float32 [P], the first stage's, of the history's
    pairs.
    """
    history, items = snapshot.history, len(snapshot.live)
    known = history.pair_row * items + history.pair_item
    cell = row * items + item
    place = torch.searchsorted(known, cell).clamp(max=max(0, len(known) - 1))
    met = known[place] == cell if len(known) else torch.zeros_like(cell, dtype=torch.bool)
    pair = history.pair.long()
    day = torch.unique_consecutive(pair * MOST_AGE_DAYS + history.age_days.long())
    count = torch.bincount(day // MOST_AGE_DAYS, minlength=len(known)).float()
    columns = [torch.ones_like(count), torch.log(count), (count > 1).float(), repeats]
    if timed:
        last = torch.full_like(count, torch.inf).scatter_reduce(0, pair, history.age_days, "amin")
        first = torch.zeros_like(count).scatter_reduce(0, pair, history.age_days, "amax")
        rhythm = (first - last) / (count - 1).clamp(min=1)
        visit = torch.full((len(snapshot.users),), torch.inf, device=count.device)
        visit = visit.scatter_reduce(0, history.pair_row, last, "amin")
        columns += [torch.log1p(last / horizon_days), (last <= visit[history.pair_row]).float()]
        columns += [torch.where(count > 1, torch.log((last + 1) / (rhythm + 1)), 0)]  # how overdue it is
        for half_life in HALF_LIVES:
            memory = history.strength * decay(history.age_days, half_life * horizon_days)
            columns.append(torch.log1p(FRESH * torch.zeros_like(count).index_add_(0, pair, memory)))
    user, nothing = snapshot.users[history.pair_row], torch.zeros(len(row), device=row.device)
    columns += [traits.item_repeats[history.pair_item], traits.user_repeats[user], traits.user_breadth[user]]
    return [("repeat", torch.where(met, column[place], 0) if len(known) else nothing) for column in columns]


def shared_columns(snapshot: Snapshot, row: Tensor, item: Tensor, traits: Traits) -> Columns:
    """Of each pair, what the user, the item and its trend are like, whatever their history with each other."""
    user = snapshot.users[row]
    columns = [
        (PART_OF_TREND[part], trend[item])
        for part, trend in zip(snapshot.trend_part.tolist(), snapshot.trend.T, strict=True)
    ]
    columns += [("", trait[user]) for trait in traits.user.T]
    columns += [("", trait[item]) for trait in traits.item.T]
    popularity = traits.item_popularity[item]
    crossed = popularity, traits.user_popularity[user] * popularity, traits.user_breadth[user] * popularity
    return columns + [("trend", column) for column in crossed]
