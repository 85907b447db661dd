"""What the network may be told: one frozen tree, every default in one place."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

DailyBaseline = Literal["popularity", "decayed_popularity", "personal_repeat", "repeat_trend", "item_knn", "ease"]
BaselineName = Literal[
    DailyBaseline,
    "recent_popularity",
    "seasonal_popularity",
    "graph_filter",
    "ials",
    "lightgcn",
    "bpr_mf",
    "time_mf",
    "sequence",
]
NetworkName = Literal[
    "gcn",
    "gat",
    "graphsage",
    "graphsage_max",
    "graphsage_lstm",
    "edge_sage",
    "lightgcn_ahead",
    "lightgcn_alpha",
    "ngcf",
    "pinsage",
    "rgcn",
    "han",
    "hgt",
    "kgat",
    "kgat_transe",
    "kgat_distmult",
    "kgat_rotate",
    "social_gcn",
    "ggnn",
    "mpnn",
    "tgn",
    "content_gnn",
    "sequence_gnn",
]
AblationName = Literal[
    "almanac without decay",
    "almanac with one half-life",
    "almanac with times shuffled",
    "almanac without phase",
    "almanac with phase shuffled",
    "almanac without graph",
    "almanac with random graph",
    "almanac without repeat",
    "almanac without hops",
    "almanac without calibration",
    "almanac without reranker",
]
RivalName = Literal[BaselineName, NetworkName]  # what may be judged beside the model, and served where it is better
ModelName = Literal["almanac", "published", RivalName, AblationName]
MODEL = "almanac"
DAILY: tuple[RivalName, ...] = get_args(DailyBaseline)  # judged unless told else: seconds each, yet hard to beat


class ModelSettings(BaseModel):
    """The network and its training; the defaults come from the holdouts of Online Retail II."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimension: int = Field(default=192, ge=2, description="numbers per embedding")
    half_lives_days: tuple[float, ...] = Field(
        default=(7.0, 30.0, 120.0), description="decays of the taste, in days; 'for ever' is added to several"
    )
    repeat_half_lives_days: tuple[float, ...] = Field(
        default=(7.0, 60.0), description="where the learned half-lives of repeats start, in days"
    )
    decay: bool = Field(default=True, description="off: an event counts the same whatever its age")
    phase: bool = Field(
        default=True, description="kernels of the time of year and week, seasons of items and of own events"
    )
    facts: bool = Field(default=True, description="hops to entities; the holdouts turn them off where they harm")
    friends: bool = Field(default=True, description="hop to linked users; the holdouts turn it off where it harms")
    context: bool = Field(default=True, description="how sales follow holidays, weather and other dated series")
    neighbour_count: int = Field(
        default=20, ge=0, description="items whose mean each item takes a share of; 0 = no such hop"
    )
    taste: bool = Field(default=True, description="off: no graph; repeat, trend and season alone")
    repeat: bool = Field(default=True, description="off: own events with an item lift it through the taste alone")
    random_graph: bool = Field(default=False, description="on: the taste sums up items of other users' events")
    calibration: bool = Field(
        default=True, description="each list's head learned again on the holdouts, with the item filter"
    )
    reranker: bool = Field(
        default=True, description="each list's best items ordered again by a small network learned on the holdouts"
    )
    epochs: int = Field(
        default=6, ge=1, description="most passes over the snapshots; the holdouts choose how many are made"
    )
    most_seconds: float | None = Field(
        default=None,
        gt=0,
        description="of trying epochs on the holdouts: none begins that would pass it; the choice then depends on the machine",
    )
    learning_rate: float = Field(default=5e-3, gt=0, description="of Adam, at the start of its cosine")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="share of the taste's components dropped in training")
    snapshot_every_days: int = Field(default=7, ge=1, description="days between the past dates trained on")
    snapshot_count: int = Field(default=90, ge=1, description="most past dates trained on, newest first")
    snapshot_half_life_days: float = Field(default=180.0, gt=0, description="days after which a past date counts half")
    seed: int = Field(default=0, description="of the start values, dropout and order")
