"""Solvers: which numbers a format stores for a matrix, given what is known of the inputs that it will meet.

Their protocol is `Solver`, what puts them together with transforms and side terms is `LayerRecipe`, and of a model
`Recipe`. Methods and their sources: docs/weights.md.
"""

from __future__ import annotations

from typing import NamedTuple

from tersor.weights.composition import output_error
from tersor.weights.coordinate_descent import CoordinateDescent
from tersor.weights.decoupleq import DecoupleQ
from tersor.weights.gptq import GPTQ
from tersor.weights.hqq import HQQ
from tersor.weights.layer_recipe import LayerRecipe
from tersor.weights.least_squares import LeastSquares
from tersor.weights.nearest import Nearest
from tersor.weights.nupes import Nupes
from tersor.weights.recipe import Recipe, Rule
from tersor.weights.solver import MissingStatisticsError, Solver

__all__ = [
    "GPTQ",
    "HQQ",
    "SOLVERS",
    "CoordinateDescent",
    "DecoupleQ",
    "LayerRecipe",
    "LeastSquares",
    "MissingStatisticsError",
    "Nearest",
    "Nupes",
    "Recipe",
    "Row",
    "Rule",
    "Solver",
    "output_error",
]


class Row(NamedTuple):
    """A method by name: the class that solves one matrix, whether it needs statistics, and where it is from.

    of_models: the method goes on from the class's codes with the whole model at hand.
    """

    solver: type[Solver]
    statistics: bool
    source: str
    of_models: bool = False


SOLVERS = {
    "rtn": Row(Nearest, False, "rounding to nearest"),
    "gptq": Row(GPTQ, True, "Frantar et al., GPTQ, ICLR 2023"),
    "cd": Row(CoordinateDescent, True, "Behdin et al., QuantEase, arXiv:2309.01885"),
    "decoupleq": Row(DecoupleQ, True, "Guo et al., decoupleQ, arXiv:2404.12759"),
    "hqq": Row(HQQ, False, "Badri and Shaji, half-quadratic quantization, 2023"),
    "nupes": Row(Nupes, False, "Yvinec et al., NUPES, arXiv:2308.05600"),
    "learned": Row(DecoupleQ, True, "Cheng et al., SignRound, arXiv:2309.05516", of_models=True),
    "discquant": Row(DecoupleQ, True, "Chee et al., DiscQuant, arXiv:2501.06417", of_models=True),
}
