"""float_group in plain NumPy, written from docs/formats/float_group.md: a reader, and our writer's rule without clip.

The writer rounds with ml_dtypes, the reader reads bits as the page has them.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

F = np.float32
ELEMENTS = {  # bits, exponent bits, mantissa bits, bias, largest, codes of sizes above which are refused, ml_dtypes'
    "e2m1": (4, 2, 1, 1, 6, 7, ml_dtypes.float4_e2m1fn),
    "e2m3": (6, 2, 3, 1, 7.5, 31, ml_dtypes.float6_e2m3fn),
    "e3m2": (6, 3, 2, 3, 28, 31, ml_dtypes.float6_e3m2fn),
    "e4m3": (8, 4, 3, 7, 448, 0x7E, ml_dtypes.float8_e4m3fn),
    "e5m2": (8, 5, 2, 15, 57344, 0x7B, ml_dtypes.float8_e5m2),
}
FLOATS = {"fp16": np.float16, "fp32": np.float32, "bf16": ml_dtypes.bfloat16}


class RefusedError(Exception):
    """The parts are not a float_group's."""


def need(condition: Any, text: str) -> None:
    if not condition:
        raise RefusedError(text)


def values(codes: np.ndarray, element: str) -> np.ndarray:
    bits, _, mantissa_bits, bias, _, most, _ = ELEMENTS[element]
    sizes = codes & ((1 << (bits - 1)) - 1)
    need((sizes <= most).all(), "no finite number")
    exponent, mantissa = sizes >> mantissa_bits, (sizes & ((1 << mantissa_bits) - 1)) / 2.0**mantissa_bits
    found = np.where(exponent > 0, (1 + mantissa) * 2.0 ** (exponent - bias), mantissa * 2.0 ** (1 - bias))
    return np.where(codes >> (bits - 1) & 1, -found, found).astype(F)


def groups_of(numbers: dict[str, Any], rows: int, columns: int) -> tuple[int, int, int]:
    """Rows of numbers, groups a row, columns a group."""
    group = numbers["group"]
    if group == "tensor":
        return 1, 1, columns
    if group == "channel":
        return rows, 1, columns
    return rows, -(-columns // group), group


def scales_of(numbers: dict[str, Any], parts: dict[str, np.ndarray]) -> np.ndarray:
    scales = parts["scales"]
    if numbers["scale"] == "e8m0":
        need((scales < 255).all(), "scales")
        return (2.0 ** (scales.astype(float) - 127)).astype(F)
    if numbers["scale"] == "e4m3":
        need(np.isfinite(parts["tensor_scale"]).all(), "tensor_scale")
        return values(scales.astype(int), "e4m3") * parts["tensor_scale"][0]
    found = scales.astype(F)
    need(np.isfinite(found).all(), "scales")
    return found


def expected(numbers: dict[str, Any], rows: int, columns: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Part -> dtype and shape."""
    bits, (of_rows, groups, _) = ELEMENTS[numbers["element"]][0], groups_of(numbers, rows, columns)
    parts: dict[str, tuple[str, tuple[int, ...]]] = {
        "codes": ("uint8", (rows, -(-columns * bits // 8))),
        "scales": (np.dtype(FLOATS.get(numbers["scale"], np.uint8)).name, (of_rows, groups)),
    }
    if numbers["scale"] == "e4m3":
        parts["tensor_scale"] = ("float32", (1,))
    return parts


def decode(numbers: dict[str, Any], parts: dict[str, np.ndarray], rows: int, columns: int) -> np.ndarray:
    """[N, K] float32. Raises RefusedError."""
    bits, group = ELEMENTS[numbers["element"]][0], groups_of(numbers, rows, columns)[2]
    wanted = expected(numbers, rows, columns)
    need(set(parts) == set(wanted), "other parts")
    for name, (dtype, shape) in wanted.items():
        need((parts[name].dtype.name, parts[name].shape) == (dtype, shape), name)
    strings = np.unpackbits(parts["codes"], axis=1, bitorder="little")
    need((strings[:, columns * bits :] == 0).all(), "unused bits")
    codes = strings[:, : columns * bits].reshape(rows, columns, bits) @ (1 << np.arange(bits))
    with np.errstate(over="ignore"):
        return scales_of(numbers, parts)[:, np.arange(columns) // group] * values(codes, numbers["element"])


def encode(numbers: dict[str, Any], weights: np.ndarray) -> dict[str, np.ndarray]:
    """The parts that our writer makes of float32 [N, K] without clip."""
    rows, columns = weights.shape
    bits, _, _, _, largest, _, dtype = ELEMENTS[numbers["element"]]
    of_rows, groups, group = groups_of(numbers, rows, columns)
    padded = np.pad(np.abs(weights), ((0, 0), (0, groups * group - columns)))
    most = padded.reshape(rows, groups, group).max(axis=2)
    if of_rows != rows:
        most = most.max(keepdims=True)
    parts: dict[str, np.ndarray] = {}
    if numbers["scale"] == "e8m0":
        exponents = np.frexp(most)[1] - 1 - int(np.floor(np.log2(largest)))
        parts["scales"] = np.where(most == 0, 0, np.clip(exponents + 127, 0, 254)).astype(np.uint8)
    elif numbers["scale"] == "e4m3":
        parts["tensor_scale"] = (np.abs(weights).max(keepdims=True) / F(448 * largest)).reshape(1).astype(F)
        if parts["tensor_scale"][0] == 0:
            parts["scales"] = np.zeros(most.shape, np.uint8)
        else:
            blocks = np.clip(most / F(largest) / parts["tensor_scale"][0], F(0), F(448))
            parts["scales"] = blocks.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    else:
        parts["scales"] = (most / F(largest)).astype(FLOATS[numbers["scale"]])
    scales = scales_of(numbers, parts)[:, np.arange(columns) // group]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotients = np.where(scales == 0, F(0), weights / scales)
    codes = np.clip(quotients, -F(largest), F(largest)).astype(dtype).view(np.uint8).astype(int) & ((1 << bits) - 1)
    strings = codes[..., None] >> np.arange(bits) & 1
    parts["codes"] = np.packbits(strings.reshape(rows, -1).astype(np.uint8), axis=1, bitorder="little")
    return parts


def packed(numbers: dict[str, Any], parts: dict[str, np.ndarray], rows: int, columns: int) -> dict[str, np.ndarray]:
    """The parts whose codes lie a byte each, with packed codes."""
    bits, codes = ELEMENTS[numbers["element"]][0], parts["codes"]
    need((codes.dtype, codes.shape) == (np.uint8, (rows, columns)), "codes")
    need((codes < 1 << bits).all(), "a code out of range")
    strings = codes[..., None] >> np.arange(bits, dtype=np.uint8) & 1
    return {**parts, "codes": np.packbits(strings.reshape(rows, -1), axis=1, bitorder="little")}
