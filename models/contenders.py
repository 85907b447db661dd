"""Whatever can be named in a backtest, fitted on a graph as a daily run would fit it: the model, its ablations, baselines."""

from __future__ import annotations

from typing import Any

from models.ablations import ABLATIONS
from models.baselines import BASELINES
from models.evaluation import evaluate
from models.gate import decide
from models.graph import Graph
from models.network import learned_half_lives_days, served_lists, told
from models.network_ranker import NetworkRanker
from models.ranking import Ranker
from models.settings import DAILY, MODEL, ModelSettings
from models.training import fit

PUBLISHED = "published"  # what the gate would let through, list by list, without an incumbent
Options = dict[str, dict[str, Any]]  # baseline → list → option


def fitted(
    name: str, graph: Graph, horizon_days: int, repeats: bool, settings: ModelSettings, k: int, options: Options
) -> tuple[dict[str, Ranker], dict[str, Any]]:
    """A ranker for each served list, and what was chosen on the way, as plain values.

    Baselines take the option found for each list, else their first.
    """
    lists = served_lists(repeats)
    if name in BASELINES:
        return _baselines(dict.fromkeys(lists, name), graph, horizon_days, settings, options.get(name, {}))
    if name in ABLATIONS:
        settings, graph = ABLATIONS[name](settings, graph)
    judged = DAILY if name == PUBLISHED else ()
    evaluation = evaluate(graph, horizon_days, repeats, settings, k, baselines=judged)
    chosen = dict.fromkeys(lists, MODEL)
    if name == PUBLISHED:
        chosen = {list_name: decide(evaluation, list_name, None).ranker for list_name in lists}
    network = fit(graph, horizon_days, evaluation.settings, epochs=evaluation.epochs, lists=lists)
    network = network.finished(evaluation.finishes)
    ranker = NetworkRanker(network, graph)
    choice = {
        "rankers": chosen,
        "epochs": evaluation.epochs,
        "finishes": told(evaluation.finishes),
        "taste": network.log_temperature.exp().tolist(),
        "filter": network.filter_weight().tolist(),
        "facts": evaluation.settings.facts,
        "friends": evaluation.settings.friends,
        "half_lives_days": learned_half_lives_days(network),
    }
    others = {list_name: other for list_name, other in chosen.items() if other != MODEL}
    served = {list_name: evaluation.options[list_name][other] for list_name, other in others.items()}
    simple, _ = _baselines(others, graph, horizon_days, settings, served)
    return {list_name: simple.get(list_name, ranker) for list_name in lists}, choice


def _baselines(
    chosen: dict[str, Any], graph: Graph, horizon_days: int, settings: ModelSettings, options: dict[str, Any]
) -> tuple[dict[str, Ranker], dict[str, Any]]:
    """One fit for the lists that share model and option."""
    made: list[tuple[Any, Ranker]] = []
    rankers, used = {}, {}
    for list_name, name in chosen.items():
        option = options.get(list_name) or BASELINES[name].options[0]
        known = [ranker for key, ranker in made if key == (name, option)]
        ranker = known[0] if known else BASELINES[name].fit(graph, horizon_days, settings, option)(graph)
        made.append(((name, option), ranker))
        rankers[list_name], used[list_name] = ranker, option
    return rankers, used
