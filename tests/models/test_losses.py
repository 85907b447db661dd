"""Losses against hand computations, torch and PyG; negatives against what a user has and what is live."""

from __future__ import annotations

from functools import partial
from math import exp, inf, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from models.networks.losses import LOSSES, RATING_LOSSES, low_rank_hinge, ridge
from models.networks.negatives import NEGATIVES, Catalogue, Drawn, training_edges, weighted
from tests.models.tiny import tiny_graph

N, K, ITEMS = 6, 4, 12
ONES = torch.ones(N)
USER = torch.tensor([0, 0, 0, 1, 1, 2])


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scores() -> tuple[Tensor, Tensor]:
    return torch.randn(N, generator=dice(1)), torch.randn(N, K, generator=dice(2))


def softplus(x: float) -> float:
    return log(1 + exp(x))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_share_a_signature_fall_as_positives_rise_and_are_scaled_by_no_common_weight(name: str) -> None:
    positive, negative = scores()
    for tensor in (positive, negative):
        tensor.requires_grad_()
    weight = torch.tensor([1.0, 2.0, 3.0, 1.0, 1.0, 2.0])
    log_q = torch.full((N, 1 + K), -log(ITEMS))
    for rates in (None, log_q):
        loss = LOSSES[name](positive, negative, weight, rates, USER)
        assert loss.shape == () and loss.isfinite()
        rise, fall = torch.autograd.grad(loss, (positive, negative))
        assert rise.sum() < 0 and (fall >= 0).all() and fall.sum() > 0
        torch.testing.assert_close(LOSSES[name](positive, negative, 5 * weight, rates, USER), loss)


@pytest.mark.parametrize("name", LOSSES)
def test_a_missing_negative_is_as_if_it_had_not_been_asked_for(name: str) -> None:
    positive, negative = scores()
    log_q = torch.randn(N, 1 + K, generator=dice(3))
    missing = torch.cat([negative, torch.full((N, 2), -inf)], 1).requires_grad_()
    more_log_q = torch.cat([log_q, torch.randn(N, 2, generator=dice(4))], 1)
    for some, all_of_it in ((None, None), (log_q, more_log_q)):
        loss = LOSSES[name](positive, missing, ONES, all_of_it, USER)
        torch.testing.assert_close(loss, LOSSES[name](positive, negative, ONES, some, USER))
        assert torch.autograd.grad(loss, missing)[0].isfinite().all()
    alone = torch.full((N, K), -inf, requires_grad=True)
    assert LOSSES[name](positive, alone, ONES, log_q, USER).isfinite()


def test_bpr_is_that_of_pyg_and_of_a_hand() -> None:
    from torch_geometric.nn import LightGCN

    positive, negative = scores()
    with torch.random.fork_rng():
        peer = LightGCN(10, 8, 1)
    node = torch.arange(N)
    expected = peer.recommendation_loss(positive, negative[:, 0], node, lambda_reg=1e-2)
    found = LOSSES["bpr"](positive, negative[:, :1], ONES) + 1e-2 * ridge(peer.embedding.weight[node])
    torch.testing.assert_close(found, expected)
    one = LOSSES["bpr"](torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 2.0], [0.5, -inf]]), torch.tensor([1.0, 3.0]))
    assert float(one) == pytest.approx(((softplus(-1) + softplus(1)) / 2 + 3 * softplus(0.5)) / 4)


def test_bpr_by_user_counts_every_user_alike() -> None:
    positive, negative = scores()
    per_user = []
    for user in range(3):
        mine = torch.eq(USER, user)
        margins = positive[mine][:, None] - negative[mine]
        per_user.append(-functional.logsigmoid(margins).sum() / (int(mine.sum()) * K))
    found = LOSSES["bpr_by_user"](positive, negative, ONES, None, USER)
    torch.testing.assert_close(found, torch.stack(per_user).mean())
    with pytest.raises(ValueError, match="pass user"):
        LOSSES["bpr_by_user"](positive, negative, ONES)


