"""What every allocator promises, whatever it makes small."""

import itertools

import numpy as np
import pytest

from tersor.budget import DynamicProgramming, EvoPress, Point


def additive(options):
    """The loss that DynamicProgramming makes small; samples do not matter to it."""
    return lambda choice, samples: sum(options[name][place].error for name, place in choice.items())


ALLOCATORS = {
    "dynamic programming": lambda options: DynamicProgramming(),
    "few states": lambda options: DynamicProgramming(states=3),
    "evopress": lambda options: EvoPress(loss=additive(options), generations=5, offspring=4, seed=3),
}


def things(count, seed=0, bits=(2, 3, 4, 5, 6, 8)):
    """Sizes and sensitivities of some matrices, errors falling by four a bit or so."""
    random = np.random.default_rng(seed)
    sizes = random.choice([64 * 64, 64 * 172, 64 * 16], count)
    weights = np.exp(random.normal(0, 1.5, count))
    return {
        f"thing {i}": [
            Point(int(size) * bit // 8 + 40, float(weight * 4.0**-bit * random.uniform(0.8, 1.2))) for bit in bits
        ]
        for i, (size, weight) in enumerate(zip(sizes, weights, strict=True))
    }


@pytest.mark.parametrize("make", ALLOCATORS.values(), ids=ALLOCATORS)
def test_it_lands_under_the_budget_and_near_it(make):
    options = things(60)
    most = sum(max(points).rate for points in options.values())
    for share in (0.3, 0.41, 0.5, 0.77, 0.99):
        budget = int(share * most)
        found = make(options).choose(options, budget)
        assert list(found.choice) == list(options)
        assert found.rate == sum(options[name][place].rate for name, place in found.choice.items())
        assert 0.99 * budget < found.rate <= budget
        again = make(options).choose(options, budget)
        assert again == found


@pytest.mark.parametrize("make", ALLOCATORS.values(), ids=ALLOCATORS)
def test_it_beats_every_uniform_choice_at_equal_bytes(make):
    options = things(40, seed=1)
    for place in range(1, 6):
        uniform = dict.fromkeys(options, place)
        budget = sum(points[place].rate for points in options.values())
        found = make(options).choose(options, budget)
        assert additive(options)(found.choice, 1) < 0.8 * additive(options)(uniform, 1) or place == 5
        assert additive(options)(found.choice, 1) <= additive(options)(uniform, 1)


@pytest.mark.parametrize("make", ALLOCATORS.values(), ids=ALLOCATORS)
def test_order_and_dominated_options_change_nothing(make):
    options = things(12, seed=2)
    budget = sum(points[2].rate for points in options.values()) + 1000
    want = make(options).choose(options, budget)
    mixed = {
        name: [Point(points[2].rate + 1, points[2].error), *points[::-1], Point(points[0].rate, 9.0), points[1]]
        for name, points in options.items()
    }
    found = make(mixed).choose(mixed, budget)
    assert {name: mixed[name][place] for name, place in found.choice.items()} == {
        name: options[name][place] for name, place in want.choice.items()
    }


@pytest.mark.parametrize("make", ALLOCATORS.values(), ids=ALLOCATORS)
def test_the_smallest_and_the_largest_budget(make):
    options = things(9, seed=3)
    smallest = sum(points[0].rate for points in options.values())
    found = make(options).choose(options, smallest)
    assert set(found.choice.values()) == {0}
    assert found.rate == smallest
    assert set(make(options).choose(options, 10**15).choice.values()) == {5}
    single = {"one": [Point(0, 0.0)]}
    assert make(single).choose(single, 0).choice == {"one": 0}


@pytest.mark.parametrize("make", ALLOCATORS.values(), ids=ALLOCATORS)
def test_what_cannot_be_chosen_from_is_refused(make):
    options = {"a": [Point(10, 1.0), Point(20, 0.5)], "b": [Point(7, 1.0)]}
    for bad, budget, text in (
        (options, 16, "the budget is 16 bytes, the smallest options take 17"),
        ({}, 16, "options are needed for one name or more"),
        (options | {"c": []}, 99, "c has no options"),
        (options | {"c": [Point(1, float("nan"))]}, 99, "c has an option with an error of nan, a finite one is needed"),
        (options | {"c": [Point(1, float("inf"))]}, 99, "c has an option with an error of inf"),
        (options | {"c": [Point(-1, 1.0)]}, 99, "c has an option of -1 bytes, rates are 0 or more"),
    ):
        with pytest.raises(ValueError, match=text):
            make(options).choose(bad, budget)
    with pytest.raises(TypeError):
        make(options).choose({"a": [Point(1.5, 1.0)]}, 99)
    for budget in (99.5, float("nan"), None):
        with pytest.raises(TypeError):
            make(options).choose(options, budget)


def test_points_may_come_as_json_has_them():
    plain = {name: [list(point) for point in points] for name, points in things(5).items()}
    budget = sum(points[3][0] for points in plain.values())
    assert DynamicProgramming().choose(plain, budget) == DynamicProgramming().choose(things(5), budget)


def test_every_sum_of_rates_is_within_reach():
    """Each reachable sum of rates is met exactly when it is the budget and errors fall with rates."""
    options = {str(i): [Point(0, 1.0), Point(1 << i, 1.0 - 2.0 ** (i - 6))] for i in range(6)}
    for picks in itertools.product((0, 1), repeat=6):
        budget = sum(pick << i for i, pick in enumerate(picks))
        assert DynamicProgramming().choose(options, budget).rate == budget
