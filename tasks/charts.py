"""The figures of a backtest's report, as plotly.js draws them, with what changes when the reader picks another measure.

A chart is a JSON-ready dict: data and layout for `Plotly.newPlot`, and `measures`: label → argument of `Plotly.restyle`.
Names are data: plotly reads a small HTML of its own in every text, so they are escaped here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from math import log10
from typing import Any

Row = dict[str, Any]
Chart = dict[str, Any]
Style = dict[str, Any]
escaped = partial(escape, quote=False)  # plotly knows &amp; &lt; and &gt;
METRICS = {
    "ndcg": "NDCG",
    "recall": "recall",
    "map": "MAP",
    "precision": "precision",
    "hit_rate": "hit rate",
    "mrr": "MRR",
}
HEADLINE = "NDCG@20"
OURS = "#1c7ed6"
OTHERS = ("#37b24d", "#ae3ec9", "#f08c00", "#0c8599", "#e64980", "#a0785a", "#74b816", "#868e96")  # on white and black
DASHES = ("solid", "dot", "dash")
AHEAD, BEHIND, UNSURE = OURS, "#e8590c", "#868e96"
TICKS = [digit * 10.0**power for power in range(-4, 6) for digit in (1, 2, 5)]  # seconds
SHOWN = 6  # curves drawn at first; the legend adds the others
FONT = "system-ui, sans-serif"
LAYOUT: dict[str, Any] = {
    "template": "none",
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": FONT, "size": 12},
    "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
    "hoverlabel": {
        "bgcolor": "#212529",
        "bordercolor": "#212529",
        "font": {"color": "#fff", "family": FONT},
        "align": "left",
    },
    "dragmode": False,  # a finger scrolls the page
}
AXIS: dict[str, Any] = {"automargin": True, "fixedrange": True}


def measure(row: Row) -> str:
    """The label of a row's metric and k, e.g. NDCG@20."""
    name: str = METRICS.get(row["metric"]) or row["metric"]
    return name if row["k"] is None else f"{name}@{row['k']}"


def curve(rows: list[Row], models: list[str], styles: dict[str, Style]) -> Chart:
    """Each model's value over the origins, one line per model; rows: of one horizon and list."""
    origins = sorted({row["as_of"] for row in rows})
    values = {(row["measure"], row["model"], row["as_of"]): round(row["value"], 4) for row in rows}

    def lines(label: str) -> dict[str, list]:
        return {"y": [[values.get((label, model, day)) for day in origins] for model in models]}

    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": escaped(model),
            "x": [day.isoformat() for day in origins],
            "line": {key: styles[model][key] for key in ("color", "dash", "width")},
            "marker": {"size": 5},
            "visible": True if place < SHOWN else "legendonly",
            "hovertemplate": "%{y:.3f}",
        }
        for place, model in enumerate(models)
    ]
    legend = {"orientation": "h", "x": 0, "y": -0.12, "yanchor": "top", "itemwidth": 30}
    axes = {"xaxis": AXIS | {"type": "date"}, "yaxis": AXIS | {"tickformat": ".3~f"}}
    height = 380 + 7 * len(models)
    return _chart(traces, {"height": height, "hovermode": "x unified", "legend": legend} | axes, lines, rows)


def forest(rows: list[Row], others: dict[str, str]) -> Chart:
    """How far the model is ahead of each other one, with both intervals; others: name → what the axis calls it."""
    found = {(row["measure"], row["against"]): row for row in rows}

    def points(label: str) -> dict[str, list]:
        mine = [found.get((label, other), {}) for other in others]
        changes: dict[str, list] = {
            key: [] for key in ("x", "text", "error_x.array", "error_x.arrayminus", "marker.color")
        }
        for kind in ("by_origin", "by_user"):
            changes["x"].append([round(row["difference"], 5) if row else None for row in mine])
            changes["text"].append([_told(row) for row in mine] if kind == "by_user" else "")
            changes["error_x.array"].append([_reach(row, f"{kind}_high") for row in mine])
            changes["error_x.arrayminus"].append([_reach(row, f"{kind}_low") for row in mine])
            changes["marker.color"].append([{1: AHEAD, -1: BEHIND, 0: UNSURE}[sign(row)] for row in mine])
        return changes

    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "y": [escaped(name) for name in others.values()],
            "error_x": {"type": "data", "symmetric": False, "color": UNSURE, "thickness": thickness, "width": width},
            "marker": {"size": 9},
            "opacity": opacity,
            "hoverinfo": "text",
        }
        for thickness, width, opacity in ((1.5, 5, 1), (6, 0, 0.8))
    ]
    axes = {
        "xaxis": AXIS
        | {"rangemode": "tozero", "zeroline": True, "zerolinewidth": 2, "tickformat": "+.3~f", "nticks": 7},
        "yaxis": AXIS | {"type": "category", "range": [len(others) - 0.5, -0.5], "ticklabelstandoff": 6},
    }
    layout = {"height": 60 + 30 * len(others), "hovermode": "closest", "showlegend": False}
    return _chart(traces, layout | axes, points, rows)


