"""The measuring harness: one case, several ways to do its work, one row each.

A case is verified before it is timed. Then every round times every codec once, so that whatever else the machine does
falls on all of them alike, and each figure is a median over the rounds with its spread. Sizes are in bytes, speeds in
GB/s = 1e9 bytes of uncompressed data a second.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tersor.bench import hull, ratios

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Row = dict[str, Any]

LEAST_SAMPLE_S = 0.004  # shorter calls are repeated: the clock and the call itself would show
WARM_BYTES = 8 << 20
ENOUGH_S = 6.0  # a codec that has used so much time on one operation has been measured


class AbsentError(Exception):
    """A peer that this machine does not have. The text says what is missing and what would bring it."""


class WrongBytesError(AssertionError):
    """A codec did not give back what it was given, or changed its input."""


@dataclass(frozen=True, kw_only=True)
class Codec:
    """One way to do the work of a case.

    encode(array) -> coded; decode(coded, out) -> array or buffer, where `out` is a uint8 array of the exact size, or
    None for a fresh result. `prepare` runs before every encode and is not timed; `setting` is entered around every
    call, not timed either (thread counts, ISA levels).
    """

    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any, Bytes | None], Any]
    size: Callable[[Any], int] = len
    prepare: Callable[[Any], Any] = lambda array: array
    setting: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    policies: tuple[str, ...] = ("fresh", "given")
    ours: bool = False
    threads: int = 1
    held: str | None = None  # the instruction set that `setting` lowers the machine to
    limit_bytes: int | None = None  # slow codecs see the first so many bytes
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is coded: a flat array, the fewest bits an element that the model allows, and where results go."""

    name: str
    data: np.ndarray[Any, Any]
    about: str
    floor_bits: float | None = None
    policies: tuple[str, ...] = ("fresh", "given")  # the first is `decode`, a second one `decode_into`


@dataclass
class Timing:
    """Seconds of each round for one operation."""

    seconds: list[float] = field(default_factory=list)

    def rates(self, raw_bytes: int) -> list[float]:
        """GB/s of each round."""
        return [raw_bytes / seconds / 1e9 for seconds in self.seconds]


def as_bytes(value: Any) -> Bytes:
    """The raw bytes of an array or buffer, without a copy; of a list of integers, as 32 bits each."""
    if isinstance(value, list):
        return np.asarray(value, np.int32).view(np.uint8)
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return np.frombuffer(value, np.uint8)


