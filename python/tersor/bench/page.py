"""A result as one HTML file: plots in SVG, tables, the machine. It asks for nothing else, so it can be mailed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tersor.bench import table as for_terminals

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

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6470; --line: #d8dde3; --page: #fff; --ours: #f1f6fb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a3abb5; --line: #3a4149; --page: #16191d; --ours: #1d2733; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { margin: .3rem 0; max-width: 46rem; }
ul { margin: .3rem 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr));
  gap: 1rem; margin: 1rem 0 .3rem; }
figure { margin: 0; } figcaption { font-weight: 600; } svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); } svg .tick { stroke: var(--line); }
svg .number { font-weight: 700; font-size: 10px; fill: #fff; text-anchor: middle; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; margin: .3rem 0 1rem; padding: 0;
  font-size: .9rem; }
.legend b { display: inline-block; min-width: 1.7em; margin-right: .35em; border-radius: 1em; color: #fff;
  text-align: center; font-size: .8em; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--page); }
thead th { color: var(--soft); font-weight: 600; } tr.ours td { background: var(--ours); font-weight: 600; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A coder in a plot: what it stores against how quick it is."""

    coder: str
    ours: bool
    speed: float  # GB/s, above 0
    size: float


def document(title: str, lead: str, sections: Iterable[str]) -> str:
    """Return the whole page. title, lead: plain text. sections: HTML, as `section` makes it."""
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style></head>",
        f"<body><h1>{escape(title)}</h1>",
        f"<p>{escape(lead)}</p>",
        *sections,
        "</body></html>",
    ]
    return "\n".join(lines) + "\n"


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it. title: plain text; parts: HTML."""
    return "\n".join((f"<h2>{escape(title)}</h2>", *parts))


def paragraph(text: str) -> str:
    """Plain text, small."""
    return f'<p class="soft">{escape(text)}</p>'


def listed(texts: Iterable[str]) -> str:
    """Plain texts, one under the other."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def plots(pairs: Sequence[tuple[str, Sequence[Point]]], size_label: str) -> str:
    """Plots side by side, one a caption, over one legend that numbers the coders of them all."""
    coders = list(dict.fromkeys(point.coder for _, points in pairs for point in points))
    numbers = {coder: i for i, coder in enumerate(coders)}
    figures = [
        f"<figure><figcaption>{escape(caption)}</figcaption>{_plot(points, numbers, size_label)}</figure>"
        for caption, points in pairs
        if points
    ]
    legend = [
        f'<li><b style="background:{_color(number)}">{number + 1}</b>{escape(coder)}</li>'
        for coder, number in numbers.items()
    ]
    return f'<div class="plots">{"".join(figures)}</div>\n<ul class="legend">{"".join(legend)}</ul>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], ours: Sequence[bool]) -> str:
    """A table of plain text, its first column to the left; rows of ours are marked."""
    lines = ["<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>"]
    cells = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    body = [f"<tr{' class=ours' if marked else ''}>{cell}</tr>" for cell, marked in zip(cells, ours, strict=True)]
    return f'<div class="table"><table><thead>{lines[0]}</thead><tbody>{"".join(body)}</tbody></table></div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what they are, as plain text."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in pairs) + "</dl>"


