"""Sparse weights for tests/formats/test_every_format.py."""

import ml_dtypes
import numpy as np

# Alias -> the most relative error of Gaussian weights, measured at [48, 640] and rounded up.
ALIASES = {
    "bitmap-50": 0.28,
    "bitmap-50-int8": 0.28,
    "bitmap-30-int4-g64": 0.48,
    "bitmap": 0.00021,
    "2:4": 0.37,
    "2:4-int6": 0.37,
    "1:7-fp32": 0.74,
    "16:16-bf16": 0.0017,
    "3:256-int2-g32": 0.96,
    "block16-25": 0.81,
    "block7-50-int3-g32-exact": 0.56,
    "block256-bf16": 0.0017,
}


def damaged(numbers, parts):
    """Parts with one thing wrong, and a part of what is said about it."""
    for name in {"values", "scales"} & set(parts):
        if not parts[name].size:
            continue
        for bad in ("nan", "inf", "-inf"):
            wrong = parts[name].copy()
            wrong.reshape(-1)[-1] = float(bad)
            yield f"part {name}", {**parts, name: wrong}
    support = parts["support"].copy()
    if numbers["support"] != "nm":
        starts = parts["row_starts"]
        for at, by in ((0, 1), (1, 1), (len(starts) - 1, 1), (1, -1), (1, 1 << 31)):
            wrong = starts.astype(np.int64)
            wrong[at] += by
            yield "row_starts:", {**parts, "row_starts": (wrong % 2**32).astype(np.uint32)}
        # The support claims more than there is, and the row starts agree with it.
        support[-1] = np.packbits(np.ones(-(-37 // numbers["span"]), np.uint8), bitorder="little")
        wrong = starts.copy()
        wrong[-1] = wrong[-2] + 37
        if wrong[-1] != starts[-1]:
            yield "part (values|codes) is", {**parts, "support": support, "row_starts": wrong}
        return
    if numbers["keep"] > 1:
        support[1, :2] = 0  # twice the first position
        yield "support: span 0 of row 1", {**parts, "support": support}
    if numbers["span"] & (numbers["span"] - 1):
        support[2, 0] = 0xFF
        yield "support: span 0 of row 2", {**parts, "support": support}


def arbitrary(rng, numbers, expected, rows, columns):
    """Any parts that the page allows: rows with nothing, rows with all, scales of both signs, every code."""
    spans = -(-columns // numbers["span"])
    sizes = np.minimum(numbers["span"], columns - np.arange(spans) * numbers["span"])
    parts = {}
    if numbers["support"] == "nm":
        counts = np.minimum(numbers["keep"], sizes)
        drawn = [
            [np.sort(rng.choice(size, count, replace=False)) for size, count in zip(sizes, counts, strict=True)]
            for _ in range(rows)
        ]
        parts["support"] = np.array([np.concatenate(row) for row in drawn], np.uint8)
        kept = parts["support"].size
    else:
        bits = rng.random((rows, spans)) < rng.random((rows, 1))
        parts["support"] = np.packbits(bits, axis=1, bitorder="little")
        starts = np.concatenate([[0], np.cumsum((bits * sizes).sum(axis=1))])
        parts["row_starts"], kept = starts.astype(np.uint32), int(starts[-1])
    for name in {"values", "scales"} & set(expected):
        dtype, shape = expected[name]
        shape = (kept,) if name == "values" else shape
        some = rng.standard_normal(shape) * 10.0 ** rng.integers(-9, 5, shape)
        parts[name] = some.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        parts[name].reshape(-1)[::5] = 0
    if "codes" in expected:
        parts["codes"] = rng.integers(0, 1 << int(numbers["values"][3:]), kept).astype(np.uint8)
    return parts
