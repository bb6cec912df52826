"""int_group for tests/formats/test_every_format.py."""

import ml_dtypes
import numpy as np

# Alias -> the most relative error of Gaussian weights, measured at [48, 640] and rounded up.
ALIASES = {
    "int1": 0.62,
    "int1-g16-zero": 0.93,
    "int2": 0.45,
    "int3-g64": 0.20,
    "int4-g128": 0.11,
    "int4-g32-bf16": 0.09,
    "int4-g16-fp32": 0.08,
    "int5-g256": 0.06,
    "int6-channel": 0.04,
    "int8": 0.009,
    "int8-tensor": 0.011,
    "ternary": 0.52,
    "ternary-g64": 0.52,
    "int4-g128-zero": 0.11,
    "int8-channel-zero-bf16": 0.011,
    "int2-g16-minimum": 0.34,
    "int3-tensor-minimum": 0.36,
    "int4-g32-minimum-super6": 0.085,
    "int5-g16-minimum-super8": 0.04,
    "int6-g16-super7": 0.03,
    "int4-g32-zero-super6": 0.09,
    "int3-g32-super8-exact": 0.26,
}


def damaged(numbers, parts):
    """Parts with one thing wrong, and a part of what is said about it."""
    codes = parts["codes"].copy()
    if numbers["bits"] == "ternary":
        codes[0, 0] = 243
        yield "no five trits", {**parts, "codes": codes}
    scales = parts["scales"].copy()
    if numbers["scale"].startswith("super"):
        if numbers["scale"] != "super8":
            scales[-1, -1] = 1 << int(numbers["scale"][-1])
            yield "part scales", {**parts, "scales": scales}
        supers = parts["super_scales"].copy()
        supers[-1, -1] = float("inf")
        yield "part super_scales", {**parts, "super_scales": supers}
    else:
        for bad in ("nan", "inf", "-inf"):
            scales[-1, -1] = float(bad)
            yield "part scales", {**parts, "scales": scales.copy()}
    if "zeros" in parts and numbers["bits"] != 8:
        zeros = parts["zeros"].copy()
        zeros[0, 0] = 1 << numbers["bits"]
        yield "part zeros", {**parts, "zeros": zeros}


def arbitrary(rng, numbers, expected, rows, columns):
    """Any parts that the page allows: scales of both signs, 0 and subnormal ones among them, every code."""
    parts = {}
    for name, (dtype, shape) in expected.items():
        if dtype == "uint8":
            most = 256
            if name == "zeros" and numbers["bits"] != 8:
                most = 1 << numbers["bits"]
            if name in ("scales", "minimums"):
                most = 1 << int(numbers["scale"][-1])
            parts[name] = rng.integers(0, most, shape).astype(np.uint8)
        else:
            some = rng.standard_normal(shape) * 10.0 ** rng.integers(-9, 5, shape)
            parts[name] = some.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
            parts[name].reshape(-1)[::5] = 0
    count = 3 if numbers["bits"] == "ternary" else 1 << numbers["bits"]
    return {**parts, "codes": rng.integers(0, count, (rows, columns)).astype(np.uint8)}
