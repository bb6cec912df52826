"""Vector codebooks in plain NumPy, written from docs/formats/codebook.md."""

from __future__ import annotations

from typing import Any

import numpy as np

F = np.float32


class RefusedError(Exception):
    """The parts are not those of a vector codebook."""


def need(condition: Any, text: str) -> None:
    if not condition:
        raise RefusedError(text)


def sizes_of(numbers: dict[str, Any], columns: int) -> tuple[int, int]:
    """Bits of a code, codes of a row."""
    return int(np.ceil(np.log2(numbers["entries"]))), -(-columns // numbers["dimension"])


def expected(numbers: dict[str, Any], rows: int, columns: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Part -> dtype and shape."""
    bits, vectors = sizes_of(numbers, columns)
    stages = numbers["stages"]
    return {
        "codes": ("uint8", (stages, rows, -(-vectors * bits // 8))),
        "codebook": ("float16", (stages, numbers["entries"], numbers["dimension"])),
        "scales": ("float16", (rows, 1)),
    }


def decode(numbers: dict[str, Any], parts: dict[str, np.ndarray], rows: int, columns: int) -> np.ndarray:
    """[N, K] float32. Raises RefusedError."""
    wanted = expected(numbers, rows, columns)
    need(set(parts) == set(wanted), "other parts")
    for name, (dtype, shape) in wanted.items():
        need((parts[name].dtype.name, parts[name].shape) == (dtype, shape), name)
    codebook, scales = parts["codebook"].astype(F), parts["scales"].astype(F)
    need(np.isfinite(codebook).all(), "codebook")
    need(np.isfinite(scales).all(), "scales")
    bits, vectors = sizes_of(numbers, columns)
    strings = np.unpackbits(parts["codes"], axis=2, bitorder="little")
    need((strings[..., vectors * bits :] == 0).all(), "unused bits")
    codes = strings[..., : vectors * bits].reshape(*strings.shape[:2], vectors, bits) @ (1 << np.arange(bits))
    need((codes < numbers["entries"]).all(), "a code beyond the entries")
    sums = np.zeros((rows, vectors, numbers["dimension"]), F)
    for stage in range(numbers["stages"]):
        sums = sums + codebook[stage][codes[stage]]
    return scales * sums.reshape(rows, -1)[:, :columns]


def packed(numbers: dict[str, Any], parts: dict[str, np.ndarray], rows: int, columns: int) -> dict[str, np.ndarray]:
    """The parts whose codes lie an element each, with packed codes."""
    bits, vectors = sizes_of(numbers, columns)
    codes = parts["codes"]
    wanted = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    need((codes.dtype, codes.shape) == (wanted, (numbers["stages"], rows, vectors)), "codes")
    need((codes < numbers["entries"]).all(), "a code beyond the entries")
    strings = codes[..., None].astype(int) >> np.arange(bits) & 1
    strings = strings.reshape(*codes.shape[:2], -1).astype(np.uint8)
    return {**parts, "codes": np.packbits(strings, axis=2, bitorder="little")}
