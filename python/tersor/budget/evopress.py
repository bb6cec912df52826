"""Search by what a choice really costs in the end, where errors do not just add up. Page: docs/budget.md."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tersor.budget.allocation import Allocation, Allocator, undominated
from tersor.budget.dynamic_programming import DynamicProgramming

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tersor.budget.allocation import Point


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Where a search stands: dataclasses.asdict(it) is fit for JSON, Generation(**of that) goes on with it."""

    number: int  # 0 is the start
    choice: dict[str, int]  # the best so far, as in Allocation
    loss: float  # of the choice, by the last stage's samples


@dataclass(frozen=True, kw_only=True)
class EvoPress:
    """Evolutionary search on an end loss, which is `Allocation.error`. Sieberling et al., EvoPress, arXiv:2410.14649.

    loss: of a choice, by so many samples; the same for the same arguments, and comparable among choices by the same
    number of samples. Each of `generations` makes `offspring` of the best choice so far: one to three names, fewer more
    often, take their next larger option, others their next smaller ones until the budget holds, and what is left is
    filled. stages: pairs of samples and survivors: offspring are measured by the first number of samples, the best
    survive to be measured by the next; the one survivor of the last becomes the best if it beats it there.
    start: what chooses the first. So the result is never worse than the start's, by the last stage's samples.
    """

    loss: Callable[[Mapping[str, int], int], float]
    generations: int = 50
    offspring: int = 16
    stages: tuple[tuple[int, int], ...] = ((1, 4), (4, 1))
    seed: int = 0
    start: Allocator = field(default_factory=DynamicProgramming)

    def __post_init__(self) -> None:
        for name, value, least in ("generations", self.generations, 0), ("offspring", self.offspring, 1):
            if value < least:
                raise ValueError(f"{name} are {least} or more, not {value}")
        samples, survivors = ([stage[i] for stage in self.stages] for i in (0, 1))
        if not self.stages or min(samples) < 1 or sorted(set(samples)) != samples:
            raise ValueError(f"stages have rising numbers of samples from 1 on, not {samples}")
        if survivors[-1] != 1 or sorted(survivors, reverse=True) != survivors:
            raise ValueError(f"stages have falling numbers of survivors down to 1, not {survivors}")

    def choose(self, options: Mapping[str, Sequence[Point]], budget: int) -> Allocation:
        """See Allocator. Raises ValueError for a loss that is NaN, too."""
        for state in self.search(options, budget):
            last = state
        rate = sum(int(options[name][place][0]) for name, place in last.choice.items())
        return Allocation(choice=last.choice, rate=rate, error=last.loss, bound=None)

    def search(
        self, options: Mapping[str, Sequence[Point]], budget: int, state: Generation | None = None
    ) -> Iterator[Generation]:
        """Every generation as it is done, the start first. state: of a search of the same arguments; the generations
        behind it are what they would have been. Raises what `choose` raises, and ValueError for a state of others."""
        places = undominated(options, budget)
        rates = {name: [int(options[name][place][0]) for place in some] for name, some in places.items()}
        if state is None:
            choice = self.start.choose(options, budget).choice
            state = Generation(number=0, choice=choice, loss=self._measured(choice, self.stages[-1][0]))
            yield state
        levels = _levels(places, rates, state.choice, budget)
        while state.number < self.generations:
            number = state.number + 1
            chance = random.Random(f"{self.seed}/{number}")  # of its own, so that a state need not hold the generator's
            children: list[dict[str, int]] = []
            for _ in range(self.offspring):
                child = _switched(levels, rates, budget, chance)
                if child != levels and child not in children:
                    children.append(child)
            loss = math.inf
            for samples, survivors in self.stages:
                choices = [{name: places[name][level] for name, level in child.items()} for child in children]
                losses = [self._measured(choice, samples) for choice in choices]
                best = sorted(range(len(children)), key=losses.__getitem__)[:survivors]
                children = [children[i] for i in best]
                loss = losses[best[0]] if best else math.inf
            if loss < state.loss:
                levels = children[0]
                state = Generation(
                    number=number, choice={name: places[name][level] for name, level in levels.items()}, loss=loss
                )
            else:
                state = Generation(number=number, choice=state.choice, loss=state.loss)
            yield state

    def _measured(self, choice: Mapping[str, int], samples: int) -> float:
        loss = float(self.loss(choice, samples))
        if math.isnan(loss):
            raise ValueError(f"the loss is NaN for the choice {dict(choice)}")
        return loss


def _levels(
    places: dict[str, list[int]], rates: dict[str, list[int]], choice: Mapping[str, int], budget: int
) -> dict[str, int]:
    """The choice by places among the undominated options. Raises ValueError for one of other options."""
    if choice.keys() != places.keys():
        raise ValueError(f"the state chooses for {len(choice)} names, the options are of {len(places)} others")
    for name, place in choice.items():
        if place not in places[name]:
            raise ValueError(f"the state has option {place} for {name}, one of {places[name]} is needed")
    levels = {name: some.index(choice[name]) for name, some in places.items()}
    if (total := _total(levels, rates)) > budget:
        raise ValueError(f"the state takes {total} bytes, the budget is {budget}")
    return levels


def _switched(
    levels: dict[str, int], rates: dict[str, list[int]], budget: int, chance: random.Random
) -> dict[str, int]:
    """Others of nearly the same rate, the budget or less; no name is both raised and lowered."""
    child = dict(levels)
    left = budget - _total(child, rates)
    raised: set[str] = set()
    lowered: set[str] = set()

    def moved(name: str, by: int) -> int:
        """Bytes that it spares."""
        before = rates[name][child[name]]
        child[name] += by
        return before - rates[name][child[name]]

    for _ in range(min(chance.randint(1, 3), chance.randint(1, 3))):
        free = [name for name in rates if name not in lowered and child[name] + 1 < len(rates[name])]
        if not free:
            break
        name = chance.choice(free)
        raised.add(name)
        left += moved(name, 1)
        while left < 0:
            free = [name for name in rates if name not in raised and child[name] > 0]
            if not free:
                return dict(levels)
            name = chance.choice(free)
            lowered.add(name)
            left += moved(name, -1)
    for name in chance.sample(list(rates), len(rates)):
        while name not in lowered and child[name] + 1 < len(rates[name]):
            if rates[name][child[name] + 1] - rates[name][child[name]] > left:
                break
            left += moved(name, 1)
    return child


def _total(levels: dict[str, int], rates: dict[str, list[int]]) -> int:
    return sum(rates[name][level] for name, level in levels.items())
