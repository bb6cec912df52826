"""Sparse weights: the page's examples, which are kept, masks of others, names."""

import hashlib

import numpy as np
import pytest

import tersor
from tersor import formats
from tersor.formats import QuantizedTensor

EXAMPLE = np.array([[0.5, -1, 0.25, 0, 1, 0.75, -0.5, -0.25, 0.125, -0.75]], np.float32)


def test_the_examples_of_the_page(root):
    page = (root / "docs/formats/sparse.md").read_text()
    for alias in ("bitmap-50-int4", "2:4"):
        q = tersor.quantize(EXAMPLE, alias)
        own = page[page.index(f"    {alias} ") :]
        assert f"support {q.parts['support'].tobytes().hex(' ')} " in own
        assert f"w {' '.join(f'{w:g}' for w in q.dequantize()[0])}\n" in own
    q = tersor.quantize(EXAMPLE, "bitmap-50-int4")
    assert f"codes {q.parts['codes'].tobytes().hex(' ')} " in page
    assert f"scales {q.parts['scales'].tobytes().hex(' ')} " in page


def test_the_largest_of_every_row_or_span_are_kept(gaussian):
    size = np.abs(gaussian)
    q = tersor.quantize(gaussian, "bitmap-25-fp32")
    want = np.where(size >= np.sort(size, axis=1)[:, -160][:, None], gaussian, 0)
    assert q.dequantize().tobytes() == want.tobytes()
    q = tersor.quantize(gaussian, "2:4-fp32")
    spans = size.reshape(48, 160, 4)
    kept = spans >= np.sort(spans, axis=2)[..., 2:3]
    assert q.dequantize().tobytes() == np.where(kept.reshape(48, 640), gaussian, 0).astype(np.float32).tobytes()
    q = tersor.quantize(gaussian, "block32-50-fp32")
    scores = np.square(gaussian).reshape(48, 20, 32).sum(axis=2)
    kept = np.repeat(scores >= np.sort(scores, axis=1)[:, 10:11], 32, axis=1)
    assert q.dequantize().tobytes() == np.where(kept, gaussian, 0).astype(np.float32).tobytes()


def test_what_is_no_zero_is_kept_where_no_density_is_asked_for():
    rng = np.random.default_rng(1)
    weights = np.where(rng.random((30, 77)) < 0.1, rng.standard_normal((30, 77)), 0).astype(np.float32)
    weights[3], weights[4, 70] = 0, 1e-30
    for alias in ("bitmap-fp32", "block8-fp32"):
        assert tersor.quantize(weights, alias).dequantize().tobytes() == weights.tobytes()
    q = tersor.quantize(weights, "bitmap-fp32")
    assert q.parts["values"].size == np.count_nonzero(weights)
    nothing = tersor.quantize(weights, "bitmap-0-int4")
    assert not nothing.dequantize().any()
    assert nothing.parts["codes"].size == 0


@pytest.mark.parametrize("suffix", [".tsr", ".safetensors"])
def test_files_of_nothing_come_back(suffix, tmp_path):
    for alias in ("bitmap-0-int4", "bitmap-0", "block4-0-int3"):
        tersor.quantize(EXAMPLE, alias).save(tmp_path / f"weight{suffix}")
        assert not QuantizedTensor.load(tmp_path / f"weight{suffix}").dequantize().any()


def test_integers_are_those_of_int_group(gaussian):
    q = tersor.quantize(gaussian, "bitmap-50-int4-g64", clip="mse")
    masked = np.where(tersor.quantize(gaussian, "bitmap-50-fp32").dequantize() != 0, gaussian, 0).astype(np.float32)
    dense = tersor.quantize(masked, "int4-g64", clip="mse")
    assert np.array_equal(q.dequantize(), dense.dequantize())
    assert q.bits_per_weight == 1 + 4 / 2 + 16 / 64 + 8 * 4 * 49 / gaussian.size


