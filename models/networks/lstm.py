"""An LSTM over sequences of any lengths, each read to its own end (Hochreiter and Schmidhuber 1997)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.hops import Hop
from models.propagation import offsets, weighted_sums

TOGETHER = 512  # sequences that are read side by side, to stay in the processor's cache


@dataclass(frozen=True)
class Sequences:
    """Sequences from the longest to the shortest, some side by side: their first elements, their second ones, and so on."""

    owner: Tensor  # int64 [S], whose sequence it is
    order: Tensor  # int64 [E], where each element stood in what was given
    sizes: tuple[tuple[int, ...], ...]  # of each part: how many sequences have a first element, a second one, …; falls

    @classmethod
    def of(cls, owner: Tensor) -> Sequences:
        """Of elements sorted by owner, each owner's as they are to be read. owner: int64 [E]."""
        owners, sequence, count = torch.unique_consecutive(owner, return_inverse=True, return_counts=True)
        longest_first = torch.argsort(count, descending=True, stable=True)
        row = torch.argsort(longest_first)[sequence]
        place = torch.arange(len(owner), device=owner.device) - offsets(sequence, len(owners))[sequence]
        part, most = row // TOGETHER, int(count.max()) if len(owners) else 0
        order = torch.argsort((part * most + place) * TOGETHER + row % TOGETHER)
        many = torch.bincount(part * most + place, minlength=-(-len(owners) // TOGETHER) * most).view(-1, max(1, most))
        sizes = tuple(tuple(size for size in sizes if size) for sizes in many.tolist())
        return cls(owners[longest_first], order, sizes)


def last_states(told: Tensor, hop: Hop, again: Tensor, bias: Tensor, sequences: Sequences) -> Tensor:
    """h after each sequence's last element: i, f, o = σ(W x + U h + b), g = tanh(W x + U h + b), c ← f c + i g, h = o tanh c.

    told: what makes W x along the hop (elements in the order of the sequences ← nodes), rows as i, f, g, o, float32
    [V, 4 D]; again: U [4 D, D]; bias: b [4 D] → [S, D].
    """
    return _Read.apply(told, hop, again, bias, sequences.sizes)  # pyright: ignore[reportReturnType]


class _Read(torch.autograd.Function):
    """The first step of a sequence has no h, so no product; what is kept is i, f, g, o, c and h."""

    @staticmethod
    def forward(ctx: Any, told: Tensor, hop: Hop, again: Tensor, bias: Tensor, sizes: tuple[Any, ...]) -> Tensor:
        every, width, last = hop(told), again.shape[1], []
        cells, states = every.new_empty(2, len(every), width)
        for steps, *part in zip(sizes, *(_parts(kept, sizes) for kept in (every, cells, states)), strict=True):
            part[0].add_(bias)
            gates, cell, state = (kept.split(steps) for kept in part)
            for place, size in enumerate(steps):
                if place:
                    gates[place].addmm_(state[place - 1][:size], again.T)
                gates[place][:, : 2 * width].sigmoid_()
                gates[place][:, 2 * width : 3 * width].tanh_()
                gates[place][:, 3 * width :].sigmoid_()
                i, f, g, o = gates[place].split(width, 1)
                torch.mul(i, g, out=cell[place])
                if place:
                    cell[place].addcmul_(f, cell[place - 1][:size])
                torch.tanh(cell[place], out=state[place]).mul_(o)
            last += [state[place][end:] for place, end in reversed(list(enumerate([*steps[1:], 0])))]
        ctx.save_for_backward(again, every, cells, states)
        ctx.hop, ctx.sizes = hop, sizes
        return torch.cat(last) if last else every.new_zeros(0, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        again, *kept = ctx.saved_tensors
        slope, of_again = torch.empty_like(kept[0]), torch.zeros_like(again)
        of_last = gradients[0].split([steps[0] for steps in ctx.sizes])
        for steps, mine, *part in zip(
            ctx.sizes, of_last, *(_parts(every, ctx.sizes) for every in (slope, *kept)), strict=True
        ):
            _back(mine, again, of_again, part[0], steps, *part[1:])
        adjacency, weight = ctx.hop.adjacency, ctx.hop.weight
        of_told = weighted_sums(adjacency.row, adjacency.column_offsets, weight[adjacency.by_column], slope)
        return of_told, None, of_again, slope.T @ slope.new_ones(len(slope)), None


def _parts(every: Tensor, sizes: tuple[tuple[int, ...], ...]) -> tuple[Tensor, ...]:
    return every.split([sum(steps) for steps in sizes])


def _back(
    of_last: Tensor, again: Tensor, of_again: Tensor, slope: Tensor, steps: tuple[int, ...], *kept: Tensor
) -> None:
    """Fills the slope of a part's gates and adds to that of U."""
    width, of_state, of_cell = again.shape[1], of_last.clone(), torch.zeros_like(of_last)
    gates, cells, states = (every.split(steps) for every in kept)
    for place, at in reversed(list(enumerate(slope.split(steps)))):
        size = steps[place]
        i, f, g, o = gates[place].split(width, 1)
        above, inner, squashed = of_state[:size], of_cell[:size], cells[place].tanh()
        inner.add_((above * o).mul_(1 - squashed * squashed))
        torch.mul(above.mul(squashed), o - o * o, out=at[:, 3 * width :])
        torch.mul(inner * g, i - i * i, out=at[:, :width])
        torch.mul(inner * i, 1 - g * g, out=at[:, 2 * width : 3 * width])
        if place:
            before = cells[place - 1][:size]
            torch.mul(inner * before, f - f * f, out=at[:, width : 2 * width])
            of_again.addmm_(at.T, states[place - 1][:size])
            torch.mm(at, again, out=above)
            inner.mul_(f)
        else:
            at[:, width : 2 * width] = 0.0
