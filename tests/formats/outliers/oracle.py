"""Outliers in plain NumPy, written from docs/formats/outliers.md."""

from __future__ import annotations

import numpy as np


class RefusedError(Exception):
    """The parts are no outliers."""


def need(condition: object, text: str) -> None:
    if not condition:
        raise RefusedError(text)


def add(parts: dict[str, np.ndarray], matrix: np.ndarray) -> np.ndarray:
    """float32 [N, K] with the term added. Raises RefusedError."""
    rows, columns = matrix.shape
    need(set(parts) == {"row_starts", "columns", "values"}, "other parts")
    starts, places, values = parts["row_starts"], parts["columns"], parts["values"]
    need((starts.dtype, starts.shape) == (np.uint32, (rows + 1,)), "row_starts")
    need(places.dtype == (np.uint16 if columns <= 65536 else np.uint32) and places.ndim == 1, "columns")
    need(values.dtype.name in ("float16", "bfloat16", "float32") and values.shape == places.shape, "values")
    need(np.isfinite(values.astype(np.float32)).all(), "values")
    starts = starts.astype(int)
    need(starts[0] == 0 and starts[-1] == len(places) and (np.diff(starts) >= 0).all(), "row_starts")
    out = matrix.copy()
    for n in range(rows):
        own = places[starts[n] : starts[n + 1]].astype(int)
        need((np.diff(own) > 0).all() and (own < columns).all(), "columns")
        out[n, own] += values[starts[n] : starts[n + 1]].astype(np.float32)
    return out
