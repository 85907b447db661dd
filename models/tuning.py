"""The hyperparameters of a baseline, chosen on the holdouts before a graph's date, as the network's are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import optuna
import torch
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from models.baselines import BASELINES, Parameters, Refresh
from models.evaluation import Holdout, last_holdouts, metrics
from models.graph import Graph
from models.network import served_lists
from models.settings import ModelSettings

TRIALS = 12
SECONDS = 300.0
RANDOM_TRIALS = 4  # before the search draws on those made


@dataclass(frozen=True)
class Tuned:
    """What was best for each list, and the NDCG of it and of the default on the holdouts."""

    options: dict[str, Parameters]
    ndcg: dict[str, float]
    default_ndcg: dict[str, float]
    trials: int  # made; fewer than asked for where the time ran out or the space is small


def tune(
    graph: Graph,
    horizon_days: int,
    repeats: bool,
    name: str,
    settings: ModelSettings,
    trials: int = TRIALS,
    seconds: float = SECONDS,
    seed: int = 0,
    k: int = 20,
) -> Tuned:
    """Tries the daily options of a baseline, then what a tree-structured Parzen estimator (arXiv 2304.11127) proposes.

    Each trial learns before the last four horizons and is worth its NDCG@k on them relative to the default's, summed over
    the lists; a list then takes the trial that is best for it, the first of equals. None is begun that would pass `seconds`
    if it were as slow as the slowest: how many were made is all that time decides.
    """
    baseline, lists = BASELINES[name], served_lists(repeats)
    default, space = baseline.default, baseline.space
    holdouts, back_days = last_holdouts(graph, horizon_days, lists[0], settings.seed)
    if not holdouts:
        nothing = dict.fromkeys(lists, 0.0)
        return Tuned(dict.fromkeys(lists, default), nothing, nothing, 0)
    before = graph.back(back_days)
    measured: dict[tuple[int, ...], dict[str, float]] = {}  # place of each parameter → list → NDCG

    def worth(trial: optuna.Trial) -> float:
        places = tuple(trial.suggest_int(name, 0, len(values) - 1) for name, values in space.items())
        if places not in measured:
            refresh = baseline.fit(before, horizon_days, settings, default | _at(places, space))
            measured[places] = {one: _ndcg(refresh, holdouts, one, k) for one in lists}
        first = next(iter(measured.values()))
        return sum(measured[places][one] / (first[one] or 1.0) for one in lists)

    def stop_in_time(study: optuna.Study, _: optuna.trial.FrozenTrial) -> None:
        made = study.get_trials(states=(TrialState.COMPLETE,))
        took = [trial.duration.total_seconds() for trial in made if trial.duration]
        if sum(took) + max(took) > seconds:
            study.stop()

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed))
    for option in baseline.options:
        study.enqueue_trial({name: values.index((default | option)[name]) for name, values in space.items()})
    study.optimize(worth, n_trials=trials, callbacks=[stop_in_time])
    best = {one: max(measured, key=lambda places, one=one: measured[places][one]) for one in lists}
    return Tuned(
        options={one: default | _at(places, space) for one, places in best.items()},
        ndcg={one: measured[places][one] for one, places in best.items()},
        default_ndcg=next(iter(measured.values())),
        trials=len(measured),
    )


def _at(places: Iterable[int], space: Mapping[str, tuple[float, ...]]) -> Parameters:
    return {name: values[place] for place, (name, values) in zip(places, space.items(), strict=True)}


def _ndcg(refresh: Refresh, holdouts: list[Holdout], list_name: str, k: int) -> float:
    """The mean over the users of all holdouts; 0 where none has anything to find."""
    values = [metrics(refresh(now.graph), now, list_name, k)["ndcg"] for now in holdouts]
    return float(torch.cat(values).double().mean().nan_to_num())
