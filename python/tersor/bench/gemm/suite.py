"""The run of `tersor bench gemm`: points in order, and what is loaded once for several of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tersor.bench.gemm import extras, goals, ik_llama, peers, rounds, weights
from tersor.bench.gemm.points import Point, points
from tersor.bench.gemm.roofs import NAMES, Roofs
from tersor.bench.harness import AbsentError, WrongBytesError

if TYPE_CHECKING:
    import argparse

ROUNDS, QUICK_ROUNDS = 9, 2
EXTRAS = ("call", "packing", "model")
Row = dict[str, Any]


def measure(arguments: argparse.Namespace) -> Row:
    """Measure what the options leave: rows, goals, roofs, extras, pages, skipped. Raises WrongBytesError (ours),
    AbsentError (no compiler for the roofs), ValueError (an unknown format)."""
    quick = bool(arguments.quick)
    roofs = Roofs(quick=quick)
    chosen = points(
        quick=quick,
        formats=arguments.format,
        shapes=arguments.shape,
        tokens=arguments.tokens,
        activations=arguments.activations,
        threads=arguments.threads,
        cases=arguments.case,
    )
    run = _Run(roofs, quick=quick, with_peers=arguments.peers, impls=arguments.impl, rounds=arguments.rounds)
    for point in chosen:
        run.point(point)
    for name in NAMES:
        for threads in arguments.threads or (1, 2):
            roofs.sample(name, threads)
    rounds.scale(run.rows)
    named = arguments.case or []
    selected = arguments.format or arguments.shape or arguments.tokens or arguments.activations or named
    beside = run.extras([name for name in EXTRAS if not selected or name in named])
    huge = "hugetlb=1" in os.environ.get("GLIBC_TUNABLES", "")
    judged = [entry for row in run.rows if row["ours"] for entry in goals.judge(row, huge_pages=huge)]
    return {
        "pages": {
            "weights": "huge pages by madvise",
            "peers": "huge pages by glibc (glibc.malloc.hugetlb=1)" if huge else "as shipped",
            "rotation_bytes": run.rotation,
        },
        "ik_llama": ik_llama.facts() if arguments.peers else None,
        "roofs": roofs.rows(),
        "rows": run.rows,
        "extras": beside,
        "goals": [*judged, *([] if quick else goals.judge_extras(beside))],
        "skipped": run.skipped | {f"roof {name}": reason for name, reason in roofs.absent.items()},
    }


class _Run:
    """What points share: a matrix and its peers a shape, packed copies a format."""

    def __init__(
        self, roofs: Roofs, *, quick: bool, with_peers: bool, impls: Sequence[str] | None, rounds: int | None
    ) -> None:
        self.rows: list[Row] = []
        self.skipped: dict[str, str] = {}
        self.rotation = weights.QUICK_ROTATION if quick else weights.ROTATION
        self._roofs, self._quick, self._with_peers, self._impls = roofs, quick, with_peers, impls
        self._rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
        self._matrix = weights.Matrix(rows=1, columns=1)
        self._packed: tuple[str, list[Any]] = ("", [])
        self._loaded: dict[str, peers.Loaded | None] = {}

    def _wanted(self, name: str) -> bool:
        return not self._impls or any(text in name for text in self._impls)

    def point(self, point: Point) -> None:
        """Measure a point; keeps its rows, or why there are none."""
        if (point.rows, point.columns) != (self._matrix.rows, self._matrix.columns):
            self._packed, self._loaded = ("", []), {}
            self._matrix = weights.Matrix(rows=point.rows, columns=point.columns, rotation=self.rotation)
        with peers.torch_held(point.threads):
            ways = [] if not self._wanted("tersor") else self._ours(point)
            if not ways and (not self._impls or self._wanted("tersor")):
                return  # peers alone say nothing about what is not there
            ways += self._peers(point) if self._with_peers else []
            if not ways:
                return
            least = rounds.QUICK_SAMPLE_S if self._quick else rounds.LEAST_SAMPLE_S
            rows = rounds.measure(point, ways, self._roofs, rounds=self._rounds, least=least)
        rounds.compare(rows)
        self.rows += rows
        print(_line(rows[0]), file=sys.stderr, flush=True)

    def _ours(self, point: Point) -> list[weights.Way]:
        name = f"{point.format} {point.activations}"
        if name in self.skipped:
            return []
        try:
            if self._packed[0] != point.format:
                self._packed = ("", [])  # those before go first
                self._packed = (point.format, self._matrix.packed(point.format))
            way = weights.ours(self._matrix, self._packed[1], point.activations, point.tokens, point.threads)
        except AbsentError as reason:
            self.skipped[name] = str(reason)
            print(f"skipped {name}: {reason}", file=sys.stderr, flush=True)
            return []
        try:
            weights.verify_ours(self._matrix, way, point.format, point.activations, point.tokens)
        except WrongBytesError as error:
            raise WrongBytesError(f"{point.case}, {point.threads} threads: {error}") from None
        return [way]

    def _peers(self, point: Point) -> list[weights.Way]:
        found = []
        for name in filter(self._wanted, peers.rivals(point)):
            try:
                if name not in self._loaded:
                    self._loaded[name] = None
                    self._loaded[name] = peers.PEERS[name](self._matrix)
                loaded = self._loaded[name]
                if loaded is None:
                    continue
                way = loaded(self._matrix.x(point.tokens), point.threads)
                weights.verify_peer(self._matrix, way, point.tokens)
            except Exception as error:  # whatever a peer raises, it is the peer that cannot
                first = next(iter(str(error).splitlines()), "")
                reason = first if isinstance(error, AbsentError) else f"{type(error).__name__}: {first}"
                self.skipped[f"{name}, {point.rows}x{point.columns} M={point.tokens}"] = reason
                continue
            found.append(way)
        return found

    def extras(self, names: Sequence[str]) -> list[Row]:
        """The rows of a call's cost, of packing, of the model."""
        shape = (64, 256) if self._quick else (4096, 4096)
        square = weights.Matrix(rows=shape[0], columns=shape[1])
        llama = extras.QUICK_LLAMA if self._quick else extras.Llama()
        self._packed, self._loaded = ("", []), {}
        made: dict[str, Callable[[], list[Row]]] = {
            "call": lambda: [extras.call_cost(seconds=0.005 if self._quick else 0.2)],
            "packing": lambda: [extras.packing(square, rounds=min(3, self._rounds))],
            "model": lambda: extras.model(self._roofs, shape=llama, rounds=self._rounds),
        }
        return [row for name in names for row in made[name]()]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _line(row: Row) -> str:
    text = (
        f"{row['case']} T={row['threads']}: {row['best_us']:.0f} us, {_percent(row['dram_share'])} of memory's roof, "
    )
    text += f"{_percent(row['unit_share'])} of the {row['unit']} peak"
    return text + (f", {row['peer_ratio']:.2f} x {row['best_peer']}" if row["best_peer"] else "")


def summary(result: Row) -> str:
    """How many goals are met: "31 of 40 goals are met"."""
    met = sum(bool(entry["met"]) for entry in result["goals"])
    return f"{met} of {len(result['goals'])} goals are met"
