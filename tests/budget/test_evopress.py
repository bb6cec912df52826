"""Evolutionary search on losses that do not add up: better than sums of errors, the same wherever it is resumed."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

from tersor.budget import DynamicProgramming, EvoPress, Generation, Point

COUNT = 24


@pytest.fixture
def options():
    random = np.random.default_rng(5)
    sizes, weights = random.integers(1, 5, COUNT) * 1000, np.exp(random.normal(0, 1, COUNT))
    return {
        f"block {i}": [Point(int(size) * bit, float(weight * 4.0**-bit)) for bit in (2, 3, 4, 5, 6, 8)]
        for i, (size, weight) in enumerate(zip(sizes, weights, strict=True))
    }


@pytest.fixture
def loss(options):
    """Of two neighbors the larger error hides the other, and few samples are noisy: a sum of errors knows neither."""

    def loss(choice, samples):
        errors = [points[choice[name]].error for name, points in options.items()]
        together = sum(max(pair) for pair in zip(errors[::2], errors[1::2], strict=True))
        noise = np.random.default_rng([samples, *choice.values()]).normal()
        return together * (1 + 0.02 * noise / samples)

    return loss


def settings(loss, **changed):
    return EvoPress(**{"loss": loss, "generations": 60, "offspring": 12, "stages": ((4, 4), (1000, 1))} | changed)


def test_it_beats_additive_errors_where_they_do_not_add_up(options, loss):
    """Most of the way from the sum's choice to the best, which dynamic programming finds if it is told of the pairs."""
    points = list(options.values())
    pairs = {
        str(i): [Point(a.rate + b.rate, max(a.error, b.error)) for a in points[i] for b in points[i + 1]]
        for i in range(0, COUNT, 2)
    }
    for place in (1, 2):
        budget = sum(some[place].rate for some in points)
        before = loss(DynamicProgramming().choose(options, budget).choice, 1000)
        best = DynamicProgramming().choose(pairs, budget).error
        found = settings(loss, generations=200).choose(options, budget)
        assert found.error == loss(found.choice, 1000)
        assert found.error - best < 0.6 * (before - best)
        assert before - best > 0.1 * best
        assert 0.99 * budget < found.rate <= budget
        assert found.bound is None


def test_a_resumed_search_is_the_same_search(options, loss):
    budget = sum(points[2].rate for points in options.values())
    whole = list(settings(loss, generations=12).search(options, budget))
    assert [state.number for state in whole] == list(range(13))
    assert all(after.loss <= before.loss for before, after in itertools.pairwise(whole))
    for number in (0, 5, 12):
        kept = Generation(**json.loads(json.dumps(dataclasses.asdict(whole[number]))))
        assert list(settings(loss, generations=12).search(options, budget, kept)) == whole[number + 1 :]
    other = list(settings(loss, generations=12, seed=1).search(options, budget))
    assert other[-1] != whole[-1]


def test_many_samples_are_spent_on_few(options, loss):
    asked = []

    def counted(choice, samples):
        asked.append(samples)
        return loss(choice, samples)

    budget = sum(points[1].rate for points in options.values())
    settings(counted, generations=3, offspring=8, stages=((1, 3), (9, 2), (50, 1))).choose(options, budget)
    assert asked.count(1) <= 3 * 8
    assert asked.count(9) == 3 * 3
    assert asked.count(50) == 3 * 2 + 1


def test_every_offspring_keeps_to_the_budget_and_near_it(options):
    budget = sum(points[2].rate for points in options.values()) + 777
    seen = set()

    def loss(choice, samples):
        rate = sum(options[name][place].rate for name, place in choice.items())
        assert 0.98 * budget < rate <= budget
        seen.add(tuple(choice.values()))
        return -len(seen)  # whatever is newest is best

    settings(loss, generations=30).choose(options, budget)
    assert len(seen) > 150


def test_where_nothing_can_be_switched_the_start_stays():
    single = {"one": [Point(5, 1.0)], "two": [Point(5, 1.0), Point(9, 0.5)]}
    assert settings(lambda choice, samples: 1.0).choose(single, 10).choice == {"one": 0, "two": 0}


def test_a_state_of_other_options_is_refused(options, loss):
    budget = sum(points[1].rate for points in options.values())
    good = dict.fromkeys(options, 1)
    for choice, text in (
        ({"block 0": 1}, "the state chooses for 1 names, the options are of 24 others"),
        (good | {"block 3": 6}, "the state has option 6 for block 3, one of .0, 1, 2, 3, 4, 5. is needed"),
        (dict.fromkeys(options, 2), f"bytes, the budget is {budget}"),
    ):
        with pytest.raises(ValueError, match=text):
            next(settings(loss).search(options, budget, Generation(number=0, choice=choice, loss=1.0)))


def test_settings_and_losses_are_checked(options):
    for changed, text in (
        ({"generations": -1}, "generations are 0 or more, not -1"),
        ({"offspring": 0}, "offspring are 1 or more, not 0"),
        ({"stages": ()}, "stages have rising numbers of samples"),
        ({"stages": ((4, 2), (4, 1))}, r"rising numbers of samples from 1 on, not \[4, 4\]"),
        ({"stages": ((1, 2), (4, 2))}, r"falling numbers of survivors down to 1, not \[2, 2\]"),
    ):
        with pytest.raises(ValueError, match=text):
            settings(lambda choice, samples: 0.0, **changed)
    with pytest.raises(ValueError, match="the loss is NaN for the choice"):
        settings(lambda choice, samples: math.nan).choose(options, 10**9)
