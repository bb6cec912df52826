"""A result as tables for people, one a case."""

from __future__ import annotations

from typing import Any, TextIO

from tersor.bench.harness import Row

# Behind the coder's name, as `cells` fills them.
COLUMNS = (
    "bits",
    "over floor",
    "encode GB/s",
    "decode GB/s",
    "into GB/s",
    "x enc",
    "x dec",
    "x into",
    "of ceiling",
)


def show(result: dict[str, Any], file: TextIO) -> None:
    """Print one table a case, then what was skipped and what others published."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=file, width=None if file.isatty() else 150, highlight=False)
    for case in dict.fromkeys(row["case"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["case"] == case]
        floor = rows[0]["floor_bits"]
        title = f"{case}: {rows[0]['bytes_in'] / 1e6:.1f} MB"
        if floor is not None:
            title += f", floor {floor:.3f} bits"
        title += f", ceiling {rows[0]['ceiling_gbps']:.1f} GB/s ({rows[0]['ceiling']})"
        table = Table(title=title, title_justify="left", title_style="bold")
        table.add_column("coder")
        for name in COLUMNS:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(row["impl"], *cells(row), style="bold" if row["ours"] else None)
        console.print(table)
        for row in rows:
            if row["decode_scaling"] is not None:
                console.print(
                    f"{row['impl']}: encode x {row['encode_scaling']:.2f}, decode x {row['decode_scaling']:.2f} of one"
                )
        ours = next((row for row in rows if row["best_peer"]), None)
        if ours is not None:
            console.print(
                f"x: times the best peer that saves 4/5 of what the best saves; decode {ours['best_peer']}, "
                f"encode {ours['best_encode_peer']}. +-: half the interquartile range."
            )
    for name, reason in result["skipped"].items():
        console.print(f"not measured: {name}: {reason}")
    for fact in result["published"]:
        figures = ", ".join(
            f"{key} {fact[key]}" for key in ("encode_gbps", "decode_gbps", "over", "bits") if key in fact
        )
        console.print(f"beside it: {fact['impl']} on {fact['case']}: {figures} [{fact['origin']}]", markup=False)


def cells(row: Row) -> list[str]:
    """A row as text, one a column after the coder."""
    over = row["over_floor_percent"]
    return [
        f"{row['bits_per_element']:.3f}",
        "" if over is None else f"{over:+.2f} %",
        _speed(row, "encode"),
        _speed(row, "decode"),
        _speed(row, "decode_into"),
        *(
            ("" if row[key] is None else f"{row[key]:.2f}")
            for key in ("encode_ratio", "decode_ratio", "decode_into_ratio")
        ),
        "" if row["share_of_ceiling"] is None else f"{100 * row['share_of_ceiling']:.0f} %",
    ]


def _speed(row: Row, operation: str) -> str:
    speed = row.get(f"{operation}_gbps")
    return "" if speed is None else f"{speed:.3f} +-{50 * row[f'{operation}_spread']:.0f}%"