def cost(board: list[Row], scores: list[Row], styles: dict[str, Style]) -> Chart:
    """Quality against CPU seconds of a fit; a marker carries the model's rank and grows with its memory."""
    values = {(row["measure"], row["model"]): round(row["value"], 4) for row in scores}
    board = board[::-1]  # the best is drawn last, on top
    most = max((row["peak_mb"] or 0 for row in board), default=0) or 1

    def points(label: str) -> dict[str, list]:
        return {"y": [[values.get((label, row["model"])) for row in board]]}

    spent = [row["seconds"] for row in board]
    told = [f"{escaped(row['model'])}<br>{row['seconds']:.3g} s, {row['peak_mb'] or 0:,.0f} MB" for row in board]
    trace = {
        "type": "scatter",
        "mode": "markers+text",
        "x": spent,
        "text": [str(row["rank"]) for row in board],
        "hovertext": told,
        "hovertemplate": "%{hovertext}<br>%{y:.3f}<extra></extra>",
        "marker": {
            "size": [16 + 14 * ((row["peak_mb"] or 0) / most) ** 0.5 for row in board],
            "color": [styles[row["model"]]["color"] for row in board],
            "opacity": 0.9,
        },
        "cliponaxis": False,
    }
    low = max((tick for tick in TICKS if tick <= min(spent)), default=TICKS[0])
    high = min((tick for tick in TICKS if tick >= max(spent)), default=TICKS[-1])
    ticks = {"tickvals": TICKS, "tickformat": "~g", "range": [log10(low) - 0.05, log10(high) + 0.05]}
    axes = {
        "xaxis": AXIS | {"type": "log", "title": {"text": "CPU seconds of a fit"}} | ticks,
        "yaxis": AXIS | {"tickformat": ".3~f"},
    }
    return _chart([trace], {"height": 380, "hovermode": "closest", "showlegend": False} | axes, points, scores)


def styled(models: list[str], reference: str) -> dict[str, Style]:
    """A line style per model, the reference's own and strong; models: best first, any number of times."""
    others = [model for model in dict.fromkeys(models) if model != reference]
    styles: dict[str, Style] = {
        model: {
            "color": OTHERS[place % len(OTHERS)],
            "dash": DASHES[place // len(OTHERS) % len(DASHES)],
            "width": 1.8,
        }
        for place, model in enumerate(others)
    }
    return styles | {reference: {"color": OURS, "dash": "solid", "width": 3.5}}


def sign(row: Row) -> int:
    """1 where every known interval of a difference lies above 0, −1 where each lies below, else 0."""
    ends = [(row.get(f"{kind}_low"), row.get(f"{kind}_high")) for kind in ("by_user", "by_origin")]
    known = [(low, high) for low, high in ends if low is not None and high is not None]
    return int(bool(known)) * (all(low > 0 for low, _ in known) - all(high < 0 for _, high in known))


def signed(value: float | None, digits: int = 4) -> str:
    """A difference with its sign, a dash where there is none."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def interval(row: Row, kind: str) -> str:
    """`+0.012 to +0.034`, of a difference by_user or by_origin; empty where there is none."""
    low, high = row.get(f"{kind}_low"), row.get(f"{kind}_high")
    return "" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def _told(row: Row) -> str:
    if not row:
        return ""
    parts = [
        f"<b>{escaped(row['against'])}</b>: {signed(row['difference'])} ({row['value']:.4f} − {row['against_value']:.4f})"
    ]
    parts += [f"{kind.replace('_', ' ')}: {ends}" for kind in ("by_user", "by_origin") if (ends := interval(row, kind))]
    return "<br>".join(parts)


def _reach(row: Row, end: str) -> float | None:
    """Length of an error bar."""
    return None if row.get(end) is None else round(abs(row[end] - row["difference"]), 5)


def _chart(traces: list[dict], layout: dict[str, Any], drawn: Callable[[str], dict], rows: list[Row]) -> Chart:
    """Drawn for the headline measure; plotly.py checks that every property exists."""
    import plotly.graph_objects as go

    labels = sorted({row["measure"] for row in rows}, key=lambda label: (label != HEADLINE, label.lower()))
    measures = {label: drawn(label) for label in labels}
    figure: Any = go.Figure(traces, LAYOUT | layout)
    for key, values in measures[labels[0]].items() if labels else ():
        for trace, value in zip(figure.data, values, strict=True):
            trace.update({key.replace(".", "_"): value})
    return figure.to_plotly_json() | {"measures": measures}
