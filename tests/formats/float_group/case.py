"""float_group for tests/formats/test_every_format.py."""

import ml_dtypes
import numpy as np

BITS = {"e2m1": 4, "e2m3": 6, "e3m2": 6, "e4m3": 8, "e5m2": 8}
REFUSED = {"e4m3": (0x7F, 0xFF), "e5m2": (0x7C, 0x7D, 0x7E, 0x7F, 0xFC, 0xFD, 0xFE, 0xFF)}

# Alias -> the most relative error of Gaussian weights, measured at [48, 640] and rounded up.
ALIASES = {
    "mxfp4": 0.12,
    "mxfp6": 0.03,
    "mxfp6-e3m2": 0.06,
    "mxfp8": 0.032,
    "mxfp8-e5m2": 0.06,
    "nvfp4": 0.1,
    "fp8-e4m3": 0.028,
    "fp8-e5m2": 0.055,
    "fp4-e2m1-g64-fp16": 0.11,
    "fp6-e3m2-g128-bf16": 0.055,
    "fp6-e2m3-tensor": 0.05,
    "fp8-e4m3-g32-e4m3": 0.028,
    "fp4-e2m1-channel-e8m0": 0.2,
}


def damaged(numbers, parts):
    """Parts with one thing wrong, and a part of what is said about it."""
    for bad in REFUSED.get(numbers["element"], ()):
        codes = parts["codes"].copy()
        codes[-1, -1] = bad
        yield "no finite number", {**parts, "codes": codes}
    bad_scales = {"e8m0": (255,), "e4m3": (0x7F, 0xFF)}
    for bad in bad_scales.get(numbers["scale"], (float("nan"), float("-inf"))):
        scales = parts["scales"].copy()
        scales[-1, -1] = bad
        yield "part scales", {**parts, "scales": scales}
    if "tensor_scale" in parts:
        yield "part tensor_scale", {**parts, "tensor_scale": parts["tensor_scale"] * float("nan")}


def arbitrary(rng, numbers, expected, rows, columns):
    """Any parts that the page allows: scales of both signs, 0 among them, every code."""
    parts = {}
    for name, (dtype, shape) in expected.items():
        if dtype == "uint8":
            most = {"e8m0": 255, "e4m3": 0x7F}.get(numbers["scale"], 256)
            parts[name] = rng.integers(0, most, shape).astype(np.uint8)
        else:
            some = rng.standard_normal(shape) * 10.0 ** rng.integers(-9, 5, shape)
            parts[name] = some.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
            parts[name].reshape(-1)[3::5] = 0
    codes = rng.integers(0, 1 << BITS[numbers["element"]], (rows, columns)).astype(np.uint8)
    codes[np.isin(codes, REFUSED.get(numbers["element"], ()))] = 0
    return {**parts, "codes": codes}
