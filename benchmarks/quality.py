"""NDCG@20 of the lists that `almanac run` publishes for Online Retail II at five development origins.

Run: python -m benchmarks.quality [DATE ...] (needs ALMANAC_DATA). Truth: distinct (user, item) of the seven days from the
origin on, of users and items with earlier events; for `discover` without the pairs seen before. Binary NDCG, ideal
min(20, |truth|), mean over users, then over origins. The truth is read from the source file, not from the warehouse.
"""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import date
from pathlib import Path

from flows.configuration import RunConfig
from flows.terminal import prepare_prefect
from tasks.warehouse import connect, scalar, set_variables

ORIGINS = ("2010-10-04", "2010-11-08", "2011-02-07", "2011-05-16", "2011-08-08")
LISTS = ("for_you", "discover")
EVENTS = """
    create temp table events as
    select distinct cast("Customer ID" as varchar) as user_id, upper(trim("StockCode")) as item_id,
        cast("InvoiceDate" as date) as event_date
    from read_parquet(getvariable('files'))
    where "Customer ID" is not null and "Invoice" not like 'C%' and "Quantity" > 0
        and regexp_matches(upper(trim("StockCode")), '^[0-9]{5}')
"""
NDCG = """
    with known as (from events where event_date < getvariable('origin')),
    truth as (
        select distinct user_id, item_id from events
        where event_date >= getvariable('origin') and event_date < getvariable('origin') + 7
            and user_id in (select user_id from known) and item_id in (select item_id from known)
            and (getvariable('list') = 'for_you'
                or (user_id, item_id) not in (select (user_id, item_id) from known))
    ),
    sizes as (select user_id, count(*) as size from truth group by user_id),
    gains as (
        select user_id, sum(1 / log2(rank + 1)) as gain from published join truth using (user_id, item_id)
        where list = getvariable('list') and rank <= 20 group by user_id
    )
    select avg(coalesce(gain, 0) / list_sum([1 / log2(rank + 1) for rank in range(1, least(20, size) + 1)]))
    from sizes left join gains using (user_id)
"""


def main(origins: tuple[str, ...]) -> None:
    """Publishes each origin into a home of its own and prints the table."""
    data = Path(os.environ["ALMANAC_DATA"]) / "online-retail-ii"
    print("| origin | for_you, all | discover, new | seconds |\n| --- | --- | --- | --- |")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prepare_prefect(Path(folder), verbose=False)
        from flows.daily import daily

        for origin in origins:
            home = Path(folder) / origin
            config = RunConfig(source="online-retail-ii", input=data, as_of=date.fromisoformat(origin), home=home)
            summary = daily(config)
            rows.append([*(ndcg(data, home, origin, name) for name in LISTS), sum(summary["seconds"].values())])
            print(f"| {origin} | {rows[-1][0]:.4f} | {rows[-1][1]:.4f} | {rows[-1][2]:.0f} |", flush=True)
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    print(f"| **mean** | **{means[0]:.4f}** | **{means[1]:.4f}** | {means[2]:.0f} |")


def ndcg(data: Path, home: Path, origin: str, list_name: str) -> float:
    """Mean NDCG@20 of one published list."""
    with connect() as judge:
        set_variables(judge, files=f"{data}/*.parquet", origin=date.fromisoformat(origin), list=list_name)
        judge.execute(EVENTS)
        judge.execute(f"create view published as from read_parquet('{home}/serving/recommendations/*/*.parquet')")
        return scalar(judge, NDCG)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or ORIGINS)