def test_softmax_is_cross_entropy_and_nce_its_formula() -> None:
    positive, negative = scores()
    logits = torch.cat([positive[:, None], negative], 1)
    expected = functional.cross_entropy(logits, torch.zeros(N, dtype=torch.int64))
    torch.testing.assert_close(LOSSES["softmax"](positive, negative, ONES), expected)
    by_hand = -(positive.sigmoid().log() + (-negative).sigmoid().log().sum(1)).mean()
    torch.testing.assert_close(LOSSES["nce"](positive, negative, ONES), by_hand)
    labels = torch.zeros(N, 1 + K).index_fill_(1, torch.tensor([0]), 1.0)
    expected = functional.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(LOSSES["bce"](positive, negative, ONES), expected)


def test_nce_with_log_q_takes_k_times_the_noise_from_both() -> None:
    positive, negative, log_q = torch.tensor([0.3]), torch.tensor([[0.1, -0.2]]), torch.tensor([[-1.0, -2.0, -3.0]])
    by_hand = softplus(-(0.3 - log(2) + 1)) + softplus(0.1 - log(2) + 2) + softplus(-0.2 - log(2) + 3)
    assert float(LOSSES["nce"](positive, negative, torch.ones(1), log_q)) == pytest.approx(by_hand, abs=1e-6)


def test_triplet_is_that_of_torch_on_minus_distances_and_margin_ranks_cosines() -> None:
    anchor, wanted, other = torch.randn(3, N, 5, generator=dice())
    expected = functional.triplet_margin_loss(anchor, wanted, other, margin=1.0, eps=0.0)
    distances = -(anchor - wanted).norm(dim=1), -(anchor - other).norm(dim=1, keepdim=True)
    torch.testing.assert_close(LOSSES["triplet"](*distances, ONES), expected)
    cosines = functional.cosine_similarity(anchor, wanted), functional.cosine_similarity(anchor, other)
    expected = functional.margin_ranking_loss(*cosines, torch.ones(N), margin=0.2)
    torch.testing.assert_close(LOSSES["margin"](cosines[0], cosines[1][:, None], ONES), expected)


def test_low_rank_positives_stand_under_high_ones_of_their_user_only() -> None:
    """User 0 has weights 3, 1, 1; user 1 has 2, 2; so only two pairs are ordered."""
    weight = torch.tensor([1.0, 3.0, 1.0, 2.0, 2.0, 9.0])
    positive = torch.tensor([0.5, 0.45, 0.1, 0.9, 0.2, -0.9])
    loss = low_rank_hinge(positive, torch.full((N, 1), -inf), weight, None, USER, margin=0.3, low_margin=0.1)
    assert float(loss) == pytest.approx((0.1 - 0.45 + 0.5) / 2)
    above = low_rank_hinge(positive, torch.full((N, 1), 0.0), weight, None, USER, margin=0.3, low_margin=0.1)
    assert float(above - loss) == pytest.approx((0.2 + 0.1 + 1.2) / 6)


def test_graph_reconstruction_is_that_of_pyg() -> None:
    from torch_geometric.nn import GAE

    vectors = torch.randn(8, 4, generator=dice())
    linked, unlinked = torch.randint(0, 8, (2, 2, N), generator=dice())
    expected = GAE(torch.nn.Identity()).recon_loss(vectors, linked, unlinked)
    products = [(vectors[source] * vectors[target]).sum(1) for source, target in (linked, unlinked)]
    found = LOSSES["reconstruction"](products[0], products[1].view(3, 2).repeat(2, 1), ONES)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_rating_losses_are_those_of_torch_and_weights_repeat_rows() -> None:
    score, target = torch.randn(N, generator=dice()), torch.rand(N, generator=dice(1))
    peers = {
        "mse": functional.mse_loss,
        "smooth_l1": functional.smooth_l1_loss,
        "bce": functional.binary_cross_entropy_with_logits,
    }
    assert peers.keys() == RATING_LOSSES.keys()
    times = torch.tensor([1, 3, 1, 2, 1, 1])
    for name, peer in peers.items():
        torch.testing.assert_close(RATING_LOSSES[name](score, target, ONES), peer(score, target))
        repeated = peer(score.repeat_interleave(times), target.repeat_interleave(times))
        torch.testing.assert_close(RATING_LOSSES[name](score, target, times.float()), repeated)


