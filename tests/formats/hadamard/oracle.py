"""Transforms in plain NumPy and Python integers, written from docs/formats/hadamard.md."""

from __future__ import annotations

import numpy as np

F = np.float32
WORD = (1 << 64) - 1


def sign(seed: int, k: int) -> int:
    z = seed + (k + 1) * 0x9E3779B97F4A7C15 & WORD
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & WORD
    return -1 if (z ^ z >> 31) >> 63 else 1


def square(x: int, p: int) -> int:
    """q of the page."""
    if x % p == 0:
        return 0
    return 1 if x % p in {y * y % p for y in range(1, p)} else -1


def factor_matrix(order: int) -> np.ndarray:
    found = np.ones((order, order), int)
    if order in (12, 20):
        for i in range(order):
            for j in range(order):
                if i != j:
                    found[i, j] = 1 if i == 0 else -1 if j == 0 else square(i - j, order - 1)
        return found
    symmetric = np.array(
        [[0 if i == j else 1 if 0 in (i, j) else square(i - j, 13) for j in range(14)] for i in range(14)]
    )
    one, other = np.array([[1, 1], [1, -1]]), np.array([[1, -1], [-1, -1]])
    return np.kron(symmetric, one) + np.kron(np.eye(14, dtype=int), other)


def layout(columns: int) -> tuple[int, int]:
    """Columns of a block, and f."""
    power = columns & -columns
    odd = columns // power
    return (columns, 4 * odd) if power >= 4 and odd in (3, 5, 7) else (power, 1)


def rotate(matrix: np.ndarray, seed: int | None, inverse: bool) -> np.ndarray:
    """float32 [N, K] -> [N, K]."""
    rows, columns = matrix.shape
    block, f = layout(columns)
    runs = block // f
    signs = np.array([1 if seed is None else sign(seed, k) for k in range(columns)], F)
    values = matrix if inverse else matrix * signs
    values = values.reshape(rows, columns // block, runs, f)
    half = 1
    while half < runs:
        pairs = values.reshape(rows, columns // block, runs // (2 * half), 2, half, f)
        a, b = pairs[:, :, :, 0], pairs[:, :, :, 1]
        values = np.stack([a + b, a - b], axis=3).reshape(values.shape)
        half *= 2
    if f > 1:
        entries = factor_matrix(f).T if inverse else factor_matrix(f)
        out = np.zeros(values.shape, F)
        for j in range(f):
            out = out + entries[:, j].astype(F) * values[..., j : j + 1]
        values = out
    values = (values * F(1 / np.sqrt(float(block)))).reshape(rows, columns)
    return values * signs if inverse else values
