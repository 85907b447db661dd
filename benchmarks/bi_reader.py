"""Builds a dashboard of recommendations in a running Apache Superset: `python -m benchmarks.bi_reader`.

Environment: SUPERSET_URL (default http://127.0.0.1:8088), SUPERSET_USER, SUPERSET_PASSWORD; READER_URL, how Superset
reaches the mirror (postgresql+psycopg2://reader:password@host/database); READER_USER_ID, whose list is shown (default
u000000, of the shop). Run again, it brings what it made up to date.
"""

from __future__ import annotations

import json
import os
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, OpenerDirector, Request, build_opener

Chart = dict[str, Any]
TITLE = "Almanac recommendations"
VIEWS = ("current_recommendations", "recommendations_history", "recommendation_changes", "latest_runs")
NEWEST_REACH = "select * from almanac.item_reach where as_of = (select max(as_of) from almanac.item_reach)"
COLOURS = {"entered": "#5AC189", "left": "#E04355", "moved": "#B2B2B2", "repeat": "#454E7C", "taste": "#1FA8C9"} | {
    "trend": "#FF7F44", "segment": "#FCC700", "fact": "#5AC189", "season": "#A868B7", "context": "#8FD3E4"
}  # fmt: skip
ROWS = (((0, 3), (1, 3), (2, 6)), ((3, 6), (4, 6)), ((5, 5), (6, 7)))  # chart and width in twelfths
HEIGHTS = (24, 44, 44)


