"""What knowing the season is worth where recency says little: rare items of Online Retail II, four weeks ahead.

Run: python -m benchmarks.rare_items [DATE ...] (needs ALMANAC_DATA; default: the Mondays of January 2011). List and truth
hold rare items only: known and sold at most five times in the last 60 days. One network per date and variant, trained on
what was known before it; "shuffled" hands each event's time of the year to another. `everybody` is one list for all
users, trend and season alone. Beside it stand lists that learn nothing: sales of the last four weeks; the same and half the
log of last year's coming four weeks; and the best such a list could be, the items in the order of their coming buyers.
Truth: what known users did in the 28 days from the date on, in `discover` for the first time. NDCG@20, mean over users,
dates pooled; intervals: 95 %, paired by user, one user's dates being one cluster.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from models.ablations import phase_shuffled
from models.graph import Graph
from models.metrics import ONE_SIDED_90, hits, ndcg, paired_difference
from models.network import LISTS
from models.network_ranker import NetworkRanker
from models.origin import Origin, strata
from models.ranking import Ranker, top_k
from models.settings import ModelSettings
from models.training import fit
from tasks.graph import load_graph
from tasks.ingest import land, load
from tasks.sources import load_source
from tasks.transform import build_graph, build_staging
from tasks.warehouse import open_warehouse

JANUARY = tuple(date(2011, 1, day).isoformat() for day in (3, 10, 17, 24, 31))
HORIZON_DAYS = 28
K = 20
EPOCHS = 2
VARIANTS = ("phase off", "phase on", "phase shuffled")  # the others are compared with the first
PLAIN = ("sales of 4 weeks", "and last year's", "sales known")  # lists for everybody that learn nothing
YEAR_DAYS = 364  # whole weeks
TWO_SIDED_95 = 1.96
Found = dict[tuple[str, str], dict[str, list[Tensor]]]  # (list, items) → variant or "users" → one tensor per date


@dataclass(frozen=True)
class Everybody:
    """The trend and season of a network, the same for all users."""

    name: str
    trend: Tensor  # float32 [I]

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I]."""
        return self.trend.repeat(len(users), 1)

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        """Nothing is listed with a reason here."""
        raise NotImplementedError


def main(days: tuple[str, ...]) -> None:
    """Prints one table for rare and one for all items, a row per date and one for all dates together."""
    torch.set_num_threads(1)
    dates = [date.fromisoformat(day) for day in days]
    graph = _graph(max(dates) + timedelta(days=HORIZON_DAYS))
    found: Found = {}
    for day in tqdm(dates, desc="origins", disable=None):
        _measure(graph, (graph.as_of - day).days, found)
    print("| list | items | dates | users | " + " | ".join((*VARIANTS, *PLAIN)) + " | on − off | shuffled − off |")
    print("| --- " * 12 + "|")
    for (list_name, items), columns in found.items():
        for number, day in enumerate([*dates, None]):
            chosen = {name: torch.cat(parts if day is None else [parts[number]]) for name, parts in columns.items()}
            off, *others = (chosen[variant] for variant in VARIANTS)
            cells = [f"{values.mean():.4f}" for values in (off, *others)]
            cells += [f"{chosen[plain].mean():.4f}" if plain in chosen else "" for plain in PLAIN]
            cells += [_difference(values, off, chosen["users"]) for values in others]
            print(f"| {list_name} | {items} | {day or 'all'} | {len(off):,} | {' | '.join(cells)} |")


def _graph(as_of: date) -> Graph:
    source = load_source("online-retail-ii")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        land(home, source, Path(os.environ["ALMANAC_DATA"]) / source.name, as_of)
        load(home, source, as_of, datetime.now(UTC), "benchmark")
        build_staging(home, source, as_of)
        build_graph(home, source, as_of)
        with open_warehouse(home) as warehouse:
            return load_graph(warehouse, as_of, tuple(source.event_strength))


def _measure(graph: Graph, back_days: int, found: Found) -> None:
    """Adds the NDCG of each user to what was found."""
    now, (user, item) = graph.back(back_days), graph.targets(HORIZON_DAYS, back_days)
    kept = torch.isin(user, now.interactions.user_index) & now.live_items[item]
    origin = Origin(now, HORIZON_DAYS, user[kept], item[kept])

    def listed(name: str, judged: str, variant: str, ranker: Ranker) -> None:
        for stratum in strata(origin, judged):
            if stratum.name in ("all", "rare items"):
                users = torch.unique(stratum.user)
                items, _ = top_k(ranker, now, users, K, judged, True, stratum.eligible)
                hit, count = hits(items, users, stratum.user, stratum.item, now.item_count)
                columns = found.setdefault((name, stratum.name.removesuffix(" items")), {})
                columns.setdefault(variant, []).append(ndcg(hit, count))
                if variant == VARIANTS[0]:
                    columns.setdefault("users", []).append(users)

    for variant in VARIANTS:
        seen = phase_shuffled(now) if variant == "phase shuffled" else now
        settings = ModelSettings(phase=variant != "phase off")
        network = fit(seen, HORIZON_DAYS, settings, epochs=EPOCHS)
        ranker = NetworkRanker(network, seen)
        listed("everybody", "for_you", variant, Everybody(variant, ranker.items.trend[LISTS.index("discover")]))
        for name in LISTS:
            listed(name, name, variant, ranker)
    for plain, scores in zip(PLAIN, _plain(origin), strict=True):
        listed("everybody", "for_you", plain, Everybody(plain, scores.masked_fill(~now.live_items, -torch.inf)))


def _plain(origin: Origin) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of the lists that learn nothing: float32 [I] each."""
    items, events = origin.graph.item_count, origin.graph.interactions

    def sold(youngest: int) -> Tensor:
        inside = (events.age_days > youngest) & (events.age_days <= youngest + HORIZON_DAYS)
        return torch.log1p(torch.bincount(events.item_index[inside], minlength=items).float())

    buyers = torch.bincount(origin.item, minlength=items).float()
    return sold(0), sold(0) + sold(YEAR_DAYS - HORIZON_DAYS) / 2, buyers


def _difference(values: Tensor, off: Tensor, users: Tensor) -> str:
    mean, bound = paired_difference(values, off, users)
    return f"{mean / off.mean():+.0%} ({mean:+.4f} ± {TWO_SIDED_95 * (mean - bound) / ONE_SIDED_90:.4f})"


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or JANUARY)
