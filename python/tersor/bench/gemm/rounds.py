"""One point measured: roofs, ours and the peers in turn, round by round."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from typing import Any

from tersor.bench.gemm.points import Point
from tersor.bench.gemm.roofs import Roofs
from tersor.bench.gemm.weights import Way
from tersor.bench.ratios import ratio

Row = dict[str, Any]

LEAST_SAMPLE_S, QUICK_SAMPLE_S = 0.01, 0.0005
ENOUGH_S = 3.0  # a way that has used so much time has been measured, once it has so many samples:
ENOUGH_SAMPLES = 3
_PAUSE_S = 0.006  # threads of other libraries look for work for a while after theirs is done


class _Run:
    """A way's samples, seconds a product. Weights go on where the last sample left off, so that they stay cold."""

    def __init__(self, way: Way, least: float):
        self.way, self._call, self._least = way, 0, least
        self.samples: list[float] = []
        self._time(1)
        self._calls = max(1, round(least / max(min(self._time(1), self._time(1)), 1e-7)))

    def _time(self, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            self.way.multiply(self._call)
            self._call += 1
        return (time.perf_counter() - start) / calls

    def sample(self) -> None:
        done = sum(self.samples) * self._calls * self.way.a_call
        if len(self.samples) >= ENOUGH_SAMPLES and done > ENOUGH_S:
            return
        if self._least > QUICK_SAMPLE_S:
            time.sleep(_PAUSE_S)
        if self._calls > 1:
            self._time(1)
        self.samples.append(self._time(self._calls) / self.way.a_call)


def measure(
    point: Point, ways: Sequence[Way], roofs: Roofs, *, rounds: int, least: float = LEAST_SAMPLE_S
) -> list[Row]:
    """A row a way: seconds, bytes and operations a second, shares of the roofs of the same rounds."""
    runs = [_Run(way, least) for way in ways]
    unit = "fma" if point.unit in roofs.absent and point.unit == "bf16" else point.unit  # what exact falls back to
    reads: list[float] = []
    peaks: list[float] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            for name, into in (("dram", reads), (unit, peaks)):
                rate = roofs.sample(name, point.threads)
                if rate is not None:
                    into.append(rate)
            start = number % len(runs)
            for run in runs[start:] + runs[:start]:
                run.sample()
    finally:
        if collecting:
            gc.enable()
    return [_row(point, unit, run, reads, peaks) for run in runs]


def _row(point: Point, unit: str, run: _Run, reads: list[float], peaks: list[float]) -> Row:
    way, samples = run.way, run.samples
    best, median = min(samples), statistics.median(samples)
    row: Row = {
        "case": point.case,
        "impl": way.name,
        "ours": way.ours,
        "dense": way.dense,
        "threads": point.threads,
        "options": {
            "format": point.format,
            "activations": point.activations,
            "shape": [point.rows, point.columns],
            "tokens": point.tokens,
        },
        "matrix_bytes": way.nbytes,
        "us": round(median * 1e6, 2),
        "best_us": round(best * 1e6, 2),
        "gbps": round(way.nbytes / median / 1e9, 3),
        "best_gbps": round(way.nbytes / best / 1e9, 3),
        "gops": round(point.operations / median / 1e9, 2),
        "best_gops": round(point.operations / best / 1e9, 2),
        "unit": unit,
    }
    for name, work, rates in (("dram", way.nbytes, reads), ("unit", point.operations, peaks)):
        there = bool(rates)
        row[f"{name}_share"] = round(work / best / max(rates), 4) if there else None
        row[f"{name}_median_share"] = ratio([work / seconds for seconds in samples], rates) if there else None
        row[f"{name}_best"] = round(max(rates) / 1e9, 2) if there else None
    row["rounds"] = len(samples)
    row["samples_us"] = [round(seconds * 1e6, 2) for seconds in samples]
    row.update(best_peer=None, peer_ratio=None, peer_ratios={}, scaling=None)
    return row


def compare(rows: Sequence[Row]) -> None:
    """Fill in the ratios of our row of a point to its peers: their best time over ours. Dense weights are no rival."""
    for row in rows:
        if not row["ours"]:
            continue
        row["peer_ratios"] = {
            peer["impl"]: round(peer["best_us"] / row["best_us"], 3) for peer in rows if not peer["ours"]
        }
        rivals = {peer["impl"]: peer["best_us"] for peer in rows if not peer["ours"] and not peer["dense"]}
        if rivals:
            row["best_peer"] = min(rivals, key=lambda name: float(rivals[name]))
            row["peer_ratio"] = row["peer_ratios"][row["best_peer"]]


def scale(rows: Sequence[Row]) -> None:
    """Set `scaling` of rows with several threads: times the same row's speed with one."""
    alone = {(row["case"], row["impl"]): row["best_us"] for row in rows if row["threads"] == 1}
    for row in rows:
        one = alone.get((row["case"], row["impl"]))
        if row["threads"] > 1 and one is not None:
            row["scaling"] = round(one / row["best_us"], 3)