def test_masks_of_others(gaussian):
    rng = np.random.default_rng(2)
    mask = rng.random(gaussian.shape) < rng.random((48, 1))
    fmt = formats.sparse(values="fp32")
    q = QuantizedTensor(format=fmt, shape=gaussian.shape, parts=fmt.encode_kept(gaussian, mask))
    assert q.dequantize().tobytes() == np.where(mask, gaussian, 0).astype(np.float32).tobytes()
    nm, block = formats.sparse("nm", keep=2, span=4), formats.sparse("block", span=16)
    mask = np.tile([True, False, True, False], (48, 160))
    assert nm.encode_kept(gaussian, mask)["values"].size == gaussian.size // 2
    mask[17, 0] = False
    with pytest.raises(ValueError, match="does not keep 2 of every 4 columns in row 17"):
        nm.encode_kept(gaussian, mask)
    with pytest.raises(ValueError, match="does not keep whole blocks of 16"):
        block.encode_kept(gaussian, mask)


def test_values_beyond_their_dtype_are_refused():
    with pytest.raises(ValueError, match="beyond what fp16 holds"):
        tersor.quantize(EXAMPLE * 1e6, "bitmap-50")
    with pytest.raises(ValueError, match="beyond what its dtype holds"):
        tersor.quantize(EXAMPLE * 1e8, "bitmap-50-int4")
    assert tersor.quantize(EXAMPLE * 1e30, "bitmap-50-bf16").errors["weights"] < 0.6
    assert (
        tersor.quantize(EXAMPLE * 1e30, "block2-50-fp32").parts["values"].size == 4
    )  # whose squares float32 cannot hold


def test_names():
    assert formats.parse("bitmap-50-int8") == formats.sparse(density=0.5, values="int8")
    assert formats.parse("2:4") == formats.sparse("nm", keep=2, span=4)
    assert formats.parse("block16-12.5-bf16") == formats.sparse("block", span=16, density=0.125, values="bf16")
    assert formats.parse("bitmap") == formats.sparse()
    assert str(formats.sparse("nm", keep=1, span=8, values="int4", group=32)) == "1:8-int4-g32"
    assert str(formats.sparse(scale="bf16")).startswith("Sparse(")
    for text in ("bitmap-int7", "2:4-50", "block", "bitmap50", "bitmap-50-int4-g48"):
        with pytest.raises(ValueError, match="no format is named"):
            formats.parse(text)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"support": "csr"}, 'not "csr"'),
        ({"support": "nm"}, "N of M needs"),
        ({"support": "nm", "keep": 5, "span": 4}, "not 5 of 4"),
        ({"support": "nm", "keep": 1, "span": 257}, "not 1 of 257"),
        ({"support": "block", "span": 1}, r"2\.\.256 columns, not 1"),
        ({"support": "block", "span": 8, "keep": 1}, "a block has"),
        ({"span": 2}, "a bit a column"),
        ({"keep": -1}, "keep is -1"),
        ({"density": 1.5}, "density is in"),
        ({"values": "int1"}, "not 1"),
        ({"values": "int7"}, "not 7"),
        ({"values": "intx"}, "bits, not"),
        ({"values": "fp8"}, 'not "fp8"'),
        ({"values": "int4", "group": 48}, "not 48"),
        ({"values": "int4", "scale": "e8m0"}, 'not "e8m0"'),
    ],
)
def test_numbers_that_mean_nothing_are_refused(numbers, text):
    with pytest.raises(ValueError, match=text):
        formats.sparse(**numbers)


def test_parts_are_what_they_were():
    """Across machines and compilers: the parts of one matrix by every rule, hashed once and for ever."""
    weights = (np.arange(9 * 300).reshape(9, 300) * 2654435761 % 4093 / 2048 - 1).astype(np.float32)
    digest = hashlib.sha256()
    for alias in ("bitmap-50", "bitmap-30-int4-g64", "2:4-int8", "3:7", "block16-25-int3"):
        for clip in ("none", "mse"):
            for name, part in sorted(tersor.quantize(weights, alias, clip=clip).parts.items()):
                digest.update(name.encode() + part.tobytes())
    assert digest.hexdigest() == "5ba77b48c59001f9e5c7047023560ecfd6894fed2490f10fe9936f6dde31d200"
