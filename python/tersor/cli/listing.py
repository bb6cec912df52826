"""What a .tsr file holds, as data and as a table."""

from __future__ import annotations

import os
import sys
from typing import Any

from tersor import _core, fsspec
from tersor.cli.text import amount, printable


def facts(name: str) -> dict[str, Any]:
    """Name, hash, version and one row a tensor; sizes in bytes. Raises FormatError, OSError."""
    with fsspec.local_input(name) as local:  # what is mapped stays when the copy goes
        file, stored = _core.TensorFile.open_index(os.fsencode(local)), os.stat(local).st_size
    return {
        "file": name,
        "version": file.version,
        "origin": file.origin,
        "hash": file.hash,
        "bases": file.bases,
        "metadata": dict(file.metadata),
        "tensors": [_row(entry) for entry in file.entries if entry.kind == "tensor" or file.origin == "file"],
        "bytes": sum(entry.nbytes for entry in file.entries),
        "stored": stored,
    }


def show(file: dict[str, Any]) -> None:
    """Print the facts as a table on stdout."""
    rows: list[tuple[str, ...]] = [
        (
            printable(row["name"]),
            row["dtype"],
            "x".join(map(str, row["shape"])) or "scalar",
            amount(row["bytes"]),
            amount(row["stored"]),
            _ratio(row["ratio"]),
            row["codec"],
        )
        for row in file["tensors"]
    ]
    _print_table(("tensor", "dtype", "shape", "bytes", "stored", "ratio", "codec"), rows, left=(0, 1, 2, 6))
    noun = "entry" if len(rows) == 1 else "entries"
    ratio = _ratio(file["bytes"] / file["stored"])
    print(
        f"{printable(file['file'])}: version {file['version']}, made from {file['origin']}, {len(rows)} {noun}, "
        f"{amount(file['bytes'])} -> {amount(file['stored'])} (ratio {ratio}), hash {file['hash']}"
    )
    for base in file["bases"]:
        count = sum(row.get("base") == base for row in file["tensors"])
        print(f"coded against a base with hash {base}: {count} of them")


def _row(entry: _core.Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "dtype": entry.dtype,
        "shape": list(entry.shape) if entry.kind == "tensor" else [entry.nbytes],
        "bytes": entry.nbytes,
        "stored": entry.stored,
        "ratio": round(entry.nbytes / entry.stored, 6) if entry.stored else None,
        "codec": entry.codec,
        **({"base": entry.base} if entry.base else {}),
    }


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _print_table(head: tuple[str, ...], rows: list[tuple[str, ...]], left: tuple[int, ...]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in [head, *rows]:
        padded = zip(row, widths, (i in left for i in range(len(row))), strict=True)
        cells = [text.ljust(width) if to_left else text.rjust(width) for text, width, to_left in padded]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
