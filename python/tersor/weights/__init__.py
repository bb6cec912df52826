"""Solvers: which numbers a format stores for a matrix, given what is known of the inputs that it will meet.

Their protocol is `Solver`; methods and their sources: docs/weights.md.
"""

from __future__ import annotations

from tersor.weights.coordinate_descent import CoordinateDescent
from tersor.weights.gptq import GPTQ
from tersor.weights.least_squares import LeastSquares
from tersor.weights.nearest import Nearest
from tersor.weights.solver import MissingStatisticsError, Solver

__all__ = ["GPTQ", "CoordinateDescent", "LeastSquares", "MissingStatisticsError", "Nearest", "Solver"]
