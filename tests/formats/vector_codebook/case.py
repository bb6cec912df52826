"""Vector codebooks for tests/formats/test_every_format.py."""

import numpy as np

# Alias -> the most relative error of Gaussian weights, measured at [48, 640] and rounded up.
ALIASES = {
    "vq-d8-k256-s2": 0.27,
    "vq-d8-k2-s4-exact": 0.83,
    "vq-d2-k16": 0.34,
    "vq-d3-k37-s1": 0.38,
    "vq-d4-k300-s2": 0.1,
    "vq-d5-k128-s3": 0.086,
    "vq-d7-k5-s1": 0.87,
}


def damaged(numbers, parts):
    """Parts with one thing wrong, and a part of what is said about it."""
    for name in ("codebook", "scales"):
        for bad in ("nan", "inf", "-inf"):
            wrong = parts[name].copy()
            wrong.reshape(-1)[-1] = float(bad)
            yield f"part {name}", {**parts, name: wrong}
    if numbers["entries"] & (numbers["entries"] - 1):
        codes = parts["codes"].copy()
        codes[-1, 1, :2] = 0xFF
        yield f"codes: row 1 of stage {numbers['stages'] - 1} holds", {**parts, "codes": codes}


def arbitrary(rng, numbers, expected, rows, columns):
    """Any parts that the page allows: scales of both signs, every code."""
    vectors = -(-columns // numbers["dimension"])
    codes = rng.integers(0, numbers["entries"], (numbers["stages"], rows, vectors))
    parts = {"codes": codes.astype(np.uint8 if numbers["entries"] <= 256 else np.uint16)}
    for name in ("codebook", "scales"):
        shape = expected[name][1]
        parts[name] = (rng.standard_normal(shape) * 10.0 ** rng.integers(-9, 4, shape)).astype(np.float16)
        parts[name].reshape(-1)[::5] = -0.0
    return parts