class _Run:
    """One codec on one case: its coded form and its timings. `out` is shared by all, and touched by verifying."""

    def __init__(self, case: Case, codec: Codec, out: Bytes):
        data = case.data
        if codec.limit_bytes is not None:
            data = data[: max(1, codec.limit_bytes // data.itemsize)]
        self.codec, self.data = codec, data
        self.policies = [policy for policy in case.policies if policy in codec.policies]
        self.out = out[: data.nbytes]
        self.timings: dict[str, Timing] = {name: Timing() for name in ("encode", *self.policies)}
        self.repeats: dict[str, int] = {}
        with codec.setting():
            self._verify()

    def _verify(self) -> None:
        codec, raw = self.codec, as_bytes(self.data)
        before = raw.copy()
        self.coded = codec.encode(codec.prepare(self.data))
        if not np.array_equal(raw, before):
            raise WrongBytesError(f"{codec.name} changed the array that it was to encode")
        for policy in self.policies:
            self.out[:] = 0x5A
            decoded = codec.decode(self.coded, self.out if policy == "given" else None)
            got = self.out if policy == "given" else as_bytes(decoded)
            if got.size != before.size or not np.array_equal(got, before):
                raise WrongBytesError(
                    f"{codec.name} ({policy} output): {got.size} bytes came back, not the {before.size} given"
                )

    def _call(self, operation: str) -> float:
        codec = self.codec
        if operation == "encode":
            prepared = codec.prepare(self.data)
            start = time.perf_counter()
            result = codec.encode(prepared)
        else:
            out = self.out if operation == "given" else None
            start = time.perf_counter()
            result = codec.decode(self.coded, out)
        elapsed = time.perf_counter() - start
        del result  # freeing is the caller's affair, and the same for all
        return elapsed

    def warm(self) -> None:
        with self.codec.setting():
            for operation in self.timings:
                once = self._call(operation)
                if once < ENOUGH_S / 10:
                    once = min(once, self._call(operation))
                self.repeats[operation] = max(1, round(LEAST_SAMPLE_S / max(once, 1e-9)))

    def sample(self) -> None:
        with self.codec.setting():
            for operation, timing in self.timings.items():
                if timing.seconds and sum(timing.seconds) * self.repeats[operation] > ENOUGH_S:
                    continue
                repeats = self.repeats[operation]
                if self.data.nbytes <= WARM_BYTES:
                    self._call(operation)  # what fits the caches is measured in them, whoever ran before
                timing.seconds.append(sum(self._call(operation) for _ in range(repeats)) / repeats)


class _Ceiling:
    """memcpy of the case's bytes on one core: into warm memory, and into memory asked for anew."""

    def __init__(self, data: np.ndarray[Any, Any]):
        self.source = as_bytes(data)
        self.target = self.source.copy()
        self.timings = {"given": Timing(), "fresh": Timing()}

    def sample(self) -> None:
        repeats = max(1, int(LEAST_SAMPLE_S * 8e9 / self.source.size))
        start = time.perf_counter()
        for _ in range(repeats):
            np.copyto(self.target, self.source)
        self.timings["given"].seconds.append((time.perf_counter() - start) / repeats)
        elapsed = 0.0
        for _ in range(repeats):
            start = time.perf_counter()
            copy = self.source.copy()
            elapsed += time.perf_counter() - start
            del copy
        self.timings["fresh"].seconds.append(elapsed / repeats)


def measure(case: Case, codecs: Sequence[Codec], *, rounds: int) -> list[Row]:
    """Time every codec on a case, interleaved; one row a codec, ratios filled in.

    Raises WrongBytesError when a codec fails its round trip, ValueError for fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"a measurement takes at least one round, not {rounds}")
    out = np.zeros(case.data.nbytes, np.uint8)
    runs = [_Run(case, codec, out) for codec in codecs]
    for run in runs:
        run.warm()
    ceiling = _Ceiling(case.data)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            ceiling.sample()
            start = number % len(runs) if runs else 0  # nobody always runs behind the same neighbor
            for run in runs[start:] + runs[:start]:
                run.sample()
    finally:
        if collecting:
            gc.enable()
    rows = [_row(case, run, ceiling) for run in runs]
    ratios.compare(rows)
    ratios.scale(rows)
    hull.mark(rows)
    return rows


def _row(case: Case, run: _Run, ceiling: _Ceiling) -> Row:
    codec, raw = run.codec, run.data.nbytes
    stored = int(codec.size(run.coded))
    bits = 8 * stored / run.data.size
    row: Row = {
        "case": case.name,
        "impl": codec.name,
        "ours": codec.ours,
        "threads": codec.threads,
        "held": codec.held,
        "options": codec.options,
        "bytes_in": raw,
        "bytes_out": stored,
        "bits_per_element": round(bits, 4),
        "floor_bits": None if case.floor_bits is None else round(case.floor_bits, 4),
        "over_floor_percent": None,
    }
    if case.floor_bits and codec.limit_bytes is None:
        row["over_floor_percent"] = round(100 * (bits / case.floor_bits - 1), 3)
    names = dict(zip(case.policies, ("decode", "decode_into"), strict=False))
    samples = {names.get(operation, operation): timing.rates(raw) for operation, timing in run.timings.items()}
    for name, rates in samples.items():
        low, median, high = np.percentile(rates, [25, 50, 75])
        row[f"{name}_gbps"] = round(float(median), 4)
        row[f"{name}_best_gbps"] = round(max(rates), 4)
        row[f"{name}_spread"] = round(float((high - low) / median), 4)
    row["rounds"] = len(samples["encode"])
    row["output"] = run.policies[0] if run.policies else None
    policy = case.policies[0]
    memcpy = ceiling.timings[policy].rates(ceiling.source.size)
    target = "warm" if policy == "given" else "fresh"
    row["ceiling"] = f"memcpy of the raw bytes, one core, {target} target"
    row["ceiling_gbps"] = round(float(np.median(memcpy)), 3)
    row["warm_ceiling_gbps"] = round(float(np.median(ceiling.timings["given"].rates(ceiling.source.size))), 3)
    row["share_of_ceiling"] = ratios.ratio(samples["decode"], memcpy) if "decode" in samples else None
    row["samples_gbps"] = {name: [round(rate, 4) for rate in rates] for name, rates in samples.items()}
    return row
