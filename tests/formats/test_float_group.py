"""float_group beside ml_dtypes: every value, every rounding, OCP's rule on many scales; the page's example; names."""

import hashlib

import ml_dtypes
import numpy as np
import pytest

import tersor
from tersor import formats

EXAMPLE = np.array([[0.5, -1, 0.25, 0, 1, 0.75, -0.5, -0.25, 0.125, -0.75]], np.float32)
ELEMENTS = {
    "e2m1": (ml_dtypes.float4_e2m1fn, 4, 6, 2),
    "e2m3": (ml_dtypes.float6_e2m3fn, 6, 7.5, 2),
    "e3m2": (ml_dtypes.float6_e3m2fn, 6, 28, 4),
    "e4m3": (ml_dtypes.float8_e4m3fn, 8, 448, 8),
    "e5m2": (ml_dtypes.float8_e5m2, 8, 57344, 15),
}


def codes_of(q):
    return q.format.symbols(q.parts, q.shape)["codes"]


def of_codes(element, codes, scale=1.0):
    """The matrix of such codes under one scale."""
    fmt = formats.float_group(element, "tensor", "fp32")
    parts = {"codes": codes, "scales": np.full((1, 1), scale, np.float32)}
    return formats.QuantizedTensor(format=fmt, shape=codes.shape, parts=fmt.packed(parts, codes.shape))


@pytest.mark.parametrize("element", ELEMENTS)
def test_values_are_those_of_ml_dtypes(element):
    dtype, bits, _, _ = ELEMENTS[element]
    codes = np.arange(1 << bits, dtype=np.uint8)[None]
    want = codes.view(dtype).astype(np.float32)
    finite = np.isfinite(want)
    assert of_codes(element, codes[finite][None]).dequantize().tobytes() == want[finite].tobytes()


@pytest.mark.parametrize("element", ELEMENTS)
def test_rounding_is_that_of_ml_dtypes(element):
    """Values, the middles between them, and the floats beside these; then any floats. The scale is one of a tensor."""
    dtype, bits, largest, _ = ELEMENTS[element]
    values = np.arange(1 << bits, dtype=np.uint8).view(dtype).astype(np.float32)
    values = np.sort(values[np.isfinite(values)])
    points = np.concatenate([values, (values[1:] + values[:-1]) / 2]).astype(np.float32)
    rng = np.random.default_rng(0)
    weights = np.concatenate(
        [points, np.nextafter(points, np.float32(np.inf)), np.nextafter(points, np.float32(-np.inf))]
        + [rng.standard_normal(5000).astype(np.float32) * np.float32(2.0**exponent) for exponent in range(-20, 3)]
    )
    weights = np.clip(weights, -largest, largest)[None].astype(np.float32)
    q = tersor.quantize(weights, formats.float_group(element, "tensor", "fp32"))
    assert q.parts["scales"][0, 0] == 1
    want = weights.astype(dtype).view(np.uint8) & ((1 << bits) - 1)
    np.testing.assert_array_equal(codes_of(q), want)


@pytest.mark.parametrize("element", ELEMENTS)
def test_mx_is_ml_dtypes_under_the_rule_of_ocp(element):
    dtype, bits, largest, top = ELEMENTS[element]
    rng = np.random.default_rng(1)
    weights = (rng.standard_normal((512, 160)) * 2.0 ** rng.integers(-126, 120, (512, 1))).astype(np.float32)
    q = tersor.quantize(weights, formats.float_group(element, 32, "e8m0"))
    blocks = weights.reshape(512, 5, 32)
    exponents = np.floor(np.log2(np.abs(blocks).max(axis=2).astype(np.float64))) - top
    exponents = np.maximum(exponents, -127)
    np.testing.assert_array_equal(q.parts["scales"], exponents + 127)
    assert (q.parts["scales"].view(ml_dtypes.float8_e8m0fnu).astype(np.float64) == 2.0**exponents).all()
    scaled = (blocks.astype(np.float64) / 2.0 ** exponents[..., None]).astype(np.float32)
    want = np.clip(scaled, -largest, largest).astype(dtype)
    np.testing.assert_array_equal(codes_of(q).reshape(512, 5, 32), want.view(np.uint8) & ((1 << bits) - 1))
    back = want.astype(np.float64) * 2.0 ** exponents[..., None]
    assert q.dequantize().tobytes() == back.astype(np.float32).tobytes()


