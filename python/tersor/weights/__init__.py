"""Solvers: which numbers a format stores for a matrix, given what is known of the inputs that it will meet.

Their protocol is `Solver`; methods and their sources: docs/weights.md.
"""

from __future__ import annotations

from tersor.weights.coordinate_descent import CoordinateDescent
from tersor.weights.decoupleq import DecoupleQ
from tersor.weights.gptq import GPTQ
from tersor.weights.hqq import HQQ
from tersor.weights.nearest import Nearest
from tersor.weights.nupes import Nupes
from tersor.weights.solver import MissingStatisticsError, Solver

__all__ = ["GPTQ", "HQQ", "CoordinateDescent", "DecoupleQ", "MissingStatisticsError", "Nearest", "Nupes", "Solver"]