def bench_page(result: dict[str, Any]) -> str:
    """Return the page of what `tersor bench` measured: its JSON object, as HTML."""
    sections = []
    for case in dict.fromkeys(row["case"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["case"] == case]
        floor = rows[0]["floor_bits"]
        about = f"{rows[0]['bytes_in'] / 1e6:.1f} MB"
        about += "" if floor is None else f"; floor {floor:.3f} bits per element"
        about += f"; ceiling {rows[0]['ceiling_gbps']:.1f} GB/s ({rows[0]['ceiling']})"
        pairs = [(caption, _points(rows, key)) for key, caption in _SPEEDS.items()]
        cells = [_cells(row) for row in rows]
        parts = (
            plots(pairs, "bits per element"),
            table(("coder", *for_terminals.COLUMNS), cells, [row["ours"] for row in rows]),
        )
        sections.append(section(case, paragraph(about), *parts))
    if result["skipped"]:
        sections.append(section("Not measured", facts(result["skipped"].items())))
    if result["published"]:
        sections.append(section("Published by others", facts((f["impl"], _published(f)) for f in result["published"])))
    machine = result["machine"]
    known = [(name, ", ".join(map(str, fact)) if isinstance(fact, list) else fact) for name, fact in machine.items()]
    told = [(name.replace("_", " "), str(fact)) for name, fact in known if not isinstance(fact, dict)]
    told += [("peers", ", ".join(f"{name} {version}" for name, version in machine.get("peers", {}).items()))]
    sections.append(section("Machine", facts(told)))
    lead = (
        "Every coder was verified before it was timed; ours and the peers took turns. Better is down and to the right."
    )
    if result["quick"]:
        lead += " This was a quick run on small inputs: it shows that all works, not how fast."
    return document(f"tersor bench {result['bench']}", lead, sections)


_SPEEDS = {"encode": "Encode", "decode": "Decode", "decode_into": "Decode into a given array"}


def _cells(row: dict[str, Any]) -> list[str]:
    return [row["impl"], *(cell.replace("+-", "±") for cell in for_terminals.cells(row))]


def _points(rows: Sequence[dict[str, Any]], key: str) -> list[Point]:
    return [
        Point(coder=row["impl"], ours=row["ours"], speed=row[f"{key}_gbps"], size=row["bits_per_element"])
        for row in rows
        if row.get(f"{key}_gbps")
    ]


def _published(fact: dict[str, Any]) -> str:
    figures = [f"{key} {fact[key]}" for key in ("encode_gbps", "decode_gbps", "over", "bits") if key in fact]
    return f"{fact['case']}: {', '.join(figures)} [{fact['origin']}]"


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


def _plot(points: Sequence[Point], numbers: dict[str, int], size_label: str) -> str:
    low, high = min(p.speed for p in points), max(p.speed for p in points)
    low, high = math.log10(low) - 0.08, math.log10(high) + 0.08
    ticks_y = _even_ticks(min(p.size for p in points), max(p.size for p in points))
    bottom, top = ticks_y[0], ticks_y[-1]

    def x(speed: float) -> float:
        return _LEFT + (math.log10(speed) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(size: float) -> float:
        return _HEIGHT - _BOTTOM - (size - bottom) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    marks = []
    for speed in _log_ticks(low, high):
        at = f"{x(speed):.1f}"
        marks.append(f'<line class="tick" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        marks.append(f'<text x="{at}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{speed:g}</text>')
    for size in ticks_y:
        at = f"{y(size):.1f}"
        marks.append(f'<line class="tick" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        marks.append(f'<text x="{_LEFT - 6}" y="{float(at) + 4:.1f}" text-anchor="end">{size:.6g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    axes = f"GB/s of raw bytes, {escape(size_label)} upward"
    marks.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{axes}</text>')
    for point in sorted(points, key=lambda p: p.ours):  # ours last, on top
        number, at_x, at_y = numbers[point.coder], x(point.speed), y(point.size)
        tip = f"<title>{escape(point.coder)}: {point.speed:.3g} GB/s, {point.size:.4g}</title>"
        fill = f'fill="{_color(number)}" stroke="var(--page)"'
        shape = f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="9" {fill}/>'
        if point.ours:
            shape = f'<path d="M{at_x:.1f} {at_y - 13:.1f}l13 13l-13 13l-13 -13z" {fill}/>'
        marks.append(f'<g>{tip}{shape}<text class="number" x="{at_x:.1f}" y="{at_y + 3.5:.1f}">{number + 1}</text></g>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(marks)}</svg>'


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten between two logarithms; only the powers where that is a crowd."""
    steps = (1, 2, 5) if high - low < 2.2 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1)
    return [
        step * 10.0**decade for decade in decades for step in steps if low <= math.log10(step * 10.0**decade) <= high
    ]


def _even_ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers that enclose the range."""
    span = max(high - low, abs(high) * 0.02, 1e-9)
    step = 10.0 ** math.floor(math.log10(span / 4))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
    first, last = math.floor((low - 0.1 * span) / step), math.ceil((high + 0.1 * span) / step)
    return [round(i * step, 12) for i in range(first, last + 1)]
