"""int_group in plain NumPy, written from docs/formats/int_group.md: a reader, and our writer's rule without clip."""

from __future__ import annotations

from typing import Any

import numpy as np

F = np.float32
FLOATS = {"fp16": "float16", "fp32": "float32", "bf16": "bfloat16"}


class RefusedError(Exception):
    """The parts are not an int_group's."""


def need(condition: Any, text: str) -> None:
    if not condition:
        raise RefusedError(text)


def code_count(numbers: dict[str, Any]) -> int:
    return 3 if numbers["bits"] == "ternary" else 1 << numbers["bits"]


def unpack(packed: np.ndarray, bits: int | str, columns: int) -> np.ndarray:
    """[N, bytes] -> [N, K]; unused bits and trits must be 0."""
    if bits == "ternary":
        need((packed <= 242).all(), "a byte that is no five trits")
        codes = packed[..., None].astype(int) // 3 ** np.arange(5) % 3
        codes = codes.reshape(len(packed), -1)
    else:
        strings = np.unpackbits(packed, axis=1, bitorder="little")
        need((strings[:, columns * bits :] == 0).all(), "unused bits")
        return strings[:, : columns * bits].reshape(len(packed), columns, bits) @ (1 << np.arange(bits))
    need((codes[:, columns:] == 0).all(), "unused trits")
    return codes[:, :columns]


