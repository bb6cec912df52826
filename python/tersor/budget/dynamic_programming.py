"""The least sum of errors within a budget: the multiple-choice knapsack, by dynamic programming around its relaxation.

The relaxation lets a name take a mix of two options. Its price, in error a byte, bounds what any partial choice can
still become, and only those that can beat the relaxation's rounding are kept (Sinha and Zoltners, Operations Research
1979; Pisinger, European Journal of Operational Research 1995).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tersor.budget.allocation import Allocation, undominated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tersor.budget.allocation import Point

_CELLS = 1 << 24  # partial choices in all, some 8 bytes each


@dataclass(frozen=True, kw_only=True)
class DynamicProgramming:
    """The choice with the least sum of errors, which is `Allocation.error`; `bound` is the relaxation's.

    states: the sum is the least while no more partial choices than these need be kept at once, fewer of them for more
    than four thousand undecided names. Beyond that their rates are told apart by a quantum, one `states`-th of where
    they lie: of those within one quantum that of the best bound is kept. Rates are never rounded: a choice takes what
    it says, and what is left is filled. tolerance: a sum as close to the bound, as a share of it, is not searched on.
    """

    states: int = 1 << 12
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.states < 1:
            raise ValueError(f"states are 1 or more, not {self.states}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance is in [0, 1), not {self.tolerance}")

    def choose(self, options: Mapping[str, Sequence[Point]], budget: int) -> Allocation:
        """See Allocator. Errors may be negative."""
        places = undominated(options, budget)
        levels = [
            _Levels(np.array([options[name][i][0] for i in some]), np.array([options[name][i][1] for i in some], float))
            for name, some in places.items()
        ]
        relaxed = _relax(levels, budget)
        picks = min((relaxed.picks, self._searched(levels, relaxed, budget)), key=lambda some: _error(levels, some))
        error = _error(levels, picks)
        choice = {name: some[pick] for (name, some), pick in zip(places.items(), picks, strict=True)}
        return Allocation(
            choice=choice,
            rate=sum(int(options[name][i][0]) for name, i in choice.items()),
            error=error,
            bound=min(relaxed.bound, error),  # where they are equal, rounding may have it otherwise
        )

    def _searched(self, levels: list[_Levels], relaxed: _Relaxed, budget: int) -> list[int]:
        """Picks as good as the relaxation's or better."""
        gap = _error(levels, relaxed.picks) - relaxed.bound
        if gap <= self.tolerance * abs(relaxed.bound):
            return relaxed.picks
        # What a level costs above the best of its name when every byte is paid for; nothing above the gap can be in a
        # better choice. Names that have much to lose come first: they leave few partial choices.
        costs = [level.errors + relaxed.price * level.rates for level in levels]
        costs = [cost - cost.min() for cost in costs]
        kept = [np.flatnonzero(cost < gap) for cost in costs]
        picks = [int(cost.argmin()) for cost in costs]
        undecided = [item for item, some in enumerate(kept) if len(some) > 1]
        undecided.sort(key=lambda item: -np.partition(costs[item], 1)[1])
        room = budget - sum(int(level.rates[pick]) for level, pick in zip(levels, picks, strict=True))
        room += sum(int(levels[item].rates[picks[item]] - levels[item].rates[kept[item][0]]) for item in undecided)
        if room < 0:  # only choices beyond the budget are as good as the bound, and that by rounding
            return relaxed.picks
        most = max(1, min(self.states, _CELLS // max(1, len(undecided))))
        rates, cost = np.zeros(1, np.int64), np.zeros(1)  # of partial choices; rates above the smallest kept
        came: list[NDArray[np.int64]] = []
        for item in undecided:
            extra = levels[item].rates[kept[item]] - levels[item].rates[kept[item][0]]
            rates = (rates[:, None] + extra).ravel()
            cost = (cost[:, None] + costs[item][kept[item]]).ravel()
            found = np.flatnonzero((rates <= room) & (cost < gap))
            found = found[_worth_keeping(rates[found], cost[found], relaxed.price, most)]
            if not len(found):
                return relaxed.picks
            rates, cost = rates[found], cost[found]
            came.append(found)
        state = int(np.argmin(cost - relaxed.price * rates))
        for item, found in zip(reversed(undecided), reversed(came), strict=True):
            state, option = divmod(int(found[state]), len(kept[item]))
            picks[item] = int(kept[item][option])
        return _filled(levels, picks, budget)


def _worth_keeping(rates: NDArray[np.int64], cost: NDArray[np.float64], price: float, most: int) -> NDArray[np.intp]:
    """Places of the partial choices that no other of no higher rate equals or beats, `most` at most."""
    errors = cost - price * rates
    order: NDArray[np.intp] = np.lexsort((errors, rates))
    least = np.minimum.accumulate(errors[order])
    order = order[np.concatenate([[True], errors[order][1:] < least[:-1]])[: len(order)]]
    if len(order) <= most:
        return order
    first, last = int(rates[order[0]]), int(rates[order[-1]])
    quantum = -(-(last - first + 1) // most)
    steps = (rates[order] - first) // quantum
    best = np.lexsort((cost[order], steps))
    order = order[best[np.concatenate([[True], np.diff(steps[best]) > 0])]]
    return order


class _Levels(NamedTuple):
    """The undominated options of a name, rates rising and errors falling."""

    rates: NDArray[np.int64]
    errors: NDArray[np.float64]


class _Relaxed(NamedTuple):
    price: float  # error a byte
    bound: float
    picks: list[int]  # a level of every name, within the budget


def _relax(levels: list[_Levels], budget: int) -> _Relaxed:
    """Steps along convex hulls, those first that lower errors most a byte; the first without room gives the price."""
    steps = []
    for item, level in enumerate(levels):
        for before, after in itertools.pairwise(_hull(level)):
            gain = (level.errors[before] - level.errors[after]) / (level.rates[after] - level.rates[before])
            steps.append((float(gain), item, before, after))
    picks = [0] * len(levels)
    left = budget - sum(int(level.rates[0]) for level in levels)
    price = 0.0
    for gain, item, before, after in sorted(steps, key=lambda step: -step[0]):
        extra = int(levels[item].rates[after] - levels[item].rates[before])
        if picks[item] == before and extra <= left:
            picks[item], left = after, left - extra
        else:
            price = price or gain
    least = math.fsum(float((level.errors + price * level.rates).min()) for level in levels)
    return _Relaxed(price, least - price * budget, _filled(levels, picks, budget))


def _hull(level: _Levels) -> list[int]:
    """Places on the lower convex hull."""
    found: list[int] = []
    for place in range(len(level.rates)):
        while len(found) > 1:
            a, b = found[-2:]
            run, drop = level.rates[[b, place]] - level.rates[a], level.errors[a] - level.errors[[b, place]]
            if drop[0] * run[1] > drop[1] * run[0]:
                break
            found.pop()
        found.append(place)
    return found


def _filled(levels: list[_Levels], picks: list[int], budget: int) -> list[int]:
    """Picks raised where there is room, the most error a byte first. A level that has no room once never has it again:
    raising its name takes as much room as it spares."""
    left = budget - sum(int(level.rates[pick]) for level, pick in zip(levels, picks, strict=True))
    steps = []
    for item, (level, pick) in enumerate(zip(levels, picks, strict=True)):
        gains = (level.errors[pick] - level.errors[pick + 1 :]) / (level.rates[pick + 1 :] - level.rates[pick])
        steps += [(float(gain), item, pick + 1 + i) for i, gain in enumerate(gains)]
    raised = list(picks)
    for _, item, after in sorted(steps, key=lambda step: -step[0]):
        extra = int(levels[item].rates[after] - levels[item].rates[raised[item]])
        if 0 < extra <= left:
            raised[item], left = after, left - extra
    return raised


def _error(levels: list[_Levels], picks: list[int]) -> float:
    return math.fsum(float(level.errors[pick]) for level, pick in zip(levels, picks, strict=True))
