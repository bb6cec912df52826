"""Beside the points: what a call costs, how fast matrices are packed, and all linear layers of a model at one token."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tersor.bench.gemm.roofs import Roofs
from tersor.bench.gemm.weights import Matrix

Row = dict[str, Any]
FORMAT = "int4-g128"


@dataclass(frozen=True, kw_only=True)
class Llama:
    """The shape of a Llama: no values. The default is that of 1B parameters."""

    hidden: int = 2048
    layers: int = 16
    heads: int = 32
    key_heads: int = 8
    intermediate: int = 8192
    vocabulary: int = 128256

    def shapes(self) -> list[tuple[int, int]]:
        """[N, K] of the linear layers, in the order in which a token meets them."""
        keys = self.hidden // self.heads * self.key_heads
        layer = [
            (self.hidden, self.hidden),
            (keys, self.hidden),
            (keys, self.hidden),
            (self.hidden, self.hidden),
            (self.intermediate, self.hidden),
            (self.intermediate, self.hidden),
            (self.hidden, self.intermediate),
        ]
        return [*(layer * self.layers), (self.vocabulary, self.hidden)]


QUICK_LLAMA = Llama(hidden=128, layers=2, heads=4, key_heads=2, intermediate=256, vocabulary=512)


def call_cost(*, seconds: float = 0.05) -> Row:
    """One token on 64x64, float32, one thread: almost nothing but the call."""
    import tersor
    from tersor import gemm

    packed = gemm.PackedMatrix.of(tersor.quantize(Matrix(rows=64, columns=64).block, "int4-g32"))
    x = np.ones((1, 64), np.float32)
    best, _ = _timed(lambda: gemm.linear(x, packed, threads=1), 7, seconds)
    return {"what": "call", "case": "a call, 64x64 M=1", "threads": 1, "us": round(best * 1e6, 2)}


def packing(matrix: Matrix, name: str = FORMAT, *, threads: int = 1, rounds: int = 3) -> Row:
    """PackedMatrix.of, its memory among it: bytes of the packed matrix a second."""
    from tersor import gemm

    tensor = matrix.quantized(name)
    nbytes = gemm.PackedMatrix.of(tensor, threads=threads).nbytes
    best, median = _timed(lambda: gemm.PackedMatrix.of(tensor, threads=threads), rounds, 0.0)
    return {
        "what": "packing",
        "case": f"packing {name} {matrix.rows}x{matrix.columns}",
        "threads": threads,
        "ms": round(median * 1e3, 2),
        "gbps": round(nbytes / best / 1e9, 3),
    }


def model(roofs: Roofs, *, shape: Llama, threads: tuple[int, ...] = (1, 2), rounds: int = 7) -> list[Row]:
    """All linear layers of a model in order, a token at a time, int4-g128: a matrix of memory of its own each.

    tokens_per_s, and the share of what their bytes allow where memory is read at its roof, measured between.
    """
    from tersor import gemm

    masters: dict[tuple[int, int], gemm.PackedMatrix] = {}
    layers = []
    for rows, columns in shape.shapes():
        if (rows, columns) not in masters:
            masters[rows, columns] = gemm.PackedMatrix.of(Matrix(rows=rows, columns=columns).quantized(FORMAT))
        layers.append(masters[rows, columns].copy())
    nbytes = sum(layer.nbytes for layer in layers)
    weights = sum(rows * columns for rows, columns in shape.shapes())
    inputs = {columns: Matrix(rows=64, columns=columns).x(1) for _, columns in shape.shapes()}
    found = []
    for used in threads:

        def token(used: int = used) -> None:
            for layer in layers:
                gemm.linear(inputs[layer.shape[1]], layer, activations="int8", threads=used)

        token()
        samples, reads = [], []
        for _ in range(rounds):
            read = roofs.sample("dram", used)
            reads.append(read or 0.0)
            start = time.perf_counter()
            token()
            samples.append(time.perf_counter() - start)
        case = f"{weights / 1e9:.2f}B weights in {len(layers)} layers, {FORMAT} int8, one token"
        found.append({"what": "model", "case": case, "threads": used, **token_rates(nbytes, samples, reads)})
    return found


def token_rates(nbytes: int, samples: Sequence[float], reads: Sequence[float]) -> Row:
    """Of seconds a token that reads so many bytes, beside what memory gave between, in bytes a second (0: no roof)."""
    return {
        "bytes": nbytes,
        "tokens_per_s": round(1 / statistics.median(samples), 2),
        "best_tokens_per_s": round(1 / min(samples), 2),
        "gbps": round(nbytes / min(samples) / 1e9, 2),
        "dram_share": round(nbytes / min(samples) / max(reads), 4) if max(reads) else None,
    }


def _timed(call: Callable[[], object], rounds: int, seconds: float) -> tuple[float, float]:
    """Best and median seconds of a call, each of the rounds lasting so long."""
    call()
    start = time.perf_counter()
    call()
    repeats = max(1, round(seconds / rounds / max(time.perf_counter() - start, 1e-7)))
    samples = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        samples.append((time.perf_counter() - start) / repeats)
    return min(samples), statistics.median(samples)
