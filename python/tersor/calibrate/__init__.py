"""What solvers want to know of a layer's inputs, gathered once and used by every method."""

from __future__ import annotations

from tersor.calibrate.statistics import Statistics

__all__ = ["Statistics"]
