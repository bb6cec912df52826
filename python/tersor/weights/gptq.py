"""Rounding column by column, each error spread over the columns that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tersor.weights.solver import CLIPS, ORDERS, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tersor.calibrate import Statistics
    from tersor.formats.format import Format, Parts
    from tersor.formats.quantized import QuantizedTensor


@dataclass(frozen=True, kw_only=True)
class GPTQ:
    """Rounding with second-order error feedback, for grids. Frantar et al., GPTQ, ICLR 2023.

    Computed as LDLQ (Chee et al., QuIP, NeurIPS 2023), which gives the same numbers from one Cholesky factor and no
    inverse. Scales are chosen before, from the weights as they are, so that columns may be taken in any order.
    order: "activations" takes those of the largest mean square first, "columns" as they stand. damping: added to the
    Hessian's diagonal, a share of its mean; ten times as much as often as it has no Cholesky factor. clip: how scales
    are chosen, as tersor.quantize takes it.
    """

    order: str = "activations"
    damping: float = 0.01
    clip: str = "mse"

    def __post_init__(self) -> None:
        require_options(self.order, self.damping, self.clip)

    def solve(
        self, weight: object, fmt: Format | str, statistics: Statistics | None = None, *, threads: int = 0
    ) -> QuantizedTensor:
        """Solver.solve."""
        problem = Problem.of(weight, fmt, statistics, order=self.order, damping=self.damping)
        parts = problem.fmt.encode(problem.weight, clip=self.clip, seed=0, threads=threads)
        return problem.stored(parts, feedback_codes(problem, parts, threads), threads)


def feedback_codes(problem: Problem, parts: Parts, threads: int) -> NDArray[np.uint8]:
    """The codes for these scales, uint8 [N, K]: R with its columns divided by their diagonal is the feedback."""
    factor = (problem.factor / np.diag(problem.factor)).astype(np.float32, copy=False)
    return problem.fmt.choose(problem.weight, parts, factor, problem.order, threads=threads)[0]


def require_options(order: str, damping: float, clip: str) -> None:
    """Raise ValueError for what no solver by columns takes."""
    if order not in ORDERS:
        raise ValueError(f"order is one of {', '.join(ORDERS)}, not {order!r}")
    if not 0 <= damping <= 1:
        raise ValueError(f"damping is in [0, 1], not {damping}")
    if clip not in CLIPS:
        raise ValueError(f"clip is one of {', '.join(CLIPS)}, not {clip!r}")
