"""Which rows of a case are worth choosing: the lower convex hull of size against time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def on_hull(points: Sequence[tuple[float, float]]) -> list[bool]:
    """points: (size, time) pairs, less of both is better. True for those that no mixture of two others beats.

    The hull runs from the smallest size to the least time; a duplicate of a hull point is on it too.
    """
    chain: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if chain and point[1] >= chain[-1][1]:
            continue  # larger and no faster
        while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
            chain.pop()
        chain.append(point)
    return [point in chain for point in points]


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def mark(rows: list[dict[str, Any]]) -> None:
    """Set encode_hull and decode_hull of every row of one case: None for rows that used several threads, a part of the
    input, or a lowered instruction set, since they answer another question."""
    whole = max((row["bytes_in"] for row in rows), default=0)
    for operation in ("encode", "decode"):
        fit = [
            row
            for row in rows
            if row["threads"] == 1 and row["bytes_in"] == whole and not row.get("held") and f"{operation}_gbps" in row
        ]
        marks = on_hull([(row["bits_per_element"], 1 / row[f"{operation}_gbps"]) for row in fit])
        for row in rows:
            row[f"{operation}_hull"] = None
        for row, is_on in zip(fit, marks, strict=True):
            row[f"{operation}_hull"] = is_on
