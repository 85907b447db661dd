"""How sales follow dated series that are known before a date: moving holidays, weather, promotions."""

from __future__ import annotations

import torch
from torch import Tensor

from models.graph import Graph
from models.propagation import Adjacency, propagate

PRIOR_EVENTS = 5.0  # an item needs about as many events to show that it sells unlike the shop on some days
MOST_DAYS = 2**32  # apart are two days of one series


class ContextDays:
    """A graph's context and the sales of its items by day, sorted once to be read as of any earlier date.

    Days are numbered by their age at the graph's own date, from the end of that date's horizon to the oldest event.
    """

    def __init__(self, graph: Graph, horizon_days: int) -> None:
        context, events = graph.context, graph.interactions
        self.series_count, self.horizon_days, self.item_count = len(context.series), horizon_days, graph.item_count
        day = context.series_index * MOST_DAYS + context.day_age_days
        newest_first = torch.argsort(context.known_age_days, stable=True)
        order = newest_first[torch.argsort(day[newest_first], stable=True)]
        self.day, self.series = day[order], context.series_index[order]
        self.age_days, self.known_age_days = context.day_age_days[order].long(), context.known_age_days[order]
        self.value = context.value[order]
        self.day_age_days = torch.arange(1 - horizon_days, graph.oldest_days + 1, device=day.device)
        row, count = torch.unique(
            events.item_index * len(self.day_age_days) + self._position(events.age_days), return_counts=True
        )
        item, position = row // len(self.day_age_days), row % len(self.day_age_days)
        self.sales = Adjacency.build(item, position, graph.item_count, len(self.day_age_days))
        self.sold = count.float()
        self.sold_on = torch.bincount(self._position(events.age_days), minlength=len(self.day_age_days))
        self.known_from = self._position(graph.item_age_days).clamp(0, len(self.day_age_days) - 1)

    def at(self, back_days: int) -> Tensor:
        """log of how much better each item sells on days like the coming ones than on the average day of its life.

        float32 [I, F]. x in 0..1 is a series' value, p the shop's mean x over the item's life, X that of the coming days.
        From n events of the item, n_x = Σ x of their days, the rates relative to the shop's where x is 1 and 0 are

            r_1 = (n_x + a) / (n p + a),    r_0 = (n − n_x + a) / (n (1 − p) + a),

        the posterior means under a Gamma(a, a) prior, and the column is log (X r_1 + (1 − X) r_0) / (p r_1 + (1 − p) r_0).
        """
        x, weight = self._days(back_days)
        start = min(back_days, len(self.day_age_days) - self.horizon_days)  # before all events nothing is measured
        coming = slice(start, start + self.horizon_days)
        past = torch.cat([weight * x, weight]) * (self.day_age_days > back_days)
        sold_x, sold = propagate(self.sales, self.sold, past.T.float().contiguous()).chunk(2, dim=1)
        shop_x, shop = (past * self.sold_on).cumsum(1)[:, self.known_from].T.chunk(2, dim=1)
        p = (shop_x / shop.clamp(min=1)).float()
        given, x_given = weight[:, coming].mean(1), (weight * x)[:, coming].mean(1)
        ahead = x_given.float() + (1 - given.float()) * p  # a day of which nothing is known is as any other
        r_1 = (sold_x + PRIOR_EVENTS) / (sold * p + PRIOR_EVENTS)
        r_0 = (sold - sold_x + PRIOR_EVENTS) / (sold * (1 - p) + PRIOR_EVENTS)
        return torch.log((ahead * r_1 + (1 - ahead) * r_0) / (p * r_1 + (1 - p) * r_0))

    def _days(self, back_days: int) -> tuple[Tensor, Tensor]:
        """Each series' x by day, in 0..1 between its least and greatest value, and 1 for days to reckon with: float64 [F, D].

        A day counts by its newest version known before the date. A series that names fewer than half of its days is 0 on
        the others since its first (no holiday, no promotion); any other says nothing about days it leaves out.
        """
        known = self.known_age_days > back_days
        day, series, age, value = self.day[known], self.series[known], self.age_days[known], self.value[known]
        newest = torch.ones_like(day, dtype=torch.bool)
        newest[1:] = day[1:] != day[:-1]
        series, age, value = series[newest], age[newest], value[newest]

        def extreme(start: float, values: Tensor, which: str) -> Tensor:
            begin = torch.full((self.series_count,), start, dtype=values.dtype, device=values.device)
            return begin.scatter_reduce(0, series, values, which)

        first, last = extreme(back_days + 1, age, "amax"), extreme(back_days + 1, age, "amin")
        is_sparse = 2 * torch.bincount(series, minlength=self.series_count) < first - last + 1
        low, high = extreme(torch.inf, value, "amin"), extreme(-torch.inf, value, "amax")
        low = torch.where(is_sparse, low.clamp(max=0), low)
        span = torch.where(is_sparse, high.clamp(min=0), high) - low
        x = ((value - low[series]) / span[series]).nan_to_num()
        otherwise = torch.where(is_sparse, -low / span, 0).nan_to_num()
        grid = otherwise[:, None].repeat(1, len(self.day_age_days))
        weight = (is_sparse[:, None] & (self.day_age_days <= first[:, None])).double()
        inside = (age >= self.day_age_days[0]) & (age <= self.day_age_days[-1])
        cell = series[inside], self._position(age[inside])
        return grid.index_put(cell, x[inside]), weight.index_put(cell, torch.ones_like(x[inside]))

    def _position(self, age_days: Tensor) -> Tensor:
        """Of a day in the numbering."""
        return (age_days + (self.horizon_days - 1)).long()
