"""Scalar codebooks in plain NumPy, written from docs/formats/codebook.md."""

from __future__ import annotations

from typing import Any

import numpy as np

F = np.float32
FLOATS = {"fp16": "float16", "fp32": "float32", "bf16": "bfloat16"}
NF4 = """-1  -0.6961928009986877  -0.5250730514526367  -0.39491748809814453  -0.28444138169288635  -0.18477343022823334
-0.09105003625154495  0  0.07958029955625534  0.16093020141124725  0.24611230194568634  0.33791524171829224
0.44070982933044434  0.5626170039176941  0.7229568362236023  1"""


class RefusedError(Exception):
    """The parts are not those of a scalar codebook."""


def need(condition: Any, text: str) -> None:
    if not condition:
        raise RefusedError(text)


def bits_of(numbers: dict[str, Any]) -> int:
    bits = int(np.ceil(np.log2(numbers["levels"])))
    return 8 if bits == 7 else bits


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """[rows, bytes] -> [rows, count]; unused bits must be 0."""
    strings = np.unpackbits(packed, axis=1, bitorder="little")
    need((strings[:, count * bits :] == 0).all(), "unused bits")
    return strings[:, : count * bits].reshape(len(packed), count, bits) @ (1 << np.arange(bits))


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    strings = codes[..., None] >> np.arange(bits) & 1
    return np.packbits(strings.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")


def groups_of(numbers: dict[str, Any], rows: int, columns: int) -> tuple[int, int, int]:
    """Rows of scales, groups a row, columns a group."""
    group = numbers["group"]
    if group == "tensor":
        return 1, 1, columns
    return (rows, 1, columns) if group == "channel" else (rows, -(-columns // group), group)


def expected(numbers: dict[str, Any], rows: int, columns: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Part -> dtype and shape."""
    of_rows, groups, _ = groups_of(numbers, rows, columns)
    levels = numbers["levels"]
    parts: dict[str, tuple[str, tuple[int, ...]]] = {"codes": ("uint8", (rows, -(-columns * bits_of(numbers) // 8)))}
    shapes = {"tensor": (1, levels), "channel": (rows, levels), "group": (rows, groups, levels)}
    if numbers["scope"] != "nf4":
        parts["codebook"] = (FLOATS[numbers["storage"]], shapes[numbers["scope"]])
    if numbers["scale"] != "none":
        parts["scales"] = (FLOATS[numbers["scale"]], (of_rows, groups))
    return parts


def check(wanted: dict[str, tuple[str, tuple[int, ...]]], parts: dict[str, np.ndarray]) -> None:
    need(set(parts) == set(wanted), "other parts")
    for name, (dtype, shape) in wanted.items():
        need((parts[name].dtype.name, parts[name].shape) == (dtype, shape), name)
        if dtype != "uint8":
            need(np.isfinite(parts[name].astype(F)).all(), name)


def decode(numbers: dict[str, Any], parts: dict[str, np.ndarray], rows: int, columns: int) -> np.ndarray:
    """[N, K] float32. Raises RefusedError."""
    check(expected(numbers, rows, columns), parts)
    codes = unpack(parts["codes"], bits_of(numbers), columns)
    need((codes < numbers["levels"]).all(), "a code beyond the levels")
    _, groups, group = groups_of(numbers, rows, columns)
    at = np.arange(columns) // group
    nf4 = np.array([F(level) for level in NF4.split()])
    tables = nf4 if numbers["scope"] == "nf4" else parts["codebook"].astype(F)
    if numbers["scope"] != "group":
        tables = np.broadcast_to(tables.reshape(-1, 1, numbers["levels"]), (rows, groups, numbers["levels"]))
    levels = tables[np.arange(rows)[:, None], at, codes]
    if numbers["scale"] == "none":
        return levels
    with np.errstate(over="ignore"):
        return parts["scales"].astype(F)[:, at] * levels


def packed(numbers: dict[str, Any], parts: dict[str, np.ndarray], rows: int, columns: int) -> dict[str, np.ndarray]:
    """The parts whose codes lie a byte each, with packed codes."""
    codes = parts["codes"]
    need((codes.dtype, codes.shape) == (np.uint8, (rows, columns)), "codes")
    need((codes < numbers["levels"]).all(), "a code beyond the levels")
    return {**parts, "codes": pack(codes.astype(int), bits_of(numbers))}
