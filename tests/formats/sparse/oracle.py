"""Sparse weights in plain NumPy, written from docs/formats/sparse.md."""

from __future__ import annotations

from typing import Any

import numpy as np

F = np.float32
FLOATS = {"fp16": "float16", "fp32": "float32", "bf16": "bfloat16"}


class RefusedError(Exception):
    """The parts are not those of a sparse matrix."""


def need(condition: Any, text: str) -> None:
    if not condition:
        raise RefusedError(text)


def span_sizes(numbers: dict[str, Any], columns: int) -> np.ndarray:
    return np.minimum(numbers["span"], columns - np.arange(0, columns, numbers["span"]))


def kept_positions(numbers: dict[str, Any], columns: int) -> np.ndarray:
    """How many positions each span has."""
    return np.minimum(numbers["keep"], span_sizes(numbers, columns))


def position_bits(numbers: dict[str, Any]) -> int:
    return int(np.ceil(np.log2(numbers["span"])))


def groups_of(numbers: dict[str, Any], rows: int, columns: int) -> tuple[int, int, int]:
    """Rows of scales, groups a row, columns a group."""
    group = numbers["group"]
    if group == "tensor":
        return 1, 1, columns
    return (rows, 1, columns) if group == "channel" else (rows, -(-columns // group), group)


def expected(
    numbers: dict[str, Any], rows: int, columns: int, kept: int | None = None
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Part -> dtype and shape; -1 where `kept` is not known and the shape depends on it."""
    spans = len(span_sizes(numbers, columns))
    parts: dict[str, tuple[str, tuple[int, ...]]] = {}
    if numbers["support"] == "nm":
        a_row = int(kept_positions(numbers, columns).sum())
        parts["support"] = ("uint8", (rows, -(-a_row * position_bits(numbers) // 8)))
        kept = rows * a_row
    else:
        parts["support"] = ("uint8", (rows, -(-spans // 8)))
        parts["row_starts"] = ("uint32", (rows + 1,))
    if numbers["values"] in FLOATS:
        parts["values"] = (FLOATS[numbers["values"]], (-1 if kept is None else kept,))
    else:
        parts["codes"] = ("uint8", (-1 if kept is None else -(-kept * int(numbers["values"][3:]) // 8),))
        parts["scales"] = (FLOATS[numbers["scale"]], groups_of(numbers, rows, columns)[:2])
    return parts


def mask_of(numbers: dict[str, Any], support: np.ndarray, columns: int) -> np.ndarray:
    """[N, K] booleans."""
    sizes = span_sizes(numbers, columns)
    strings = np.unpackbits(support, axis=1, bitorder="little")
    if numbers["support"] != "nm":
        need((strings[:, len(sizes) :] == 0).all(), "unused bits")
        return np.repeat(strings[:, : len(sizes)], sizes, axis=1).astype(bool)
    counts, bits = kept_positions(numbers, columns), position_bits(numbers)
    total = int(counts.sum())
    need((strings[:, total * bits :] == 0).all(), "unused bits")
    positions = strings[:, : total * bits].reshape(len(support), total, bits) @ (1 << np.arange(bits))
    mask = np.zeros((len(support), columns), bool)
    for n, row in enumerate(positions):
        at = 0
        for s, (count, size) in enumerate(zip(counts, sizes, strict=True)):
            own = row[at : at + count]
            need((np.diff(own) > 0).all(), "positions that do not ascend")
            need((own < size).all(), "a position beyond its span")
            mask[n, s * numbers["span"] + own] = True
            at += count
    return mask


def decode(numbers: dict[str, Any], parts: dict[str, np.ndarray], rows: int, columns: int) -> np.ndarray:
    """[N, K] float32. Raises RefusedError."""
    unknown = expected(numbers, rows, columns)
    need(set(parts) == set(unknown), "other parts")
    for name in ("support", "row_starts"):
        if name in unknown:
            need((parts[name].dtype.name, parts[name].shape) == unknown[name], name)
    mask = mask_of(numbers, parts["support"], columns)
    if "row_starts" in parts:
        need(parts["row_starts"].tolist() == [0, *np.cumsum(mask.sum(axis=1)).tolist()], "row_starts")
    kept = int(mask.sum())
    for name, wanted in expected(numbers, rows, columns, kept).items():
        need((parts[name].dtype.name, parts[name].shape) == wanted, name)
        if name in ("values", "scales"):
            need(np.isfinite(parts[name].astype(F)).all(), name)
    out = np.zeros((rows, columns), F)
    if "values" in parts:
        out[mask] = parts["values"].astype(F)
        return out
    bits = int(numbers["values"][3:])
    string = np.unpackbits(parts["codes"], bitorder="little")
    need((string[kept * bits :] == 0).all(), "unused bits")
    codes = string[: kept * bits].reshape(kept, bits) @ (1 << np.arange(bits))
    out[mask] = (codes - (1 << (bits - 1))).astype(F)
    at = np.arange(columns) // groups_of(numbers, rows, columns)[2]
    with np.errstate(over="ignore"):
        return np.where(mask, parts["scales"].astype(F)[:, at] * out, F(0))


def packed(numbers: dict[str, Any], parts: dict[str, np.ndarray], rows: int, columns: int) -> dict[str, np.ndarray]:
    """The parts whose codes and positions lie a byte each, with packed ones."""
    found = dict(parts)
    if numbers["support"] == "nm":
        positions, bits = parts["support"], position_bits(numbers)
        a_row = int(kept_positions(numbers, columns).sum())
        need((positions.dtype, positions.shape) == (np.uint8, (rows, a_row)), "support")
        need((positions < numbers["span"]).all(), "a position beyond the span")
        strings = (positions[..., None] >> np.arange(bits) & 1).reshape(rows, -1)
        found["support"] = np.packbits(strings.astype(np.uint8), axis=1, bitorder="little")
    if "codes" in parts:
        bits, codes = int(numbers["values"][3:]), parts["codes"]
        need(codes.dtype == np.uint8 and codes.ndim == 1, "codes")
        need((codes < 1 << bits).all(), "a code out of range")
        strings = (codes[:, None] >> np.arange(bits) & 1).reshape(-1)
        found["codes"] = np.packbits(strings.astype(np.uint8), bitorder="little")
    return found
