"""Low-rank terms in plain NumPy, written from docs/formats/low_rank.md."""

from __future__ import annotations

import numpy as np

F = np.float32


class RefusedError(Exception):
    """The parts are no low-rank term."""


def need(condition: object, text: str) -> None:
    if not condition:
        raise RefusedError(text)


def add(parts: dict[str, np.ndarray], matrix: np.ndarray) -> np.ndarray:
    """float32 [N, K] with the term added. Raises RefusedError."""
    rows, columns = matrix.shape
    need({"u", "v"} <= set(parts), "u and v")
    u, v = parts["u"], parts["v"]
    need(u.dtype.name in ("float16", "bfloat16", "int8") and v.dtype == u.dtype and v.ndim == 2, "dtypes")
    rank = len(v)
    need(u.shape == (rows, rank) and v.shape == (rank, columns) and 1 <= rank <= min(rows, columns), "shapes")
    scales = {"u_scales", "v_scales"} if u.dtype == np.int8 else set()
    need(set(parts) == {"u", "v"} | scales, "scales")
    u, v = u.astype(F), v.astype(F)
    if scales:
        for name in scales:
            need((parts[name].dtype, parts[name].shape) == (np.float16, (rank,)), name)
            need(np.isfinite(parts[name]).all(), name)
        u, v = parts["u_scales"].astype(F) * u, parts["v_scales"].astype(F)[:, None] * v
    need(np.isfinite(u).all() and np.isfinite(v).all(), "finite")
    sums = np.zeros(matrix.shape, F)
    for r in range(rank):
        sums = sums + u[:, r : r + 1] * v[r]
    return matrix + sums
