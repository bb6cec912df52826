"""A result as tables for people."""

from __future__ import annotations

from typing import Any, TextIO

Row = dict[str, Any]


def show(result: Row, file: TextIO) -> None:
    """Print the roofs, a row a point and way, what stands beside them, the goals that are missed and those met."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=file, width=None if file.isatty() else 160, highlight=False)

    def table(title: str, columns: tuple[str, ...], rows: list[tuple[list[str], bool]]) -> None:
        if not rows:
            return
        made = Table(title=title, title_justify="left", title_style="bold")
        for number, name in enumerate(columns):
            made.add_column(name, justify="right" if number > 1 else "left")
        for cells, bold in rows:
            made.add_row(*cells, style="bold" if bold else None)
        console.print(made)

    table(
        f"Roofs; peers' pages: {result['pages']['peers']}",
        ("roof", "about", "T", "best", "median"),
        [
            (
                [row["roof"], row["about"], str(row["threads"]), f"{row['best']} {row['unit']}", f"{row['median']}"],
                False,
            )
            for row in result["roofs"]
        ],
    )
    table(
        "Times are medians (best); shares are of the same rounds' roofs, best of both (median)",
        ("case", "way", "T", "us", "GB/s", "of memory", "GOPS", "of the unit", "x", "x one T"),
        [(_cells(row), row["ours"]) for row in result["rows"]],
    )
    for row in result["extras"]:
        figures = ", ".join(f"{name} {value}" for name, value in row.items() if name not in ("what", "case", "threads"))
        console.print(f"{row['case']}, T={row['threads']}: {figures}")
    for met, title in ((False, "Missed"), (True, "Met")):
        judged = [entry for entry in result["goals"] if entry["met"] == met]
        table(title, ("case", "goal", "T", "wanted", "found"), [(_goal(entry), False) for entry in judged])
    for name, reason in result["skipped"].items():
        console.print(f"not measured: {name}: {reason}", markup=False)
    for fact in result["published"]:
        figures = ", ".join(f"{key} {fact[key]}" for key in ("us", "gops") if key in fact)
        console.print(f"beside it: {fact['impl']} on {fact['case']}: {figures} [{fact['origin']}]", markup=False)


def _goal(entry: Row) -> list[str]:
    figures = [f"{entry[name]:.3g}" for name in ("wanted", "found")]
    return [entry["case"], entry["goal"], str(entry["threads"]), *figures]


def _share(best: float | None, median: float | None) -> str:
    return "" if best is None or median is None else f"{100 * best:.0f} % ({100 * median:.0f})"


def _cells(row: Row) -> list[str]:
    peers = "" if row["peer_ratio"] is None else f"{row['peer_ratio']:.2f}"
    return [
        row["case"] if row["ours"] else "",
        row["impl"],
        str(row["threads"]),
        f"{row['us']:.1f} ({row['best_us']:.1f})",
        f"{row['gbps']:.1f}",
        _share(row["dram_share"], row["dram_median_share"]),
        f"{row['gops']:.0f}",
        _share(row["unit_share"], row["unit_median_share"]),
        peers,
        "" if row["scaling"] is None else f"{row['scaling']:.2f}",
    ]
