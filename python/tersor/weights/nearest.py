"""Rounding to nearest, which needs to know of no input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tersor.formats.format import parse
from tersor.formats.quantized import QuantizedTensor, quantize

if TYPE_CHECKING:
    from tersor.calibrate import Statistics
    from tersor.formats.format import Format


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """Each weight to the nearest level. clip, seed: as tersor.quantize takes them."""

    clip: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.clip not in ("none", "mse"):
            raise ValueError(f"clip is one of none, mse, not {self.clip!r}")

    def accepted(self, fmt: Format | str) -> Format:
        """Solver.accepted: any."""
        return parse(fmt)

    def solve(
        self, weight: object, fmt: Format | str, statistics: Statistics | None = None, *, threads: int = 0
    ) -> QuantizedTensor:
        """tersor.quantize; statistics are not read."""
        return quantize(weight, fmt, clip=self.clip, seed=self.seed, threads=threads)
