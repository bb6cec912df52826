"""Symbols of one byte, as the streams of 8-bit symbols take them and give them back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tersor.lossless import Elements, elements_of


def given(symbols: object) -> Elements:
    """Where an array's one-byte elements lie, in row-major order. Raises TypeError for wider ones and for no array."""
    found = elements_of(symbols)
    if found.nbytes != math.prod(found.shape):
        raise TypeError(f"symbols of 8 bits are needed, found {found.dtype}")
    return found


def room(out: Any, count: int) -> tuple[Any, Elements]:
    """The result, `out` or [count] uint8, and where its elements lie. Raises ValueError for another size of `out`."""
    result = np.empty(count, np.uint8) if out is None else out
    target = elements_of(result, writable=True)
    if target.nbytes != count or target.nbytes != math.prod(target.shape):
        raise ValueError(f"out holds {target.nbytes} bytes of {target.dtype}, {count} one-byte elements are needed")
    return result, target
