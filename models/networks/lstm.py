"""An LSTM over sequences of any lengths, each read to its own end (Hochreiter and Schmidhuber 1997)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.propagation import offsets

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


def last_states(gates: Tensor, again: Tensor, bias: Tensor, sequences: Sequences) -> Tensor:
    """h after each sequence's last element: i, f, o = σ(W x + U h + b), g = tanh(W x + U h + b), c ← f c + i g, h = o tanh c.

    gates: W x of every element, rows as i, f, g, o, float32 [E, 4 D]; again: U [4 D, D]; bias: b [4 D] → [S, D].
    """
    return _Read.apply(gates, again, bias, sequences.sizes)  # pyright: ignore[reportReturnType]


class _Read(torch.autograd.Function):
    """The first step of a sequence has no h, so no product; what is kept is i, f, g, o, c and h."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, again: Tensor, bias: Tensor, sizes: tuple[tuple[int, ...], ...]) -> Tensor:
        width, start, last, kept = again.shape[1], 0, [], []
        for steps in sizes:
            part = gates[start : start + sum(steps)] + bias
            cells, states = [], []
            for size, mine in zip(steps, part.split(steps), strict=True):
                if states:
                    mine.addmm_(states[-1][:size], again.T)
                mine[:, : 2 * width].sigmoid_()
                mine[:, 2 * width : 3 * width].tanh_()
                mine[:, 3 * width :].sigmoid_()
                i, f, g, o = mine.split(width, 1)
                cells.append(torch.addcmul(i * g, f, cells[-1][:size]) if cells else i * g)
                states.append(cells[-1].tanh().mul_(o))
            ends = [*steps[1:], 0]
            last += [states[place][end:] for place, end in reversed(list(enumerate(ends)))]
            kept += [part, torch.cat(cells), torch.cat(states)]
            start += len(part)
        ctx.save_for_backward(again, *kept)
        ctx.sizes = sizes
        return torch.cat(last) if last else gates.new_zeros(0, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        again, *kept = ctx.saved_tensors
        parts = list(zip(ctx.sizes, kept[::3], kept[1::3], kept[2::3], strict=True))
        slope = again.new_empty(sum(len(part) for _, part, _, _ in parts), again.shape[0])
        of_again, start, first = torch.zeros_like(again), 0, 0
        for steps, part, cells, states in parts:
            of_last = gradients[0][first : first + steps[0]]
            _back(of_last, again, of_again, slope[start : start + len(part)], steps, part, cells, states)
            start, first = start + len(part), first + steps[0]
        return slope, of_again, slope.sum(0), None


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
