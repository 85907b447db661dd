"""The season of items: how the sales of earlier years rise and fall with the phase of the year."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from math import pi

import torch
from torch import Tensor

from models.graph import Graph
from models.kernels import YEAR_CONCENTRATION, phase_match, year_phase
from models.propagation import Adjacency, propagate

YEAR_DAYS = 365
PHASES = 366  # steps of the year
LATELY_DAYS = 28  # before a date: the phase that what sells now belongs to
CONCENTRATIONS = (YEAR_CONCENTRATION, 40.0)  # of the kernels: half the weight is left 31 and 11 days from the phase
PRIOR_EVENTS = 100.0  # an item needs about as many to show that it sells by the season unlike the shop
HARMONICS = 2  # of the year: a bump of some weeks shows in the second as well as in the first
NEW_AFTER_DAYS = 90  # repeats come soon after an event whatever the season, so they say nothing about it
ROUNDS = 3
LEAST_VARIANCE = 1e-3  # of an item whose life saw hardly any phase of the year


class SeasonalSales:
    """The sales of a graph's items by age and phase of the year, sorted once to be read as of any earlier date."""

    def __init__(self, graph: Graph, horizon_days: int) -> None:
        events = graph.interactions
        self.as_of, self.horizon_days, self.oldest_days = graph.as_of, horizon_days, graph.oldest_days
        self.item_age_days = graph.item_age_days.long()
        phase = year_step(events.year_phase)
        ages = graph.oldest_days + 1
        cell, count = torch.unique(
            (events.item_index * ages + events.age_days) * PHASES + phase, return_counts=True
        )  # sorted by item
        self.age_days, self.count = cell // PHASES % ages, count.float()
        self.by_item = Adjacency.build(cell // PHASES // ages, cell % PHASES, graph.item_count, PHASES)
        day, sold = torch.unique(events.age_days.long() * PHASES + phase, return_counts=True)
        self.by_age = Adjacency.build(day // PHASES, day % PHASES, ages, PHASES)
        self.sold = sold.float()

    def at(self, back_days: int) -> Tensor:
        """log of how much better each item sells in the coming phase of the year than in that of the last weeks.

        float32 [I, C], one column per kernel; 0 before there is a whole year. Over the last whole years, k(φ) is the mean of
        the kernel over the days of a phase, N the events of the item, n_φ = Σ k(φ) over them, p_φ the shop's mean k(φ) over the
        item's life and P_φ over all years. The rate in that phase relative to the shop's is the posterior mean

            r_φ = (n_φ + a P_φ) / (N p_φ + a P_φ)

        under a Gamma(a P_φ, a P_φ) prior, where a P_φ is at least 1, and the column is log r_coming − log r_lately.
        """
        years_days = (self.oldest_days - back_days) // YEAR_DAYS * YEAR_DAYS
        if years_days <= 0:
            return torch.zeros(len(self.item_age_days), len(CONCENTRATIONS), device=self.item_age_days.device)
        kernels = self._kernels(self.as_of - timedelta(days=back_days))
        values = torch.cat([kernels, torch.ones_like(kernels[:, :1])], dim=1)
        inside = (self.age_days > back_days) & (self.age_days <= back_days + years_days)
        own = propagate(self.by_item, self.count * inside, values)
        shop = propagate(self.by_age, self.sold, values)[back_days : back_days + years_days + 1].double()
        shop[0] = 0  # the day before the youngest
        shop = shop.cumsum(0)
        life = shop[(self.item_age_days - back_days).clamp(0, years_days)]
        expected = (own[:, -1:] * life[:, :-1] / life[:, -1:].clamp(min=1)).float()
        prior = (PRIOR_EVENTS * shop[-1, :-1] / shop[-1, -1].clamp(min=1)).clamp(min=1).float()
        coming, lately = torch.log((own[:, :-1] + prior) / (expected + prior)).chunk(2, dim=1)
        return coming - lately

    def _kernels(self, day: date) -> Tensor:
        """Means of each kernel over the coming days, then over the last ones, by step of the year: float32 [PHASES, 2 C]."""
        steps = torch.arange(PHASES, device=self.count.device) / 365.25
        periods = range(self.horizon_days), range(-LATELY_DAYS, 0)
        phases = [[year_phase(day + timedelta(days=ahead)) for ahead in period] for period in periods]
        means = [
            torch.stack([phase_match(steps, phase, concentration) for phase in period]).mean(0)
            for period in phases
            for concentration in CONCENTRATIONS
        ]
        return torch.stack(means, dim=1)


def year_step(phase: Tensor) -> Tensor:
    """The step of the year of a phase: int64, 0 to PHASES − 1."""
    return (phase * 365.25).round().long().clamp(0, PHASES - 1)


@dataclass(frozen=True)
class SeasonalItems:
    """Which items sell by the season, and how sure that is."""

    is_seasonal: Tensor  # bool [I]
    p_value: Tensor  # float64 [I], of no season of its own; 1 without sales
    peak_phase: Tensor  # float32 [I], 0 to 1 over the year, where the item's sales lie most above the shop's
    sales: Tensor  # int64 [I], that the item is judged by


def seasonal_items(graph: Graph, false_discovery: float = 0.05) -> SeasonalItems:
    """Items whose sales lie otherwise over the year than those of items without a season, within each item's life.

    Rao's score test of f(φ) ∝ exp(θ · x(φ)) against θ = 0, x the sines and cosines of the first harmonics: with z the sum
    of x over the item's n sales minus n times its mean in the shop, and V its covariance there, zᵀ V⁻¹ z / n is χ² with as
    many degrees of freedom as x has entries. For a single harmonic and an even shop it is Rayleigh's test (Mardia and
    Jupp 2000, "Directional Statistics", 6.3). Benjamini and Hochberg's procedure (1995) holds the expected share of false
    discoveries. The items found are left out of the shop, and the rest is judged again.
    """
    item, age, phase = _new_sales(graph)
    count, width = torch.bincount(item, minlength=graph.item_count), 2 * HARMONICS
    turns = 2 * pi * phase.double()[:, None] * torch.arange(1, HARMONICS + 1, device=phase.device)
    x = torch.cat([turns.cos(), turns.sin()], dim=1)
    moments = torch.cat([x, (x[:, :, None] * x[:, None]).flatten(1), torch.ones_like(x[:, :1])], dim=1)
    own = torch.zeros(graph.item_count, width, dtype=torch.float64, device=x.device).index_add_(0, item, x)
    born = graph.item_age_days.clamp(0, graph.oldest_days).long()
    retired = graph.item_retired_age_days.clamp(0, graph.oldest_days).long()
    p_value, is_seasonal = torch.ones_like(own[:, 0]), torch.zeros_like(count, dtype=torch.bool)
    z = own
    for _ in range(ROUNDS):
        by_age = moments.new_zeros(graph.oldest_days + 1, moments.shape[1])
        by_age.index_add_(0, age, moments * ~is_seasonal[item, None])
        life = by_age.cumsum(0)[born] - by_age.cumsum(0)[retired]
        life = life / life[:, -1:].clamp(min=1)
        mean, square = life[:, :width], life[:, width:-1].view(-1, width, width)
        covariance = square - mean[:, :, None] * mean[:, None] + LEAST_VARIANCE * torch.eye(width, device=x.device)
        z = own - count[:, None] * mean
        statistic = (z * torch.linalg.solve(covariance, z)).sum(1) / count.clamp(min=1)
        p_value = torch.special.gammaincc(torch.full_like(statistic, HARMONICS), statistic / 2)
        is_seasonal = _discoveries(p_value, false_discovery)
    return SeasonalItems(is_seasonal, p_value, _peak(z), count)


def _new_sales(graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
    """Item, age in days and phase of the year of the events whose pair had none in the days before."""
    events = graph.interactions
    pair, age = events.user_index * graph.item_count + events.item_index, events.age_days.long()
    is_new = torch.ones_like(pair, dtype=torch.bool)
    is_new[:-1] = (pair[1:] != pair[:-1]) | (age[1:] - age[:-1] > NEW_AFTER_DAYS)
    return events.item_index[is_new], age[is_new], events.year_phase[is_new]


def _discoveries(p_value: Tensor, false_discovery: float) -> Tensor:
    """bool [I]: the most p-values p_(1) ≤ … ≤ p_(k) with p_(k) ≤ k / I · false_discovery."""
    ascending, rank = p_value.sort().values, torch.arange(1, len(p_value) + 1, device=p_value.device)
    within = ascending[ascending <= rank / len(p_value) * false_discovery]
    return p_value <= (within[-1] if len(within) else -1.0)


def _peak(z: Tensor) -> Tensor:
    """The phase at which the harmonics z (float64 [I, 2 · HARMONICS]) are highest: float32 [I]."""
    steps = torch.arange(PHASES, device=z.device) / PHASES
    turns = 2 * pi * steps.double()[:, None] * torch.arange(1, HARMONICS + 1, device=z.device)
    return steps[(z @ torch.cat([turns.cos(), turns.sin()], dim=1).T).argmax(1)]
