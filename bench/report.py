"""README's numbers, generated from bench/results/*.json: `python bench/report.py` rewrites the part between the marks.

A test of the house compares README with `numbers_table` of the committed results, so neither can go its own way.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- numbers:begin -->", "<!-- numbers:end -->"
ROOT = Path(__file__).resolve().parents[1]
Result = dict[str, Any]
Row = dict[str, Any]

CASES = {
    "geo": "geometric, 30 symbols, 2.50 bits",
    "bexp": "bf16 exponents, 24 symbols, 2.55 bits",
    "near": "Gaussian, 256 symbols, 7.49 bits",
    "gbf16": "Gaussian weights, bf16",
    "mlbf16": "MiniLM-L6, bf16",
    "gf32": "Gaussian weights, fp32",
    "mlf32": "MiniLM-L6, fp32",
    "step2": "2 % of bf16 weights moved by one step",
    "tuned": "all bf16 weights moved by 1.5 % of their deviation",
    "other": "bf16 weights against unrelated ones",
    "latent4k": "4,000 integers",
    "latent1m": "1 Mi integers",
    "latent4m": "4 Mi integers",
}
# In the results, not in README: they crowd out what a reader compares.
UNLISTED = {"lz4 frame", "blosc2 zstd-3 bitshuffle", "blosc2 lz4-5 bitshuffle", "tersor -2", "tersor -6"}


def load(folder: Path = ROOT / "bench" / "results") -> list[Result]:
    """The committed results in the order of README, then what came later, by file name."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    order = {"entropy": 0, "indexed": 1, "lossless": 2, "difference": 3}
    return sorted(results, key=lambda result: order.get(result.get("bench"), 4))


def numbers_table(results: Sequence[Result]) -> str:
    """The Markdown between README's marks. results: what `tersor bench ... --json` printed, one object a bench."""
    parts = [_section(result) for result in results if result.get("bench") in _WRITERS]
    parts += [_gemm_section(result) for result in results if result.get("bench") == "gemm"]
    return "\n\n".join(parts) if parts else "No results are committed yet: `make bench` writes them."


def _section(result: Result) -> str:
    title, columns, cells = _WRITERS[result["bench"]]
    lines = [title, "", "| data | coder | " + " | ".join(columns) + " |", "|---|---|" + "---:|" * len(columns)]
    for case in dict.fromkeys(row["case"] for row in result["rows"]):
        for row in (row for row in result["rows"] if row["case"] == case and row["impl"] not in UNLISTED):
            coder = f"**{row['impl']}**" if row["ours"] else row["impl"]
            lines.append(f"| {CASES.get(case, case)} | {coder} | " + " | ".join(cells(row)) + " |")
    lines += ["", _footnote(result)]
    return "\n".join(lines)


def _gemm_section(result: Result) -> str:
    lines = [
        "**Linear layers**, 4096x4096, cold weights, one thread / two; of the nearer roof, memory's or multipliers':",
        "",
        "| weights, x, tokens | us | of the roof | times the best peer | times torch's bfloat16 |",
        "|---|---:|---:|---:|---:|",
    ]
    ours = [row for row in result["rows"] if row["ours"] and row["options"]["shape"] == [4096, 4096]]
    ours = [row for row in ours if row["options"]["tokens"] in (1, 128)]  # the extremes say the rest
    for case in dict.fromkeys(row["case"] for row in ours):
        rows = sorted((row for row in ours if row["case"] == case), key=lambda row: row["threads"])
        columns = (
            [f"{row['best_us']:.0f}" for row in rows],
            [f"{100 * max(row['dram_share'], row['unit_share']):.0f} %" for row in rows],
            [_ratio(row["peer_ratio"]) for row in rows],
            [_ratio(row["peer_ratios"].get("torch bfloat16")) for row in rows],
        )
        lines.append(
            f"| {case.replace(' 4096x4096', '')} | " + " | ".join(" / ".join(column) for column in columns) + " |"
        )
    machine, met = result["machine"], sum(goal["met"] for goal in result["goals"])
    lines += [
        "",
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}; best of "
        f"up to {max(row['rounds'] for row in ours)} rounds, as the roofs in the same rounds. {met} of the "
        f"{len(result['goals'])} goals are met, `goals` in bench/results/gemm.json has the others. "
        "Made by `tersor bench gemm --peers -o bench/results/gemm.json`.",
    ]
    return "\n".join(lines)


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _entropy_cells(row: Row) -> list[str]:
    return [f"+{row['over_floor_percent']:.2f} %", _speed(row, "encode"), _speed(row, "decode"), _ratios(row)]


