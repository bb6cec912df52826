"""How one matrix is stored: a format, a solver, and what stands around them. Page: docs/weights.md, Recipes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tersor.formats import parse
from tersor.formats.format import ACTIVATIONS
from tersor.formats.int_group import IntGroup
from tersor.weights import composition
from tersor.weights.config import require_types
from tersor.weights.gptq import require_options
from tersor.weights.solver import CLIPS

if TYPE_CHECKING:
    from tersor.calibrate import Statistics
    from tersor.formats.quantized import QuantizedTensor
    from tersor.weights import Row
    from tersor.weights.solver import Solver

GRIDS = ("", "minmax", "mse", "hessian", "search")
TRANSFORMS = ("", "awq", "smooth", "hadamard", "permute")
OUTLIER_KINDS = ("sensitivity", "magnitude", "columns")
RANK_DTYPES = ("int8", "fp16", "bf16")


@dataclass(frozen=True, kw_only=True)
class LayerRecipe:
    """What becomes of one matrix [N, K]: W = undo(transform, what the solver stores) + outliers + low rank.

    format: an alias, "int4-g128". solver: a row of tersor.weights.SOLVERS. grid: how scales are chosen, "" as the
    solver does unless told. transform: "" for none, "awq" or "smooth" (scales of columns), "hadamard" (by `seed`) or
    "permute" (columns by their inputs' mean square, largest first). outliers: the share of weights, or of columns, that
    is kept in fp16 beside the rest; outlier_kind: "sensitivity" (SpQR), "magnitude" or "columns" (LLM.int8). rank: of a
    product of two thin matrices of `rank_dtype` that mends what is left (EoRA). activations: how x is read, "" as the
    format has it. damping, order: those of the solver.
    Raises ValueError (a format that the solver does not take, too) and TypeError: what was found, what is needed.
    """

    format: str
    solver: str = "gptq"
    grid: str = ""
    transform: str = ""
    outliers: float = 0.0
    outlier_kind: str = "sensitivity"
    rank: int = 0
    rank_dtype: str = "int8"
    activations: str = ""
    seed: int = 0
    damping: float = 0.01
    order: str = "activations"

    def __post_init__(self) -> None:
        require_types(self)
        parse(self.format)
        for name, known in {
            "solver": tuple(_rows()),
            "grid": GRIDS,
            "transform": TRANSFORMS,
            "outlier_kind": OUTLIER_KINDS,
            "rank_dtype": RANK_DTYPES,
            "activations": ("", *ACTIVATIONS),
        }.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(map(repr, known))}, not {getattr(self, name)!r}")
        if not 0 <= self.outliers < 1:
            raise ValueError(f"outliers are a share in [0, 1), not {self.outliers}")
        if self.rank < 0:
            raise ValueError(f"rank is 0 or more, not {self.rank}")
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed is in 0..2**64 - 1, not {self.seed}")
        require_options(self.order, self.damping, CLIPS[0])
        solver = self.made_solver()
        try:
            fmt = solver.accepted(self.format)
        except TypeError as error:
            raise ValueError(f"format, for {self.solver}: {error}") from None
        if _rows()[self.solver].of_models and not isinstance(fmt, IntGroup):
            raise ValueError(f"format, for {self.solver}: integers in groups are needed, not {fmt}")

    @property
    def needs_statistics(self) -> bool:
        """Whether `solve` must know of the layer's inputs."""
        return (
            _rows()[self.solver].statistics
            or self.grid == "hessian"
            or self.transform in ("awq", "smooth", "permute")
            or (self.outliers > 0 and self.outlier_kind != "magnitude")
            or self.rank > 0
        )

    def solve(self, weight: object, statistics: Statistics | None = None, *, threads: int = 0) -> QuantizedTensor:
        """Store a matrix: [N, K] as tersor.quantize takes it; statistics: of its inputs, K columns.

        Outliers are chosen and taken away, what is left is transformed and solved, the outliers' values are set anew
        for the codes that were found ("sensitivity"), and the low-rank term is fitted to what is left then. A method of
        whole models gives what it begins from. `errors` of the result has "weights" and, with statistics, "outputs",
        which is output_error.
        Raises MissingStatisticsError, and what the solver raises.
        """
        return composition.solve(self, weight, statistics, threads)

    def made_solver(self) -> Solver:
        """The solver with the options of this recipe that it knows. Raises ValueError (a grid that it does not)."""
        solver = _rows()[self.solver].solver
        known = {field.name for field in dataclasses.fields(solver)}  # type: ignore[arg-type]
        given: dict[str, Any] = {"order": self.order, "damping": self.damping, "seed": self.seed}
        options = {name: value for name, value in given.items() if name in known}
        if self.grid:
            if "clip" not in known:
                raise ValueError(f"{self.solver} chooses scales itself: grid is '', not {self.grid!r}")
            options["clip"] = "none" if self.grid == "minmax" else self.grid
        return solver(**options)


def _rows() -> dict[str, Row]:
    from tersor.weights import SOLVERS  # its rows name classes that stand beside this one

    return SOLVERS
