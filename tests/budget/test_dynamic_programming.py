"""Dynamic programming beside trying everything, and its bound."""

import itertools

import numpy as np
import pytest

from tersor.budget import DynamicProgramming, Point


def instance(random, names, options, largest=60):
    return {
        str(i): [
            Point(int(random.integers(0, largest)), float(random.normal())) for _ in range(random.integers(1, options))
        ]
        for i in range(names)
    }


def tried(options, budget):
    """The least sum of errors, by trying every choice."""
    return min(
        sum(point.error for point in points)
        for points in itertools.product(*options.values())
        if sum(point.rate for point in points) <= budget
    )


def ends(options):
    return [sum(end(point.rate for point in points) for points in options.values()) for end in (min, max)]


def test_it_finds_what_trying_everything_finds():
    random = np.random.default_rng(0)
    for _ in range(150):
        options = instance(random, random.integers(1, 6), 6)
        budget = int(random.integers(*ends(options), endpoint=True))
        found, want = DynamicProgramming().choose(options, budget), tried(options, budget)
        assert found.error == pytest.approx(want, rel=1e-9, abs=1e-12)
        assert found.bound <= found.error
        assert found.rate <= budget


def test_few_states_stay_near_the_bound():
    options = instance(np.random.default_rng(1), 80, 9, largest=1 << 30)
    least, most = ends(options)
    budget = (least + most) // 3
    best = DynamicProgramming().choose(options, budget)
    for states in (1, 10, 100):
        found = DynamicProgramming(states=states).choose(options, budget)
        assert best.bound <= best.error <= found.error <= best.error + 0.01 * abs(best.error)
        assert found.bound == best.bound


def test_the_bound_is_reached_where_the_relaxation_breaks_nothing():
    """On a convex hull's corner, and with a budget for everything."""
    options = {"a": [Point(0, 8.0), Point(2, 2.0), Point(4, 1.0)], "b": [Point(0, 5.0), Point(1, 4.0)]}
    for budget, error in ((0, 13.0), (2, 7.0), (3, 6.0), (5, 5.0), (9, 5.0)):
        found = DynamicProgramming().choose(options, budget)
        assert (found.error, found.bound) == (error, error)
    found = DynamicProgramming().choose(options, 1)
    assert (found.error, found.bound) == (12.0, 10.0)


def test_more_bytes_never_cost_more():
    options = instance(np.random.default_rng(2), 30, 8, largest=10_000)
    least, most = ends(options)
    errors = [DynamicProgramming().choose(options, budget).error for budget in np.linspace(least, most, 60, dtype=int)]
    assert errors == sorted(errors, reverse=True)


def test_a_model_s_size_takes_no_time():
    """10,000 names, and sums of rates beyond 32 bits."""
    options = instance(np.random.default_rng(3), 10_000, 7, largest=1 << 40)
    least, most = ends(options)
    found = DynamicProgramming().choose(options, (least + most) // 2)
    assert found.error - found.bound < 1e-4 * abs(found.bound)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="states are 1 or more, not 0"):
        DynamicProgramming(states=0)
    with pytest.raises(ValueError, match=r"tolerance is in \[0, 1\), not -1"):
        DynamicProgramming(tolerance=-1)


def test_a_bound_that_rounding_lowers_takes_no_more_than_the_budget():
    """A level beyond the budget is as good as the bound, and the one within it a last bit worse."""
    options = {
        "a": [Point(6, -3.0), Point(0, 0.052472342124384896), Point(3, 0.22247106696404695)],
        "b": [Point(3, 0.1298705631261725), Point(0, 0.9170795695272411)],
    }
    found = DynamicProgramming(states=1, tolerance=0).choose(options, 0)
    assert found.choice == {"a": 1, "b": 1}
    assert found.rate == 0