@pytest.mark.parametrize("element", ELEMENTS)
def test_every_combination_of_numbers(oracles, element):
    weights = np.random.default_rng(8).standard_normal((3, 300)).astype(np.float32)
    oracle, count = oracles["float_group"], 0
    for group in (16, 32, 64, 128, 256, "channel", "tensor"):
        for scale in ("fp32", "fp16", "bf16", "e8m0", "e4m3"):
            if (group, scale) == ("tensor", "e4m3"):
                continue
            fmt = formats.float_group(element, group, scale)
            for clip in ("none", "mse"):
                q = tersor.quantize(weights, fmt, clip=clip)
                assert q.dequantize().tobytes() == oracle.decode(fmt.to_dict(), q.parts, 3, 300).tobytes(), fmt
                if clip == "none":
                    for name, part in oracle.encode(fmt.to_dict(), weights).items():
                        assert q.parts[name].tobytes() == part.tobytes(), (fmt, name)
                count += 1
    assert count == 2 * (7 * 5 - 1)


def test_nvfp4_has_two_levels_of_scales():
    rng = np.random.default_rng(2)
    weights = (rng.standard_normal((64, 256)) * np.exp(rng.standard_normal((64, 1)))).astype(np.float32)
    q = tersor.quantize(weights, "nvfp4")
    whole = np.abs(weights).max() / np.float32(448 * 6)
    assert q.parts["tensor_scale"][0] == whole
    blocks = weights.reshape(64, 16, 16)
    wanted = (np.abs(blocks).max(axis=2) / np.float32(6) / whole).astype(ml_dtypes.float8_e4m3fn)
    np.testing.assert_array_equal(q.parts["scales"], wanted.view(np.uint8))
    stored = wanted.astype(np.float32) * whole
    codes = np.clip(blocks / stored[..., None], -6, 6).astype(ml_dtypes.float4_e2m1fn)
    assert q.dequantize().tobytes() == (codes.astype(np.float32) * stored[..., None]).tobytes()
    assert q.parts["scales"].max() == 0x7E


def test_the_example_of_the_page(root):
    page = (root / "docs/formats/float_group.md").read_text()
    for alias in ("mxfp4", "nvfp4"):
        q = tersor.quantize(EXAMPLE, alias)
        for part in q.parts.values():
            assert f" {part.tobytes().hex(' ')}" in page
    assert "w 0.5 -1 0.25 0 1 0.6666667 -0.5 -0.25 0.16666667 -0.6666667" in page
    np.testing.assert_array_equal(q.dequantize()[0, [5, 8]], np.float32([0.6666667, 0.16666667]))
    assert tersor.quantize(EXAMPLE, "mxfp4").errors["weights"] == 0


def test_names():
    assert formats.parse("mxfp4") == formats.float_group("e2m1", 32, "e8m0")
    assert formats.parse("mxfp6") == formats.float_group("e2m3")
    assert formats.parse("mxfp8") == formats.float_group("e4m3")
    assert formats.parse("nvfp4") == formats.float_group("e2m1", 16, "e4m3")
    assert formats.parse("fp8-e4m3") == formats.float_group("e4m3", "channel", "fp32")
    assert str(formats.float_group("e5m2", 64, "bf16")) == "fp8-e5m2-g64-bf16"
    assert formats.parse("mxfp4").activations == "int8"
    assert formats.parse("mxfp8").activations == "exact"
    for text in ("fp4-e4m3", "fp8-e2m1", "fp16", "mxfp5", "nvfp8", "fp8"):
        with pytest.raises(ValueError, match="no format is named"):
            formats.parse(text)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"element": "e4m4"}, "element is one of e2m1, e2m3, e3m2, e4m3, e5m2"),
        ({"group": 8}, "not 8"),
        ({"scale": "super6"}, "scales of float_group are"),
        ({"scale": "e4m3", "group": "tensor"}, "their group is not"),
        ({"element": "e4m3", "activations": "int8"}, 'activations of e4m3 are "exact"'),
    ],
)
def test_numbers_that_mean_nothing_are_refused(numbers, text):
    with pytest.raises(ValueError, match=text):
        formats.float_group(**numbers)


def test_parts_are_what_they_were():
    """Across machines and compilers: the parts of one matrix by every rule, hashed once and for ever."""
    weights = (np.arange(3 * 300).reshape(3, 300) * 2654435761 % 4093 / 2048 - 1).astype(np.float32)
    digest = hashlib.sha256()
    for alias in ("mxfp4", "mxfp6", "mxfp6-e3m2", "mxfp8", "mxfp8-e5m2", "nvfp4", "fp8-e4m3", "fp6-e2m3-g64-bf16"):
        for clip in ("none", "mse"):
            for name, part in sorted(tersor.quantize(weights, alias, clip=clip).parts.items()):
                digest.update(name.encode() + part.tobytes())
    assert digest.hexdigest() == "075d2c49efbd9ea1a05dc335fb91175df57dc188af7d58ed05f89f8294c60ada"
