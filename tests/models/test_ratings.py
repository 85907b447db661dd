"""Rating prediction: the Pearson graph against numpy, the filters against their polynomial, nothing learned from the test."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.nn import TAGConv

from models.graph import Interactions
from models.hops import Hop
from models.networks.filters import FilterBank, RatingFilter, fit, foresee, lesson, lessons
from models.networks.pearson import PearsonOptions, item_graph, pearson, rating_weights, shift_operator

USERS, ITEMS = 60, 12
OPTIONS = PearsonOptions(shrinkage=3.0, top_k=4)


def ratings(pairs: Tensor, stars: Tensor, ages: Tensor | None = None) -> Interactions:
    """Interactions of distinct pairs (int64 [E, 2]), all of yesterday and of New Year without ages."""
    ages = torch.ones(len(pairs)) if ages is None else ages
    nothing = torch.zeros(len(pairs))
    return Interactions(
        pairs[:, 0],
        pairs[:, 1],
        nothing.long(),
        ages.int(),
        stars.float(),
        (ages / 365.25) % 1,
        nothing,
        nothing.int() + 24,
    )


def random_ratings(seed: int, share: float = 0.5) -> Interactions:
    dice = torch.Generator().manual_seed(seed)
    pairs = torch.nonzero(torch.rand(USERS, ITEMS, generator=dice) < share)
    stars = torch.randint(1, 6, (len(pairs),), generator=dice)
    return ratings(pairs, stars, torch.randint(1, 700, (len(pairs),), generator=dice))


def two_tastes(seed: int) -> Interactions:
    """Users like one half of the items and not the other: 4.5 and 1.5 stars, and half a star of noise."""
    dice = torch.Generator().manual_seed(seed)
    pairs = torch.nonzero(torch.rand(200, ITEMS, generator=dice) < 0.6)
    liked = (pairs[:, 0] % 2) == (pairs[:, 1] % 2)
    noise = torch.randn(len(pairs), generator=dice) / 2
    return ratings(pairs, (torch.where(liked, 4.5, 1.5) + noise).clamp(1, 5))


def dense(shift: Hop) -> Tensor:
    return shift(torch.eye(len(shift.adjacency.row_offsets) - 1))


def table(of: Interactions, values: Tensor) -> np.ndarray:
    """[U, I], NaN where not rated."""
    cells = np.full((USERS, ITEMS), np.nan)
    cells[of.user_index, of.item_index] = values
    return cells


@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 0.9))
@settings(max_examples=25, deadline=None)
def test_the_correlation_of_two_items_is_that_of_their_common_users(seed: int, share: float) -> None:
    given_ratings = random_ratings(seed, share)
    found, co_rated = pearson(given_ratings, USERS, ITEMS)
    stars = table(given_ratings, given_ratings.strength)
    for one in range(ITEMS):
        for other in range(one):
            both = stars[~np.isnan(stars[:, one] + stars[:, other])][:, [one, other]]
            assert co_rated[one, other] == len(both)
            varied = len(both) > 1 and (np.ptp(both, axis=0) > 0).all()
            expected = np.corrcoef(both.T)[0, 1] if varied else 0.0
            assert found[one, other] == pytest.approx(expected, abs=1e-9)


def test_the_weighted_correlation_is_that_of_numpy_with_weights() -> None:
    given_ratings = random_ratings(1)
    weight = rating_weights(given_ratings, half_life_days=90.0, query_phase=0.3)
    found, _ = pearson(given_ratings, USERS, ITEMS, weight)
    stars, weights = table(given_ratings, given_ratings.strength), table(given_ratings, weight)
    for one, other in ((0, 1), (3, 7), (11, 2)):
        both = ~np.isnan(stars[:, one] + stars[:, other])
        shares = np.sqrt(weights[both, one] * weights[both, other])
        covariance = np.cov(stars[both][:, [one, other]].T, aweights=shares, ddof=0)
        expected = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        assert found[one, other] == pytest.approx(expected, abs=1e-9)


def test_an_infinite_half_life_is_no_decay_and_a_short_one_is() -> None:
    given_ratings = random_ratings(2)
    plain, same, young = (
        dense(item_graph(given_ratings, USERS, ITEMS, replace(OPTIONS, half_life_days=days)))
        for days in (OPTIONS.half_life_days, inf, 30.0)
    )
    unweighted = dense(shift_operator(*pearson(given_ratings, USERS, ITEMS), OPTIONS.shrinkage, OPTIONS.top_k))
    assert torch.equal(plain, same) and torch.equal(plain, unweighted)
    assert not torch.allclose(plain, young, atol=1e-2)


def test_ratings_all_older_by_a_half_life_correlate_alike_at_half_the_weight() -> None:
    given_ratings = random_ratings(3)
    older = replace(given_ratings, age_days=given_ratings.age_days + 60)
    (now, mass), (then, less) = (
        pearson(part, USERS, ITEMS, rating_weights(part, half_life_days=60.0)) for part in (given_ratings, older)
    )
    torch.testing.assert_close(now, then)
    torch.testing.assert_close(less, mass / 2)


def test_a_season_weighs_the_ratings_of_its_own_time_of_year() -> None:
    given_ratings = random_ratings(4)
    weight = rating_weights(given_ratings, query_phase=0.0)
    distance = torch.minimum(given_ratings.year_phase, 1 - given_ratings.year_phase)
    assert weight[distance < 0.02].min() > 0.95
    assert weight[distance > 0.45].max() < 0.001


def test_the_shift_is_symmetric_without_loops_and_of_norm_one() -> None:
    matrix = dense(item_graph(random_ratings(5), USERS, ITEMS, OPTIONS))
    assert torch.equal(matrix, matrix.T)
    assert not matrix.diagonal().any()
    assert torch.linalg.eigvalsh(matrix).abs().max() == pytest.approx(1, abs=1e-5)


def test_every_item_keeps_its_nearest_and_those_whose_nearest_it_is() -> None:
    correlation = torch.tensor([[1, 0.9, 0.2, 0.1], [0.9, 1, 0.3, 0.1], [0.2, 0.3, 1, -0.8], [0.1, 0.1, -0.8, 1]])
    kept = dense(shift_operator(correlation.double(), torch.ones(4, 4).double(), 0.0, 1))
    torch.testing.assert_close(
        kept, torch.tensor([[0, 0.9, 0, 0], [0.9, 0, 0, 0], [0, 0, 0, -0.8], [0, 0, -0.8, 0]]) / 0.9
    )


def test_few_common_users_say_less_than_many() -> None:
    correlation, co_rated = torch.full((3, 3), 0.5), torch.tensor([[9, 1, 3], [1, 9, 9], [3, 9, 9]])
    kept = dense(shift_operator(correlation.double(), co_rated.double(), 3.0, 3))
    assert kept[0, 1] / kept[1, 2] == pytest.approx((1 / 4) / (9 / 12))
    assert kept[0, 2] / kept[1, 2] == pytest.approx((3 / 6) / (9 / 12))


@pytest.mark.parametrize(("features", "features_out"), [(2, 5), (5, 2)])
def test_a_filter_bank_is_the_polynomial_of_the_shift(features: int, features_out: int) -> None:
    shift = item_graph(random_ratings(6), USERS, ITEMS, OPTIONS)
    bank = FilterBank(features, features_out, taps=5)
    torch.nn.init.ones_(bank.bias)
    x = torch.randn(ITEMS, 3, features, generator=torch.Generator().manual_seed(0))
    matrix = dense(shift)
    expected = bank.bias + sum(
        torch.einsum("ij,jbf,gf->ibg", torch.linalg.matrix_power(matrix, power), x, tap.weight)
        for power, tap in enumerate(bank.lins)
    )
    assert len(bank.lins) == 5
    torch.testing.assert_close(bank(x, shift), expected, rtol=1e-4, atol=1e-5)


def test_a_filter_bank_is_the_layer_of_pyg() -> None:
    bank, layer = FilterBank(5, 2, taps=4), TAGConv(5, 2, K=3, normalize=False)
    layer.load_state_dict(bank.state_dict())
    shift = item_graph(random_ratings(7), USERS, ITEMS, OPTIONS)
    edge_index = dense(shift).T.nonzero().T
    x = torch.randn(ITEMS, 1, 5, generator=torch.Generator().manual_seed(0))
    expected = layer(x[:, 0], edge_index, dense(shift).T[edge_index[0], edge_index[1]])
    torch.testing.assert_close(bank(x, shift)[:, 0], expected, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_items_in_another_order_get_the_same_ratings(seed: int) -> None:
    given_ratings, dice = random_ratings(seed), torch.Generator().manual_seed(seed)
    order = torch.randperm(ITEMS, generator=dice)
    correlation, co_rated = pearson(given_ratings, USERS, ITEMS)
    known = lesson(given_ratings, given_ratings, USERS, ITEMS, OPTIONS)
    moved = shift_operator(correlation[order][:, order], co_rated[order][:, order], OPTIONS.shrinkage, ITEMS)
    whole = shift_operator(correlation, co_rated, OPTIONS.shrinkage, ITEMS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = RatingFilter()
    everywhere, first = torch.arange(ITEMS), torch.zeros(ITEMS, dtype=torch.int64)
    stars = network(known.signals[:, :1], whole, everywhere, first)
    torch.testing.assert_close(network(known.signals[order, :1], moved, everywhere, first), stars[order])


def test_no_test_rating_changes_a_bit_of_graph_signals_or_expectation() -> None:
    given_ratings = random_ratings(8)
    asked = torch.rand(len(given_ratings.strength), generator=torch.Generator().manual_seed(0)) < 0.2
    known, hidden = given_ratings.where(~asked), given_ratings.where(asked)
    other = replace(hidden, strength=hidden.strength.flip(0), age_days=hidden.age_days + 5)
    one, two = (lesson(known, part, USERS, ITEMS, OPTIONS) for part in (hidden, other))
    assert torch.equal(one.shift.adjacency.column, two.shift.adjacency.column)
    assert torch.equal(one.shift.weight, two.shift.weight)
    assert torch.equal(one.signals, two.signals) and torch.equal(one.expected, two.expected)
    assert not torch.equal(one.stars, two.stars)


def test_no_lesson_asks_for_what_it_knows_and_all_ratings_are_asked_once() -> None:
    given_ratings = random_ratings(9)
    course = list(lessons(given_ratings, 4, 0, USERS, ITEMS, OPTIONS))
    for now in course:
        assert not now.signals[now.item_index, now.user_index].any()
        assert int(now.signals[..., 1].sum()) + len(now.stars) == len(given_ratings.strength)
    assert sum(len(now.stars) for now in course) == len(given_ratings.strength)


def test_filters_learn_two_tastes_that_a_mean_cannot() -> None:
    given_ratings = two_tastes(0)
    hidden = torch.rand(len(given_ratings.strength), generator=torch.Generator().manual_seed(1)) < 0.2
    known, asked = given_ratings.where(~hidden), given_ratings.where(hidden)
    learned = fit(RatingFilter, list(lessons(known, 5, 0, 200, ITEMS, OPTIONS)), seed=0, passes=15)
    found = foresee(learned, lesson(known, asked, 200, ITEMS, OPTIONS))
    mean = known.strength.mean()
    skill = 1 - (found - asked.strength).square().mean() / (mean - asked.strength).square().mean()
    assert skill > 0.8  # the noise leaves 0.1
    assert found.min() >= 1 and found.max() <= 5


def test_learning_twice_gives_the_same_bits_and_leaves_the_global_dice_alone() -> None:
    given_ratings = random_ratings(10)
    state = torch.get_rng_state()
    course = list(lessons(given_ratings, 2, 0, USERS, ITEMS, OPTIONS))
    one, other = (foresee(fit(RatingFilter, course, seed=3, passes=2), course[0]) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())
