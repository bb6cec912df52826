"""Roofs of this machine, measured: bytes a second from memory, operations a second of its multipliers."""

from __future__ import annotations

import ctypes
import statistics
from pathlib import Path

from tersor.bench import native
from tersor.bench.harness import AbsentError

NAMES = ("dram", "vnni", "bf16", "fma")  # as roofs.c numbers them
ABOUT = {
    "dram": "reading memory in huge pages, one stream a thread",
    "vnni": "VPDPBUSD of 512 bits",
    "bf16": "VDPBF16PS of 512 bits",
    "fma": "fp32 multiply-adds",
}
READ_BYTES, QUICK_READ_BYTES = 256 << 20, 8 << 20
_SECONDS = 0.004  # of a sample of operations
_MOST_THREADS = 256


class Roofs:
    """Samples of what this machine can do, all of one run: [name, threads] -> rates. Raises AbsentError (no compiler).

    absent: name -> why a roof is not there.
    """

    def __init__(self, *, quick: bool = False) -> None:
        self._library = native.library(Path(__file__).with_name("roofs.c"), "-pthread")
        self._library.roof_memory.restype = ctypes.c_void_p
        self._library.roof_rate.restype = ctypes.c_double
        self._bytes = QUICK_READ_BYTES if quick else READ_BYTES
        self._memory = self._library.roof_memory(ctypes.c_size_t(self._bytes))
        if not self._memory:
            raise AbsentError(f"no {self._bytes} bytes of memory to read")
        self.rates: dict[tuple[str, int], list[float]] = {}
        self.absent = {
            name: f"this CPU has no {ABOUT[name]}"
            for number, name in enumerate(NAMES)
            if not self._library.roof_is_there(number)
        }
        self._amounts = dict.fromkeys(NAMES, 4_000_000)
        self._amounts["dram"] = self._bytes
        for name in NAMES[1:]:  # how many operations take so long
            if name not in self.absent:
                self._rate(name, 1)
                self._amounts[name] = int(self._rate(name, 1) * (_SECONDS / 8 if quick else _SECONDS))

    def _rate(self, name: str, threads: int) -> float:
        memory = ctypes.c_void_p(self._memory)
        amount = ctypes.c_size_t(self._amounts[name])
        return float(self._library.roof_rate(NAMES.index(name), threads, memory, amount))

    def sample(self, name: str, threads: int) -> float | None:
        """One more rate, bytes or operations a second; None where the roof is absent. Raises ValueError (threads)."""
        if not 1 <= threads <= _MOST_THREADS:
            raise ValueError(f"roofs take 1 to {_MOST_THREADS} threads, not {threads}")
        if name in self.absent:
            return None
        rate = self._rate(name, threads)
        self.rates.setdefault((name, threads), []).append(rate)
        return rate

    def rows(self) -> list[dict[str, object]]:
        """Best and median of every roof, in GB/s or GOPS."""
        return [
            {
                "roof": name,
                "about": ABOUT[name],
                "threads": threads,
                "unit": "GB/s" if name == "dram" else "GOPS",
                "best": round(max(rates) / 1e9, 2),
                "median": round(statistics.median(rates) / 1e9, 2),
                "samples": len(rates),
            }
            for (name, threads), rates in sorted(self.rates.items(), key=lambda item: (NAMES.index(item[0][0]), item))
        ]
