"""Allocators: which of its options each thing takes, so that all of them fit a budget and lose as little as they can.

They know rates and errors only. Their protocol is `Allocator`; methods and their sources: docs/budget.md.
"""

from __future__ import annotations

from tersor.budget.allocation import Allocation, Allocator, Point
from tersor.budget.dynamic_programming import DynamicProgramming
from tersor.budget.evopress import EvoPress, Generation

__all__ = ["Allocation", "Allocator", "DynamicProgramming", "EvoPress", "Generation", "Point"]