def shop() -> tuple[Catalogue, Tensor, Tensor]:
    """Users 0-4 and items 0-11, of which 0 and 7 are dead and 11 never sold; item i sold more the smaller i."""
    pairs = [(user, item) for user in range(5) for item in range(11) if (user * 3 + item * item) % 4 < 2 - item // 6]
    user, item = torch.tensor(pairs).T
    live = torch.ones(ITEMS, dtype=torch.bool).index_fill_(0, torch.tensor([0, 7]), False)
    return Catalogue.build(user, item, live, weight=1.0 / (1 + item)), user, item


def fixed_scores(rows: Tensor, items: Tensor) -> Tensor:
    return torch.sin(rows[:, None] * 7.0 + items * 3.0)


def expected_odds(catalogue: Catalogue, user: Tensor, item: Tensor, beta: float) -> Tensor:
    """Of each row over all items, counted out: float64 [N, I]."""
    everything = torch.arange(ITEMS).expand(len(user), ITEMS)
    allowed = catalogue.live & ~catalogue.owns(user[:, None], everything) & (everything != item[:, None])
    odds = catalogue.popularity**beta * allowed
    return odds / odds.sum(1, keepdim=True)


@pytest.mark.parametrize("name", NEGATIVES)
@given(
    owned=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), max_size=25),
    batch=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), min_size=1, max_size=8),
    dead=st.sets(st.integers(0, 8), max_size=8),
    count=st.integers(1, 5),
)
@settings(deadline=None, max_examples=80)
def test_a_negative_is_live_and_none_of_the_users_own(
    name: str, owned: list[tuple[int, int]], batch: list[tuple[int, int]], dead: set[int], count: int
) -> None:
    live = torch.ones(9, dtype=torch.bool).index_fill_(0, torch.tensor(sorted(dead), dtype=torch.int64), False)
    pairs = torch.tensor(owned, dtype=torch.int64).reshape(-1, 2)
    user, item = torch.tensor(batch).T.contiguous()
    catalogue = Catalogue.build(pairs[:, 0], pairs[:, 1], live)
    found = NEGATIVES[name](catalogue, user, item, count, dice(), fixed_scores)
    assert found.item.shape == (len(batch), min(count, len(batch) - 1) if name == "in_batch" else count)
    for row, (who, what) in enumerate(batch):
        mine = {bought for buyer, bought in owned if buyer == who} | {what}
        drawn = {one for one in found.item[row].tolist() if one >= 0}
        assert drawn.isdisjoint(mine | dead)
        if name == "hard":
            assert len(drawn) == int((found.item[row] >= 0).sum())
        if name == "in_batch":
            assert drawn <= {other for _, other in batch}
    if found.log_q is not None:
        assert found.log_q.shape == (len(batch), 1 + found.item.shape[1])
        assert (found.log_q[:, 1:][found.item >= 0] <= 1e-6).all()
    masked = found.masked(torch.zeros(found.item.shape))
    assert torch.equal(masked == -inf, found.item < 0)


@pytest.mark.parametrize("beta", [0.0, 0.75, 1.0])
def test_negatives_have_the_odds_that_their_log_q_says(beta: float) -> None:
    """The last rows' positives are of the horizon to be foreseen: not yet in the catalogue, and no negatives either."""
    catalogue, user, item = shop()
    ahead = torch.tensor([(1, 2), (2, 1)])
    assert not catalogue.owns(*ahead.T).any()
    user, item = torch.cat([user, ahead[:, 0]]), torch.cat([item, ahead[:, 1]])
    found = weighted(catalogue, user, item, 20_000, dice(), beta=beta)
    expected = expected_odds(catalogue, user, item, beta)
    assert found.log_q is not None
    for row in range(len(user)):
        here = found.item[row] >= 0
        share = torch.bincount(found.item[row][here], minlength=ITEMS) / here.sum()
        torch.testing.assert_close(share.double(), expected[row], atol=0.015, rtol=0)
        told = found.log_q[row, 1:][here].double()
        torch.testing.assert_close(told, expected[row].log()[found.item[row][here]], atol=1e-5, rtol=0)


def test_a_user_who_has_all_that_ever_sold_gets_no_negatives_and_a_finite_loss() -> None:
    """User 4 lacks only item 9 of the live ones that sold, and that is the row's positive."""
    catalogue, _, _ = shop()
    user, item = torch.tensor([4, 1]), torch.tensor([9, 2])
    found = NEGATIVES["popularity"](catalogue, user, item, 5, dice())
    assert (found.item[0] == -1).all() and (found.item[1] >= 0).all()
    negative = found.masked(torch.zeros(2, 5)).requires_grad_()
    for name, loss in LOSSES.items():
        value = loss(torch.zeros(2), negative, torch.ones(2), found.log_q, user)
        assert value.isfinite(), name
        assert torch.autograd.grad(value, negative)[0].isfinite().all(), name


