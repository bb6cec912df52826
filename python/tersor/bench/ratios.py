"""How rows of one case compare: ours to the best peer, several threads to one.

A ratio is the median over the rounds of the two speeds of that round: when the machine slows down for a while, it slows
both, and only what was measured side by side is divided.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

# A peer enters the ratios when it does the same job: one that hardly compresses is a slow memcpy, not a rival.
SAME_JOB = 0.8  # of the bytes that the best peer saves


def ratio(speeds: Sequence[float], others: Sequence[float]) -> float:
    """Median of speeds[i] / others[i] over the rounds that both have."""
    return round(statistics.median(mine / other for mine, other in zip(speeds, others, strict=False)), 4)


def compare(rows: Sequence[Row]) -> None:
    """Fill in the ratios of our rows to the best comparable peer of the same case.

    best_peer is the fastest decoder among the peers that save at least four fifths of what the best peer saves,
    best_encode_peer the fastest encoder among them, smallest_peer the smallest of all. A peer that cannot decode into a
    given buffer stands with its fresh decode beside our decode_into.
    """
    peers = [row for row in rows if not row["ours"]]
    most_saved = max((_saved(row) for row in peers), default=0.0)
    rivals = [row for row in peers if _saved(row) >= SAME_JOB * most_saved]
    for row in rows:
        row.update(best_peer=None, best_encode_peer=None, best_decode_into_peer=None, smallest_peer=None)
        row.update(encode_ratio=None, decode_ratio=None, decode_into_ratio=None, size_ratio=None)
        if not row["ours"] or not rivals:
            continue
        for operation, name in (("encode", "best_encode"), ("decode", "best"), ("decode_into", "best_decode_into")):
            if operation in row["samples_gbps"]:
                best = max(rivals, key=lambda rival: statistics.median(_samples(rival, operation)))
                row[f"{name}_peer"] = best["impl"]
                row[f"{operation}_ratio"] = ratio(_samples(row, operation), _samples(best, operation))
        least = min(peers, key=lambda peer: float(peer["bits_per_element"]))
        row["smallest_peer"] = least["impl"]
        row["size_ratio"] = round(row["bits_per_element"] / least["bits_per_element"], 5)


def scale(rows: Sequence[Row]) -> None:
    """Set encode_scaling and decode_scaling of rows with several threads: times the same coder's row with one."""
    for row in rows:
        row.update(encode_scaling=None, decode_scaling=None)
        alone = next((one for one in rows if one["threads"] == 1 and one["options"] == row["options"]), None)
        if row["threads"] > 1 and row["ours"] and alone is not None:
            for operation in ("encode", "decode"):
                row[f"{operation}_scaling"] = ratio(_samples(row, operation), _samples(alone, operation))


def _saved(row: Row) -> float:
    return 1 - float(row["bytes_out"]) / float(row["bytes_in"])


def _samples(row: Row, operation: str) -> Sequence[float]:
    samples: dict[str, list[float]] = row["samples_gbps"]
    return samples.get(operation) or samples["decode"]
