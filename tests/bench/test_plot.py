"""Plots of points: every mark inside, at its place, with ticks around it, on even and on logarithmic axes."""

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from tersor.bench.plot import Axis, Point, plots


def drawn(points, *, x=False, y=False, joined=False):
    made = plots([(Axis(label="x", logarithmic=x), "c", points)], Axis(label="y", logarithmic=y), joined=joined)
    (found,) = re.findall(r"<svg.*?</svg>", made, re.DOTALL)
    return ElementTree.fromstring(found)


def places(plot):
    """Number of a point -> its place in the plot."""
    texts = [mark.find("text") for mark in plot.iter("g")]
    return {int(text.text): (float(text.get("x")), float(text.get("y"))) for text in texts}


def ticks(plot, anchor):
    """(value, place) of each, of an axis."""
    which = "y" if anchor == "end" else "x"
    found = [text for text in plot.findall("text") if text.get("text-anchor") == anchor]
    return [(float(text.text), float(text.get(which))) for text in found if re.fullmatch(r"[-+.\de]+", text.text)]


@pytest.mark.parametrize("logarithmic", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("values", [[1.0], [0.001, 100.0], [2.0, 2.0001], [0.0, 0.3, 0.004], [3.1, 4.6, 3.3]])
def test_any_range_has_ticks_and_holds_its_marks(values, logarithmic):
    x, y = logarithmic
    points = [Point(name=str(i), x=v or 1.0, y=v, error=0.1 * v) for i, v in enumerate(values)]
    plot = drawn(points, x=x, y=y)
    _, _, width, height = map(float, plot.get("viewBox").split())
    assert all(0 < across < width and 0 < up < height for across, up in places(plot).values())
    assert len(ticks(plot, "end")) >= 2
    bars = [path.get("d") for path in plot.iter("path") if path.get("class") == "bar"]
    assert len(bars) == sum(v > 0 for v in values)
    for bar in bars:
        top, bottom = re.fullmatch(r"M[\d.]+ ([\d.]+)h10m-5 0V([\d.]+)m-5 0h10", bar).groups()
        assert 0 < float(top) <= float(bottom) < height


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_mark_lies_between_its_ticks(logarithmic):
    values = [0.05, 0.013, 0.4]
    plot = drawn([Point(name=str(v), x=1, y=v) for v in values], y=logarithmic)
    for i, value in enumerate(values):
        _, mark = places(plot)[i + 1]
        for tick, place in ticks(plot, "end"):
            assert (place < mark) == (tick > value)
    if logarithmic:
        (low, at_low), (high, at_high) = ticks(plot, "end")[0], ticks(plot, "end")[-1]
        share = (math.log10(0.05) - math.log10(low)) / (math.log10(high) - math.log10(low))
        assert places(plot)[1][1] == pytest.approx(at_low + share * (at_high - at_low), abs=0.6)


def test_zero_has_its_place_below_all_logarithms():
    plot = drawn([Point(name="a", x=1, y=0.0), Point(name="b", x=2, y=0.01)], y=True)
    assert ticks(plot, "end")[0][0] == 0
    assert places(plot)[1][1] > places(plot)[2][1]
    assert 0 not in [tick for tick, _ in ticks(drawn([Point(name="b", x=2, y=0.01)], y=True), "end")]


def test_a_line_joins_the_marked_from_left_to_right():
    points = [Point(name=n, x=x, y=1.0 + x, marked=n != "b") for n, x in (("a", 3), ("b", 2), ("c", 1))]
    (line,) = drawn(points, joined=True).iter("polyline")
    across = [float(pair.split(",")[0]) for pair in line.get("points").split()]
    assert across == sorted(across)
    assert len(across) == 2
    assert not list(drawn(points).iter("polyline"))
