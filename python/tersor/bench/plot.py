"""Plots of named points in SVG, as parts of a page of `tersor.bench.page`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 420, 300  # of a plot, in its own units: one unit is about a pixel on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 44
_COLORS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#8a6d00",
    "#3a7ca5",
    "#b3404a",
    "#5d5d5d",
)  # Okabe and Ito's, darker


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is named, where it lies, and half the length of its error bar; a marked one is a diamond and lies on top."""

    name: str
    x: float
    y: float
    marked: bool = False
    error: float | None = None


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What is shown along it. On a logarithmic one, what is not above zero lies at its foot."""

    label: str
    logarithmic: bool = False


def plots(pairs: Sequence[tuple[Axis, str, Sequence[Point]]], y: Axis, *, joined: bool = False) -> str:
    """Plots side by side, each (its x axis, a caption, its points), over one legend that numbers their points.

    y: of every plot. joined: a line goes from each marked point to the next.
    """
    names = list(dict.fromkeys(point.name for _, _, points in pairs for point in points))
    numbers = {name: i for i, name in enumerate(names)}
    figures = [
        f"<figure><figcaption>{escape(caption)}</figcaption>{_plot(points, numbers, x, y, joined)}</figure>"
        for x, caption, points in pairs
        if points
    ]
    legend = [
        f'<li><b style="background:{_color(number)}">{number + 1}</b>{escape(name)}</li>'
        for name, number in numbers.items()
    ]
    return f'<div class="plots">{"".join(figures)}</div>\n<ul class="legend">{"".join(legend)}</ul>'


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


def _plot(points: Sequence[Point], numbers: dict[str, int], x: Axis, y: Axis, joined: bool) -> str:
    ends = [end for p in points for end in (p.y, p.y + (p.error or 0))]
    ends += [] if y.logarithmic else [p.y - (p.error or 0) for p in points]  # down to zero there is no end
    across, ticks_x = _scale(x, [p.x for p in points], _LEFT, _WIDTH - _RIGHT)
    upward, ticks_y = _scale(y, ends, _HEIGHT - _BOTTOM, _TOP, enclosed=True)
    marks = []
    for value in ticks_x:
        at = f"{across(value):.1f}"
        marks.append(f'<line class="tick" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        marks.append(f'<text x="{at}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
    for value in ticks_y:
        at = f"{upward(value):.1f}"
        marks.append(f'<line class="tick" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        marks.append(f'<text x="{_LEFT - 6}" y="{float(at) + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    axes = f"{escape(x.label)}, {escape(y.label)} upward"
    marks.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{axes}</text>')
    if joined:
        way = [f"{across(p.x):.1f},{upward(p.y):.1f}" for p in sorted(points, key=lambda p: p.x) if p.marked]
        marks.append(f'<polyline class="front" points="{" ".join(way)}"/>')
    for point in sorted(points, key=lambda p: p.marked):
        number, at_x, at_y = numbers[point.name], across(point.x), upward(point.y)
        tip = f"<title>{escape(point.name)}: {point.x:.3g} {escape(x.label)}, {point.y:.4g}"
        tip += "</title>" if point.error is None else f" ± {point.error:.2g}</title>"
        fill = f'fill="{_color(number)}" stroke="var(--page)"'
        shape = f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="9" {fill}/>'
        if point.marked:
            shape = f'<path d="M{at_x:.1f} {at_y - 13:.1f}l13 13l-13 13l-13 -13z" {fill}/>'
        marks.append(f"<g>{tip}{_bar(point, at_x, upward)}{shape}")
        marks.append(f'<text class="number" x="{at_x:.1f}" y="{at_y + 3.5:.1f}">{number + 1}</text></g>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(marks)}</svg>'


def _bar(point: Point, at: float, upward: Callable[[float], float]) -> str:
    """An error bar with its two ends, under the mark, so that the number can be read."""
    if not point.error:
        return ""
    low, high = upward(point.y - point.error), upward(point.y + point.error)
    way = f"M{at - 5:.1f} {high:.1f}h10m-5 0V{low:.1f}m-5 0h10"
    return f'<path class="bar" d="{way}"/>'


def _short(value: float) -> str:
    """What has room beside the plot: 1e-4 for 0.0001."""
    return f"{value:.0e}".replace("e-0", "e-") if 0 < value < 0.001 else f"{value:.6g}"


def _scale(
    axis: Axis, values: Sequence[float], start: float, end: float, *, enclosed: bool = False
) -> tuple[Callable[[float], float], list[float]]:
    """Where a value lies between two ends of a plot, and the ticks. enclosed: ticks stand at both ends."""
    if axis.logarithmic:
        return _logarithmic(values, start, end, enclosed)
    ticks = _even_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]
    if not enclosed:
        margin = 0.08 * (max(values) - min(values) or abs(max(values)) or 1)
        low, high = min(values) - margin, max(values) + margin
        ticks = [tick for tick in ticks if low <= tick <= high]
    return lambda value: start + (value - low) / (high - low) * (end - start), ticks


def _logarithmic(
    values: Sequence[float], start: float, end: float, enclosed: bool
) -> tuple[Callable[[float], float], list[float]]:
    above = [value for value in values if value > 0] or [1.0]
    low, high = math.log10(min(above)) - 0.08, math.log10(max(above)) + 0.08
    steps = (1, 2, 5) if high - low < 2.2 else (1,)  # only powers of ten where more would be a crowd
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    below = max(tick for tick in ticks if math.log10(tick) <= low)
    beyond = min(tick for tick in ticks if math.log10(tick) >= high)
    if enclosed:
        low, high = math.log10(below), math.log10(beyond)
    ticks = [tick for tick in ticks if low <= math.log10(tick) <= high]
    foot = 0.14 if min(values) <= 0 else 0.0  # a place of its own for what has no logarithm

    def place(value: float) -> float:
        share = foot + (1 - foot) * (math.log10(value) - low) / (high - low) if value > 0 else foot / 3
        return start + max(share, 0.0) * (end - start)

    return place, [0.0] * (foot > 0) + ticks


def _even_ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers that enclose the range."""
    span = max(high - low, abs(high) * 0.02, 1e-9)
    step = 10.0 ** math.floor(math.log10(span / 4))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
    first, last = math.floor((low - 0.1 * span) / step), math.ceil((high + 0.1 * span) / step)
    return [round(i * step, 12) for i in range(first, last + 1)]
