"""Points, the protocol of allocators, and what all of them ask of their options."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Point(NamedTuple):
    """What an option takes and what it costs."""

    rate: int  # bytes, 0 or more
    error: float  # finite, in any unit that the errors of all names share


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """One option for every name."""

    choice: dict[str, int]  # the option's place among those that the name was given
    rate: int  # bytes of all, at most the budget
    error: float  # what the allocator made small
    bound: float | None  # nothing within the budget has a lower error; None where the allocator does not know


class Allocator(Protocol):
    """Chooses one option for every name."""

    def choose(self, options: Mapping[str, Sequence[Point]], budget: int) -> Allocation:
        """options: what each name may take, in any order; those that are dominated are never chosen. budget: bytes.

        The same arguments give the same choice. Raises ValueError: no name, a name without options, a rate below 0, an
        error that is not finite, a budget below the sum of the smallest rates. Raises TypeError: rates or a budget that
        are no integers.
        """
        ...


def undominated(options: Mapping[str, Sequence[Point]], budget: int) -> dict[str, list[int]]:
    """The places of each name's options that none of no higher rate equals or beats, rates rising and errors falling.

    Raises what `Allocator.choose` raises.
    """
    if not options:
        raise ValueError("options are needed for one name or more")
    found: dict[str, list[int]] = {}
    for name, points in options.items():
        if not points:
            raise ValueError(f"{name} has no options")
        for rate, error in points:
            if operator.index(rate) < 0:
                raise ValueError(f"{name} has an option of {rate} bytes, rates are 0 or more")
            if not math.isfinite(error):
                raise ValueError(f"{name} has an option with an error of {error}, a finite one is needed")
        found[name] = []
        for place in sorted(range(len(points)), key=lambda place: (points[place][0], points[place][1], place)):
            if not found[name] or points[place][1] < points[found[name][-1]][1]:
                found[name].append(place)
    if (least := sum(options[name][places[0]][0] for name, places in found.items())) > operator.index(budget):
        raise ValueError(f"the budget is {budget} bytes, the smallest options take {least}")
    return found