def pack(codes: np.ndarray, bits: int | str) -> np.ndarray:
    if bits == "ternary":
        padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 5)))
        return (padded.reshape(len(codes), -1, 5) @ 3 ** np.arange(5)).astype(np.uint8)
    strings = codes[..., None] >> np.arange(bits) & 1
    return np.packbits(strings.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")


def groups_of(numbers: dict[str, Any], rows: int, columns: int) -> tuple[int, int, int]:
    """Rows of numbers, groups a row, columns a group."""
    group = numbers["group"]
    if group == "tensor":
        return 1, 1, columns
    if group == "channel":
        return rows, 1, columns
    return rows, -(-columns // group), group


def expected(numbers: dict[str, Any], rows: int, columns: int) -> dict[str, tuple[str, tuple[int, int]]]:
    """Part -> dtype and shape."""
    bits, scale = numbers["bits"], numbers["scale"]
    of_rows, groups, _ = groups_of(numbers, rows, columns)
    row_bytes = -(-columns // 5) if bits == "ternary" else -(-columns * bits // 8)
    dtype = FLOATS.get(scale, "uint8")
    parts = {"codes": ("uint8", (rows, row_bytes)), "scales": (dtype, (of_rows, groups))}
    if numbers["mode"] == "zero":
        parts["zeros"] = ("uint8", (of_rows, groups))
    if numbers["mode"] == "minimum":
        parts["minimums"] = (dtype, (of_rows, groups))
    if scale.startswith("super"):
        supers = (of_rows, -(-groups // (256 // numbers["group"])))
        parts["super_scales"] = ("float16", supers)
        if numbers["mode"] == "minimum":
            parts["super_minimums"] = ("float16", supers)
    return parts


def check(wanted: dict[str, tuple[str, tuple[int, int]]], parts: dict[str, np.ndarray]) -> None:
    need(set(parts) == set(wanted), "other parts")
    for name, (dtype, shape) in wanted.items():
        need((parts[name].dtype.name, parts[name].shape) == (dtype, shape), name)


def levels(numbers: dict[str, Any], codes: np.ndarray) -> np.ndarray:
    bits = numbers["bits"]
    if numbers["mode"] != "symmetric":
        return codes.astype(F)
    if bits == "ternary":
        return (codes - 1).astype(F)
    return (2 * codes - 1 if bits == 1 else codes - 2 ** (bits - 1)).astype(F)


def group_numbers(numbers: dict[str, Any], parts: dict[str, np.ndarray], name: str) -> np.ndarray:
    """scales or minimums as float32."""
    own = parts[name].astype(F)
    need(np.isfinite(own).all(), name)
    if not numbers["scale"].startswith("super"):
        return own
    need((parts[name] < 1 << int(numbers["scale"][-1])).all(), name)
    supers = parts[f"super_{name}"].astype(F)
    need(np.isfinite(supers).all(), f"super_{name}")
    return np.repeat(supers, 256 // numbers["group"], axis=1)[:, : own.shape[1]] * own


def decode(numbers: dict[str, Any], parts: dict[str, np.ndarray], rows: int, columns: int) -> np.ndarray:
    """[N, K] float32. Raises RefusedError."""
    check(expected(numbers, rows, columns), parts)
    codes = unpack(parts["codes"], numbers["bits"], columns)
    group = groups_of(numbers, rows, columns)[2]
    at = np.arange(columns) // group
    with np.errstate(over="ignore", invalid="ignore"):
        values = levels(numbers, codes)
        if numbers["mode"] == "zero":
            need((parts["zeros"] < code_count(numbers)).all(), "zeros")
            values = values - parts["zeros"].astype(F)[:, at]
        values = group_numbers(numbers, parts, "scales")[:, at] * values
        if numbers["mode"] == "minimum":
            values = values + group_numbers(numbers, parts, "minimums")[:, at]
    return values


def mean_size(some: np.ndarray) -> np.float32:
    """The mean of absolute values: eight lanes of doubles a row, added in order, then the rows."""
    total = 0.0
    for row in np.abs(some).astype(np.float64):
        lanes = [np.cumsum(row[lane::8])[-1] for lane in range(min(8, len(row)))]
        total += np.cumsum(lanes)[-1]
    return F(total / some.size)


def number_type(numbers: dict[str, Any]) -> Any:
    import ml_dtypes

    kinds = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
    return kinds.get(numbers["scale"], F)


def choose(numbers: dict[str, Any], some: np.ndarray) -> tuple[np.float32, int, np.float32]:
    """Scale, zero and minimum of a group before super-numbers, as they are stored."""
    bits, mode, stored = numbers["bits"], numbers["mode"], number_type(numbers)
    under_super = numbers["scale"].startswith("super")
    low, high = some.min(), some.max()
    if mode == "symmetric":
        if bits in (1, "ternary"):
            scale = mean_size(some)
        elif under_super:
            scale = max(abs(low), abs(high)) / F(2 ** (bits - 1) - 1)
        else:
            scale = -(low if -low >= high else high) / F(2 ** (bits - 1))
        return F(stored(scale)), 0, F(0)
    most = F(2**bits - 1)
    if mode == "zero":
        low, high = min(low, F(0)), max(high, F(0))
        scale = F(stored(high / most - low / most))
        zero = 0 if scale <= 0 else int(np.rint(np.clip(-low / scale, F(0), most)))
        return scale, zero, F(0)
    if under_super:
        low = min(low, F(0))
    minimum = F(stored(low))
    return F(stored(max(high / most - minimum / most, F(0)))), 0, minimum


def under_supers(numbers: dict[str, Any], own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers and super-numbers for numbers [N, G] of one sign."""
    span, most = 256 // numbers["group"], F(2 ** int(numbers["scale"][-1]) - 1)
    rows, groups = own.shape
    padded = np.pad(own, ((0, 0), (0, -groups % span))).reshape(rows, -1, span)
    at = np.abs(padded).argmax(axis=2)[..., None]
    supers = (np.take_along_axis(padded, at, 2)[..., 0] / most + F(0)).astype(np.float16)
    wide = supers.astype(F)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(wide == 0, F(0), padded / wide)
    integers = np.rint(np.clip(ratios, F(0), most)).astype(np.uint8)
    return integers.reshape(rows, -1)[:, :groups], supers


def encode(numbers: dict[str, Any], weights: np.ndarray) -> dict[str, np.ndarray]:
    """The parts that our writer makes of float32 [N, K] without clip."""
    rows, columns = weights.shape
    bits, mode, dtype = numbers["bits"], numbers["mode"], number_type(numbers)
    of_rows, groups, group = groups_of(numbers, rows, columns)
    scales, minimums = np.zeros((2, of_rows, groups), F)
    zeros = np.zeros((of_rows, groups), int)
    for n in range(of_rows):
        for g in range(groups):
            some = weights if of_rows != rows else weights[n : n + 1, g * group : (g + 1) * group]
            scales[n, g], zeros[n, g], minimums[n, g] = choose(numbers, some)
    parts = {"scales": scales.astype(dtype)}
    if mode == "zero":
        parts["zeros"] = zeros.astype(np.uint8)
    if mode == "minimum":
        parts["minimums"] = minimums.astype(dtype)
    if numbers["scale"].startswith("super"):
        for name, own in (("scales", scales), ("minimums", minimums))[: 1 + (mode == "minimum")]:
            parts[name], parts[f"super_{name}"] = under_supers(numbers, own)
    at = np.arange(columns) // group
    scale = group_numbers(numbers, parts, "scales")[:, at]
    minimum = group_numbers(numbers, parts, "minimums")[:, at] if mode == "minimum" else F(0)
    if bits == 1 and mode == "symmetric":
        codes = np.broadcast_to(weights >= 0, weights.shape).astype(int)
    else:
        center = {"ternary": 1}.get(bits, 2 ** (bits - 1) if bits != "ternary" else 1)
        offset = zeros[:, at] if mode == "zero" else center if mode == "symmetric" else 0
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            level = np.where(scale == 0, F(0), (weights - minimum) / scale)
        codes = np.rint(np.clip(level, -offset, code_count(numbers) - 1 - offset)).astype(int) + offset
    return {**parts, "codes": pack(codes, bits)}


def packed(numbers: dict[str, Any], parts: dict[str, np.ndarray], rows: int, columns: int) -> dict[str, np.ndarray]:
    """The parts whose codes lie a byte each, with packed codes."""
    codes = parts["codes"]
    need((codes.dtype, codes.shape) == (np.uint8, (rows, columns)), "codes")
    need((codes < code_count(numbers)).all(), "a code out of range")
    return {**parts, "codes": pack(codes.astype(int), numbers["bits"])}