def test_negatives_from_the_batch_are_as_likely_as_they_sell() -> None:
    catalogue, user, item = shop()
    odds = expected_odds(catalogue, user, item, 1.0)
    sold = (1.0 / (1 + item)).double()
    rows = torch.multinomial(sold, 4000, replacement=True, generator=dice())
    found = NEGATIVES["in_batch"](catalogue, user[rows], item[rows], 60, dice())
    assert found.log_q is not None
    for one in (0, 9):
        mine = found.item[rows == one]
        share = torch.bincount(mine[mine >= 0], minlength=ITEMS) / (mine >= 0).sum()
        torch.testing.assert_close(share.double(), odds[one], atol=0.05, rtol=0)
        told = found.log_q[rows == one][:, 1:][mine >= 0]
        torch.testing.assert_close(told.double(), odds[one].log()[mine[mine >= 0]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["uniform", "popularity"])
def test_corrected_sampled_softmax_comes_to_the_whole_one(name: str) -> None:
    """Σ e^x over the drawn / (K q) is right on average, so with many draws the loss and its gradient are too."""
    catalogue, user, item = shop()
    logits = torch.randn(5, ITEMS, generator=dice(5)).requires_grad_()
    sold = catalogue.live & (catalogue.popularity > 0 if name == "popularity" else True)
    everything = torch.arange(ITEMS).expand(len(user), ITEMS)
    rival = sold & ~catalogue.owns(user[:, None], everything) | (everything == item[:, None])
    whole = (torch.logsumexp(logits[user].masked_fill(~rival, -inf), 1) - logits[user, item]).mean()
    found: Drawn = NEGATIVES[name](catalogue, user, item, 20_000, dice())
    negative = found.masked(logits[user[:, None], found.item.clamp(min=0)])
    loss = partial(LOSSES["softmax"], logits[user, item], negative, torch.ones(len(user)))
    torch.testing.assert_close(loss(found.log_q), whole, atol=0.01, rtol=0)
    assert abs((loss(None) - whole).item()) > 1
    slopes = [torch.autograd.grad(value, logits)[0] for value in (loss(found.log_q), whole)]
    torch.testing.assert_close(*slopes, atol=0.01, rtol=0)


def test_hard_negatives_are_the_highest_scored_of_what_is_left() -> None:
    catalogue, user, item = shop()
    found = NEGATIVES["hard"](catalogue, user, item, 2, dice(), fixed_scores, pool=2000)
    allowed = expected_odds(catalogue, user, item, 0.0) > 0
    best = fixed_scores(torch.arange(len(user)), torch.arange(ITEMS).expand(len(user), ITEMS))
    expected = best.masked_fill(~allowed, -inf).topk(2, dim=1).indices
    assert torch.equal(found.item, expected)
    with pytest.raises(ValueError, match="pass score"):
        NEGATIVES["hard"](catalogue, user, item, 2, dice())


def test_the_same_dice_draw_the_same_negatives_and_leave_the_global_state_alone() -> None:
    catalogue, user, item = shop()
    state = torch.get_rng_state()
    for draw in NEGATIVES.values():
        one, other = (draw(catalogue, user, item, 3, dice(9), fixed_scores).item for _ in range(2))
        assert torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


def test_a_shop_without_live_items_is_refused() -> None:
    with pytest.raises(ValueError, match="none of 3 items"):
        Catalogue.build(torch.tensor([0]), torch.tensor([1]), torch.zeros(3, dtype=torch.bool))


def test_only_events_of_the_named_types_are_trained_on() -> None:
    graph = tiny_graph([(0, 1, 3, 0), (0, 2, 3, 1), (1, 1, 5, 2)], event_types=("view", "click", "purchase"))
    assert training_edges(graph, ("click", "purchase")).interactions.event_type_index.tolist() == [1, 2]
    assert training_edges(graph, ()) is graph
    with pytest.raises(ValueError, match="no events of type buy; there are view, click, purchase"):
        training_edges(graph, ("buy",))