def _lossless_cells(row: Row) -> list[str]:
    part = "" if row["over_floor_percent"] is not None else " (a part)"
    return [
        f"{row['bits_per_element']:.3f}{part}",
        _speed(row, "encode"),
        _speed(row, "decode"),
        _speed(row, "decode_into"),
        _ratios(row),
    ]


def _difference_cells(row: Row) -> list[str]:
    return [f"{row['bits_per_element']:.3f}", _speed(row, "encode"), _speed(row, "decode"), _ratios(row)]


def _indexed_cells(row: Row) -> list[str]:
    over = row["over_floor_percent"]
    return [
        "" if over is None else f"{over:+.2f} %",
        *(_symbols(row, operation) for operation in ("encode", "decode", "decode_into")),
        _ratios(row),
    ]


def _symbols(row: Row, operation: str) -> str:
    """Millions of 32-bit symbols a second."""
    speed = row.get(f"{operation}_gbps")
    return "" if speed is None else f"{250 * speed:.3g}"


def _speed(row: Row, operation: str) -> str:
    speed = row.get(f"{operation}_gbps")
    return "" if speed is None else f"{speed:.2f}"


def _ratios(row: Row) -> str:
    ratios = (row["encode_ratio"], row["decode_ratio"], row["decode_into_ratio"])
    return " / ".join(f"{ratio:.1f}" for ratio in ratios if ratio is not None)


def _footnote(result: Result) -> str:
    machine = result["machine"]
    rows = result["rows"]
    rounds = max((row["rounds"] for row in rows), default=0)
    skipped = "".join(f" {name} was not there." for name in result["skipped"])
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}; one "
        f"thread unless the row says more; medians of up to {rounds} interleaved rounds, GB/s = 1e9 raw bytes/s. "
        f"Ratios: ours to the fastest peer that saves at least 4/5 of what the best one saves, encode / decode / into."
        f"{skipped} Made by `tersor bench {result['bench']} --peers -o bench/results/{result['bench']}.json`."
    )


_WRITERS = {
    "entropy": (
        "**Entropy coding**, 2 Mi symbols of 8 bits, tables built and read in the timing, decode into a given buffer:",
        ("over the entropy", "encode GB/s", "decode GB/s", "times the best peer"),
        _entropy_cells,
    ),
    "indexed": (
        "**Integers with a table each**, 64 Gaussian scales of 0.11 to 64, tables built before, NumPy in and out:",
        ("over the tables' bits", "encode M/s", "decode M/s", "into `out=` M/s", "times the best peer"),
        _indexed_cells,
    ),
    "lossless": (
        "**Exact tensors**, 32 MiB each, `decompress` into a fresh array and into one that is given:",
        ("bits a weight", "compress GB/s", "decompress GB/s", "into `out=` GB/s", "times the best peer"),
        _lossless_cells,
    ),
    "difference": (
        "**Tensors against a base**, 32 MiB each, `save` and `load` with `base=` a file, peers with it in memory:",
        ("bits a weight", "save GB/s", "load GB/s", "times the best peer"),
        _difference_cells,
    ),
}


def rewrite(text: str, table: str) -> str:
    """README's text with `table` between the marks. Raises ValueError when a mark is missing or stands twice."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README needs {BEGIN} and {END} once each")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def main() -> int:
    """Rewrite README.md in place."""
    readme = ROOT / "README.md"
    readme.write_text(rewrite(readme.read_text(), numbers_table(load())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
