"""How amounts and names are written for people, and sizes and texts are read."""

from __future__ import annotations

import argparse
import re
from pathlib import Path


def amount(count: int) -> str:
    """90_870_000 -> "90.9 MB"; powers of 1000."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}"


def parse_size(text: str) -> int:
    """Bytes: "12MiB" -> 12_582_912, "90.9 MB" -> 90_900_000, "1500" and "1500 B" -> 1500; case does not matter.

    Raises argparse.ArgumentTypeError, so that it can be the type of an argument.
    """
    from decimal import Decimal

    found = re.fullmatch(r"([0-9]+|[0-9]*\.[0-9]+) *(?:([kmgt]i?)?b)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError(f"a size like 12MiB, 90.9 MB or 1500 (bytes) is needed, not {text!r}")
    prefix = (found[2] or "").lower()
    step = 1024 if prefix.endswith("i") else 1000
    return int(Decimal(found[1]) * step ** " kmgt".index(prefix[:1] or " "))


def printable(name: str) -> str:
    """A name as a terminal may show it: control characters of a hostile file are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def read_text(name: str) -> str:
    """A file's text. Raises OSError, ValueError (no UTF-8: where)."""
    data = Path(name).read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: UTF-8 is needed, byte {error.start} is {data[error.start]:#04x}") from None