class Superset:
    """A signed-in session with the REST API."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url
        self.opener: OpenerDirector = build_opener(HTTPCookieProcessor(CookieJar()))
        self.headers = {"Content-Type": "application/json", "Referer": url}
        given = {"username": user, "password": password, "provider": "db"}
        self.headers["Authorization"] = f"Bearer {self.call('POST', 'security/login', given)['access_token']}"
        self.headers["X-CSRFToken"] = self.call("GET", "security/csrf_token/")["result"]

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        try:
            with self.opener.open(Request(f"{self.url}/api/v1/{path}", data, self.headers, method=method)) as answer:
                return json.load(answer)
        except HTTPError as error:
            raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()[:1000]}") from None

    def keep(self, kind: str, field: str, body: dict[str, Any]) -> int:
        """Makes the object named by `field`, or changes the one of that name; returns its id."""
        rows = self.call("GET", f"{kind}/?q=(page_size:1000)")["result"]
        found = [row["id"] for row in rows if row[field] == body[field]]
        if not found:
            return self.call("POST", f"{kind}/", body)["id"]
        if kind == "dataset":
            self.call("PUT", f"dataset/{found[0]}/refresh")  # reads the columns again
        else:
            self.call("PUT", f"{kind}/{found[0]}", body)
        return found[0]


def keep_datasets(superset: Superset, url: str) -> dict[str, int]:
    """The connection, its views, and item_reach of the newest date; name → id."""
    database = superset.keep("database", "database_name", {"database_name": "Almanac", "sqlalchemy_uri": url})
    given = {"database": database, "schema": "almanac"}
    datasets = {view: superset.keep("dataset", "table_name", given | {"table_name": view}) for view in VIEWS}
    newest = given | {"table_name": "newest_reach", "sql": NEWEST_REACH}
    return datasets | {"newest_reach": superset.keep("dataset", "table_name", newest)}


def charts(user_id: str) -> list[Chart]:
    """Name, dataset and form of each chart, in the order of `ROWS`."""
    return [
        _number("The newest lists", "max(as_of)", "as_of in current_recommendations", time_format="%Y-%m-%d"),
        _number("Users with a list", "count(distinct user_id)", "in current_recommendations", y_axis_format=",d"),
        _table(
            "Runs behind the lists",
            "latest_runs",
            ["as_of", "for_you_model", "discover_model", "user_count", "item_count"],
            order_by_cols=['["as_of", false]'],
        ),
        _bars(
            "Most shown items of the list discover, by users reached",
            "newest_reach",
            ("item_id", "sum(users)", []),
            orientation="horizontal",
            x_axis_sort="sum(users)",
            row_limit=12,
            show_legend=False,
            adhoc_filters=[_where("list", "==", "discover")],
        ),
        _bars(
            "Why items are in for_you: rows per date and reason",
            "recommendations_history",
            (_expression("to_char(as_of, 'YYYY-MM-DD')", "date"), "count(*)", ["reason"]),
            x_axis_sort="date",
            stack="Stack",
            show_value=False,
            adhoc_filters=[_where("list", "==", "for_you")],
        ),
        _bars(
            "Entered, left, moved since the date before",
            "recommendation_changes",
            ("list", "count(*)", ["change"]),
        ),
        _table(
            f"current_recommendations: for_you of user {user_id}",
            "current_recommendations",
            ["as_of", "rank", "item_id", "score", "reason", "reason_item_id"],
            order_by_cols=['["rank", true]'],
            column_config={"score": {"d3NumberFormat": ".2f"}},
            adhoc_filters=[_where("list", "==", "for_you"), _where("user_id", "==", user_id), _where("rank", "<=", 8)],
        ),
    ]


def _number(name: str, metric: str, below: str, **form: Any) -> Chart:
    form |= {"metric": _expression(metric), "subheader": below, "header_font_size": 0.3, "subheader_font_size": 0.125}
    return {"name": name, "dataset": "current_recommendations", "viz_type": "big_number_total", "form": form}


def _table(name: str, dataset: str, columns: list[str], **form: Any) -> Chart:
    form |= {"query_mode": "raw", "all_columns": columns, "row_limit": 50, "table_timestamp_format": "%Y-%m-%d"}
    return {"name": name, "dataset": dataset, "viz_type": "table", "form": form | {"show_cell_bars": False}}


def _bars(name: str, dataset: str, what: tuple[str | dict[str, str], str, list[str]], **form: Any) -> Chart:
    """what: the axis, the metric, the columns that split it."""
    axis, metric, groups = what
    shown = {"orientation": "vertical", "show_value": True, "y_axis_format": ",d", "x_axis_sort_asc": True}
    asked = {"x_axis": axis, "metrics": [_expression(metric)], "groupby": groups, "row_limit": 1000}
    legend = {"show_legend": True, "legendType": "plain", "legendOrientation": "top", "rich_tooltip": True}
    return {
        "name": name,
        "dataset": dataset,
        "viz_type": "echarts_timeseries_bar",
        "form": shown | asked | legend | form,
    }


def _expression(sql: str, label: str | None = None) -> dict[str, str]:
    return {"expressionType": "SQL", "sqlExpression": sql, "label": label or sql}


def _where(column: str, operator: str, value: str | int) -> dict[str, Any]:
    return {"expressionType": "SIMPLE", "clause": "WHERE", "subject": column, "operator": operator, "comparator": value}


def keep_chart(superset: Superset, datasets: dict[str, int], chart: Chart) -> int:
    dataset = datasets[chart["dataset"]]
    form = {"datasource": f"{dataset}__table", "viz_type": chart["viz_type"]} | chart["form"]
    source = {"datasource_id": dataset, "datasource_type": "table", "params": json.dumps(form)}
    return superset.keep("chart", "slice_name", {"slice_name": chart["name"], "viz_type": chart["viz_type"]} | source)


def keep_dashboard(superset: Superset, names: list[str], ids: list[int]) -> int:
    """One dashboard with all charts, laid out as `ROWS`."""
    grid = {
        "type": "GRID",
        "id": "GRID_ID",
        "parents": ["ROOT_ID"],
        "children": [f"ROW-{row}" for row in range(len(ROWS))],
    }
    layout: dict[str, Any] = {
        "DASHBOARD_VERSION_KEY": "v2",
        "ROOT_ID": {"type": "ROOT", "id": "ROOT_ID", "children": ["GRID_ID"]},
        "GRID_ID": grid,
        "HEADER_ID": {"type": "HEADER", "id": "HEADER_ID", "meta": {"text": TITLE}},
    }
    for row, members in enumerate(ROWS):
        above = ["ROOT_ID", "GRID_ID"]
        children = [f"CHART-{at}" for at, _ in members]
        meta: dict[str, Any] = {"background": "BACKGROUND_TRANSPARENT"}
        layout[f"ROW-{row}"] = {"type": "ROW", "id": f"ROW-{row}", "children": children, "parents": above, "meta": meta}
        for at, width in members:
            meta = {"chartId": ids[at], "sliceName": names[at], "width": width, "height": HEIGHTS[row]}
            parents = [*above, f"ROW-{row}"]
            layout[f"CHART-{at}"] = {
                "type": "CHART",
                "id": f"CHART-{at}",
                "children": [],
                "parents": parents,
                "meta": meta,
            }
    shown = {"label_colors": COLOURS, "show_native_filters": False}
    body = {"dashboard_title": TITLE, "slug": "almanac", "published": True, "position_json": json.dumps(layout)}
    dashboard = superset.keep("dashboard", "dashboard_title", body | {"json_metadata": json.dumps(shown)})
    for chart in ids:
        superset.call("PUT", f"chart/{chart}", {"dashboards": [dashboard]})
    return dashboard


def main() -> None:
    url = os.environ.get("SUPERSET_URL", "http://127.0.0.1:8088")
    superset = Superset(url, os.environ["SUPERSET_USER"], os.environ["SUPERSET_PASSWORD"])
    datasets = keep_datasets(superset, os.environ["READER_URL"])
    wanted = charts(os.environ.get("READER_USER_ID", "u000000"))
    ids = [keep_chart(superset, datasets, chart) for chart in wanted]
    keep_dashboard(superset, [chart["name"] for chart in wanted], ids)
    print(f"{url}/superset/dashboard/almanac/")


if __name__ == "__main__":
    main()
