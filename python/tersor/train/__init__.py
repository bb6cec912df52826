"""What learns through rounding: grids that pass gradients on, modules with other weights, and the descent of codes."""

from __future__ import annotations

from tersor.train.integer_grid import IntegerGrid, round_through
from tersor.train.learned_codes import Descent, LearnedCodes
from tersor.train.substitution import Call, Loss, Substituted, batches

__all__ = ["Call", "Descent", "IntegerGrid", "LearnedCodes", "Loss", "Substituted", "batches", "round_through"]
