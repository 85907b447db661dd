"""Top-K lists: exact, complete, in order, and without what the user has seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models import ranking
from models.lists import lists
from models.ranking import top_k
from tests.models.tiny import tiny_graph, with_items_known

USERS, ITEMS = 3, 6
LEVELS = st.sampled_from([-torch.inf, -2.5, -1.0, -0.0, 0.0, 1e-30, 1.0, 3e30])
SCORES = st.lists(st.lists(LEVELS, min_size=ITEMS, max_size=ITEMS), min_size=USERS, max_size=USERS)
EVENTS = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1), st.integers(1, 5)), min_size=1)


@dataclass(frozen=True)
class Table:
    """A ranker that reads its scores from a table."""

    table: Tensor
    name: str = "table"

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        return self.table[users]

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        return ["trend"] * len(items), torch.full_like(items, -1), torch.full_like(items, -1)


@given(
    SCORES, EVENTS, st.integers(1, 8), st.sampled_from(["for_you", "discover"]), st.booleans(), st.integers(0, ITEMS)
)
@settings(deadline=None)
def test_top_k_is_the_sorted_list_of_what_is_eligible(
    scores: list[list[float]], events: list[tuple[int, int, int]], k: int, list_name: str, repeats: bool, retired: int
) -> None:
    graph = with_items_known(tiny_graph(events, users=USERS, items=ITEMS))
    graph = replace(graph, item_retired_age_days=torch.where(torch.arange(ITEMS) == retired, 1, -1).int())
    items, values = top_k(Table(torch.tensor(scores)), graph, torch.arange(USERS), k, list_name, repeats)
    for user in range(USERS):
        seen = {item for other, item, _ in events if other == user} if list_name == "discover" or not repeats else set()
        eligible = [item for item in range(ITEMS) if item not in seen and item != retired]
        expected = sorted(eligible, key=lambda item: (-scores[user][item], item))[:k]
        found = [item for item in items[user].tolist() if item >= 0]
        assert found == expected
        assert (
            values[user, : len(found)].tolist()
            == torch.tensor(scores)[user, expected].clamp(min=ranking.LOWEST).tolist()
        )
        assert (items[user, len(found) :] == -1).all()


def test_chunks_of_users_change_nothing(monkeypatch) -> None:
    graph = with_items_known(tiny_graph([(0, 1, 1), (8, 3, 2)], users=9, items=ITEMS))
    ranker = Table(torch.randn(9, ITEMS).round())
    whole = top_k(ranker, graph, torch.arange(9), 4, "discover", True)
    monkeypatch.setattr(ranking, "CHUNK_SCORES", 2 * ITEMS)
    parts = top_k(ranker, graph, torch.arange(9), 4, "discover", True)
    assert torch.equal(whole[0], parts[0])
    assert torch.equal(whole[1], parts[1])


def test_an_item_not_yet_launched_is_on_no_list() -> None:
    graph = tiny_graph([(0, 0, 3), (1, 1, 3)], items=3)
    items, _ = top_k(Table(torch.tensor([[1.0, 2, 9], [1, 2, 9]])), graph, torch.arange(2), 3, "for_you", True)
    assert items.tolist() == [[1, 0, -1], [1, 0, -1]]


def test_every_user_gets_a_full_list_and_newcomers_that_of_their_segment() -> None:
    graph = tiny_graph([(0, 0, 3), (0, 1, 9), (2, 1, 2), (2, 2, 1), (3, 2, 1)], users=5)
    graph = replace(graph, user_segment=torch.tensor([0, 0, 1, 1, 1]))
    rows = lists(Table(torch.zeros(5, 3)), graph, 2, "for_you", repeats=True)
    assert rows.user_index.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert rows.rank.tolist() == [1, 2] * 5
    assert rows.item_index.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 2, 1]
    assert rows.ranker == ["table"] * 2 + ["segment_popularity"] * 2 + ["table"] * 4 + ["segment_popularity"] * 2
    assert rows.reason[2:4] == ["segment"] * 2
