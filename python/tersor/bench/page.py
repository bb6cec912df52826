"""A result as one HTML file: plots in SVG, tables, the machine. It asks for nothing else, so it can be mailed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from tersor.bench import table as for_terminals
from tersor.bench.plot import Axis, Point, plots

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
svg .bar { fill: none; stroke: var(--ink); } svg .front { fill: none; stroke: var(--soft); stroke-dasharray: 4 3; }
svg .number { font-weight: 700; font-size: 10px; fill: #fff; text-anchor: middle; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; margin: .3rem 0 1rem; padding: 0;
  font-size: .9rem; overflow-wrap: anywhere; }
.legend b { display: inline-block; min-width: 1.7em; margin-right: .35em; border-radius: 1em; color: #fff;
  text-align: center; font-size: .8em; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--page); }
thead th { color: var(--soft); font-weight: 600; } tr.ours td { background: var(--ours); font-weight: 600; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
"""


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
        pairs = [(SPEED, caption, _points(rows, key)) for key, caption in _SPEEDS.items()]
        cells = [_cells(row) for row in rows]
        parts = (
            plots(pairs, Axis(label="bits per element")),
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


SPEED = Axis(label="GB/s of raw bytes", logarithmic=True)
_SPEEDS = {"encode": "Encode", "decode": "Decode", "decode_into": "Decode into a given array"}


def _cells(row: dict[str, Any]) -> list[str]:
    return [row["impl"], *(cell.replace("+-", "±") for cell in for_terminals.cells(row))]


def _points(rows: Sequence[dict[str, Any]], key: str) -> list[Point]:
    return [
        Point(name=row["impl"], marked=row["ours"], x=row[f"{key}_gbps"], y=row["bits_per_element"])
        for row in rows
        if row.get(f"{key}_gbps")
    ]


def _published(fact: dict[str, Any]) -> str:
    figures = [f"{key} {fact[key]}" for key in ("encode_gbps", "decode_gbps", "over", "bits") if key in fact]
    return f"{fact['case']}: {', '.join(figures)} [{fact['origin']}]"
