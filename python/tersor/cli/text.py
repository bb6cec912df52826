"""How amounts and names are written for people, and texts are read."""

from __future__ import annotations

from pathlib import Path


def amount(count: int) -> str:
    """90_870_000 -> "90.9 MB"; powers of 1000."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}"


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
