"""Scalar codebooks for tests/formats/test_every_format.py."""

import ml_dtypes
import numpy as np

# Alias -> the most relative error of Gaussian weights, measured at [48, 640] and rounded up.
ALIASES = {
    "nf4": 0.093,
    "nf4-exact": 0.093,
    "codebook4": 0.36,
    "codebook5-channel-none": 0.29,
    "codebook16": 0.11,
    "codebook16-tensor-g64-bf16": 0.092,
    "codebook17-channel-g32-fp32": 0.082,
    "codebook16-group-g256": 0.11,
    "codebook100-channel": 0.032,
    "codebook256-tensor": 0.014,
}


def damaged(numbers, parts):
    """Parts with one thing wrong, and a part of what is said about it."""
    for name in {"codebook", "scales"} & set(parts):
        for bad in ("nan", "inf", "-inf"):
            wrong = parts[name].copy()
            wrong.reshape(-1)[-1] = float(bad)
            yield f"part {name}", {**parts, name: wrong}
    if numbers["levels"] & (numbers["levels"] - 1):
        codes = parts["codes"].copy()
        codes[1, 0] = 0xFF
        yield "codes: row 1 holds", {**parts, "codes": codes}


def arbitrary(rng, numbers, expected, rows, columns):
    """Any parts that the page allows: tables in no order, scales of both signs, every code."""
    parts = {"codes": rng.integers(0, numbers["levels"], (rows, columns)).astype(np.uint8)}
    for name, (dtype, shape) in expected.items():
        if dtype != "uint8":
            some = rng.standard_normal(shape) * 10.0 ** rng.integers(-9, 5, shape)
            parts[name] = some.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
            parts[name].reshape(-1)[::5] = 0
    return parts
