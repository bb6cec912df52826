"""One column after the other takes the codes that are best while the others stay, until nothing changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tersor.weights.gptq import chosen, require_options
from tersor.weights.solver import Problem, grid_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tersor.calibrate import Statistics
    from tersor.formats.format import Format, Parts
    from tersor.formats.grid_format import GridFormat
    from tersor.formats.quantized import QuantizedTensor


@dataclass(frozen=True, kw_only=True)
class CoordinateDescent:
    """Cyclic coordinate descent on the layer's error, from GPTQ's codes. Behdin et al., QuantEase, arXiv:2309.01885.

    No pass raises the error of the layer's outputs over the inputs of the statistics (but by what float32 rounds away),
    so that it is no worse than GPTQ with the same options. Damping is a part of that error only where there are fewer
    tokens than columns. passes: at most; fewer where nothing changes any more. order, damping, clip: those of GPTQ.
    """

    passes: int = 20
    order: str = "activations"
    damping: float = 0.01
    clip: str = "search"

    def __post_init__(self) -> None:
        require_options(self.order, self.damping, self.clip, self.passes)

    def accepted(self, fmt: Format | str) -> GridFormat:
        """Solver.accepted: a format with a code a weight."""
        return grid_of(fmt)

    def solve(
        self, weight: object, fmt: Format | str, statistics: Statistics | None = None, *, threads: int = 0
    ) -> QuantizedTensor:
        """Solver.solve."""
        problem = Problem.of(weight, fmt, statistics, order=self.order, damping=self.damping)
        parts, codes = chosen(problem, self.clip, threads)
        return problem.stored(parts, improved(problem, parts, codes, self.passes, threads), threads)


def improved(problem: Problem, parts: Parts, codes: NDArray[np.uint8], passes: int, threads: int) -> NDArray[np.uint8]:
    """Codes after so many passes, uint8 [N, K]."""
    factor: NDArray[np.float32] = np.divide(problem.hessian, np.diag(problem.hessian), dtype=np.float32)
    return problem.fmt.choose(
        problem.weight, parts, factor, problem.order, codes=codes, passes=passes, threads=threads
    )[0]
