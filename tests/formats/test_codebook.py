"""Codebooks: NF4's table, the page's examples, what is learned, sharing, names."""

import hashlib

import numpy as np
import pytest

import tersor
from tersor import FormatError, formats
from tersor.formats import QuantizedTensor

EXAMPLE = np.array([[0.5, -1, 0.25, 0, 1, 0.75, -0.5, -0.25, 0.125, -0.75]], np.float32)
# bitsandbytes/functional.py, get_4bit_type("nf4")
NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], np.float32)  # fmt: skip


def test_nf4_has_the_levels_of_bitsandbytes():
    q = tersor.quantize(NF4[None], "nf4")
    assert q.dequantize().tobytes() == NF4[None].tobytes()
    assert formats.IntGroup(bits=4).symbols(q.parts, (1, 16))["codes"].tolist() == [list(range(16))]
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((8, 192)).astype(np.float32)
    q = tersor.quantize(weights, "nf4")
    blocks = weights.reshape(-1, 64)
    most = np.abs(blocks).max(axis=1, keepdims=True)
    want = np.abs((blocks / most)[..., None] - NF4).argmin(axis=-1)
    assert (q.format.symbols(q.parts, q.shape)["codes"].reshape(-1, 64) == want).all()
    assert q.dequantize().tobytes() == (most * NF4[want]).astype(np.float32).tobytes()
    assert q.bits_per_weight == 4.5


def test_the_examples_of_the_page(root):
    page = (root / "docs/formats/codebook.md").read_text()
    scalars = tersor.quantize(EXAMPLE, "nf4")
    vectors = QuantizedTensor(
        format=formats.vector_codebook(4, 3, 2),
        shape=(1, 10),
        parts={
            "codes": np.array([[[0x24]], [[0x11]]], np.uint8),
            "codebook": np.array(
                [[[0, 0, 0, 0], [1, 2, 3, 4], [-1, -1, 1, 1]], [[0.5, 0, 0, 0], [0, 0, 0, 0.25], [0, 0.125, 0, 0]]],
                np.float16,
            ),
            "scales": np.array([[2]], np.float16),
        },
    )
    for q, width in ((scalars, 8), (vectors, 10)):
        for name in ("codes", "scales"):
            assert f"    {name:{width}}{q.parts[name].tobytes().hex(' ')} " in page
        assert f"    {'w':{width}}{' '.join(f'{w:g}' for w in q.dequantize()[0])}\n" in page


def test_more_levels_entries_and_stages_leave_less(gaussian):
    def error(**numbers):
        fmt = formats.vector_codebook(**numbers) if "stages" in numbers else formats.codebook(**numbers)
        return tersor.quantize(gaussian, fmt).errors["weights"]

    levels = [error(levels=levels) for levels in (4, 6, 16, 40, 200)]
    entries = [error(dimension=4, entries=entries, stages=1) for entries in (4, 16, 100, 256)]
    stages = [error(dimension=6, entries=32, stages=stages) for stages in (1, 2, 3, 4)]
    scopes = [error(levels=8, scope=scope, group=128) for scope in ("tensor", "channel", "group")]
    for errors in (levels, entries, stages, scopes):
        assert errors == sorted(errors, reverse=True)
    # Lloyd and Max' best for a Gaussian leaves 0.0095 of the variance at 16 levels; int4 a row leaves more.
    best = np.sqrt(0.0095)
    assert levels[2] < 1.1 * best
    assert tersor.quantize(gaussian, "int4-channel").errors["weights"] > 1.1 * levels[2]


def test_few_different_weights_come_back_as_they_were():
    rng = np.random.default_rng(1)
    weights = rng.choice(np.array([-3, -1, 0.5, 2], np.float32), (20, 96))
    for fmt in (formats.codebook(4, scale="none", storage="fp32"), formats.codebook(9, "channel", scale="none")):
        assert tersor.quantize(weights, fmt).dequantize().tobytes() == weights.tobytes()
    words = rng.standard_normal((5, 4)).astype(np.float32)
    weights = words[rng.integers(0, 5, (8, 25))].reshape(8, 100)
    assert (
        tersor.quantize(weights / np.linalg.norm(weights, axis=1)[:, None] * 10, "vq-d4-k64").errors["weights"] < 0.02
    )


def test_a_seed_decides_what_is_learned(gaussian):
    first, again, other = (tersor.quantize(gaussian, "vq-d4-k64", seed=seed).parts["codebook"] for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("alias", ["vq-d4-k64-s2", "codebook16-tensor-g64"])
@pytest.mark.parametrize("suffix", [".tsr", ".safetensors"])
def test_a_shared_codebook_is_stored_once(alias, suffix, gaussian, tmp_path):
    first = tersor.quantize(gaussian, alias)
    others = [tersor.quantize(gaussian[:, at:] * 3, alias, codebook=first.parts["codebook"].copy()) for at in (64, 200)]
    for q in others:
        assert q.errors["weights"] < 1.3 * first.errors["weights"]
    tensors = {"a": first, "b": others[0], "c": others[1]}
    own = sum(q.nbytes for q in tensors.values())
    assert formats.total_nbytes(tensors) == own - 2 * first.parts["codebook"].nbytes
    formats.save_file(tensors, tmp_path / f"all{suffix}")
    back = formats.load_file(tmp_path / f"all{suffix}")
    assert back["a"].parts["codebook"] is back["c"].parts["codebook"]
    for name, q in tensors.items():
        assert back[name].dequantize().tobytes() == q.dequantize().tobytes()


def test_a_codebook_that_does_not_fit_is_refused(gaussian):
    given = tersor.quantize(gaussian, "vq-d4-k64").parts["codebook"]
    for alias, wrong in [
        ("vq-d4-k64", given[0]),
        ("vq-d4-k64", given.astype(np.float32)),
        ("vq-d8-k64", given),
        ("nf4", given),
        ("codebook16", given),
    ]:
        with pytest.raises(ValueError, match="is needed"):
            tersor.quantize(gaussian, alias, codebook=wrong)
    with pytest.raises(ValueError, match="not finite"):
        tersor.quantize(gaussian, "vq-d4-k64", codebook=np.full_like(given, np.inf))
    with pytest.raises(ValueError, match="has no codebook to share"):
        tersor.quantize(gaussian, "int4", codebook=given)


def test_a_table_in_any_order_is_searched_as_one_in_order(gaussian):
    fmt = formats.codebook(16, scale="fp32", storage="fp32")
    table = tersor.quantize(gaussian, fmt).parts["codebook"]
    some, turned = (tersor.quantize(gaussian, fmt, codebook=one) for one in (table, table[:, ::-1].copy()))
    assert some.dequantize().tobytes() == turned.dequantize().tobytes()


def test_names():
    assert formats.parse("nf4") == formats.codebook(16, "nf4", 64, "fp32") == formats.parse("NF4")
    assert formats.parse("vq-d8-k256-s2") == formats.vector_codebook(8, 256, 2)
    assert formats.parse("vq-d2-k16") == formats.vector_codebook(2, 16, 1)
    assert formats.parse("codebook16-channel-g64-bf16") == formats.codebook(16, "channel", 64, "bf16")
    assert str(formats.codebook(16, "nf4", 64, "fp32")) == "nf4"
    assert str(formats.codebook(16, "nf4", 32, "fp32")).startswith("ScalarCodebook(")
    assert str(formats.vector_codebook(activations="int8-outlier")).startswith("VectorCodebook(")
    for text in ("vq-d8", "vq-d88-k256", "codebook", "codebook16-row", "nf4-g32", "vq-d8-k256-s2-s2"):
        with pytest.raises(ValueError, match="no format is named"):
            formats.parse(text)


@pytest.mark.parametrize(
    ("make", "numbers", "text"),
    [
        (formats.codebook, {"levels": 3}, r"4\.\.256 levels, not 3"),
        (formats.codebook, {"levels": 257}, "not 257"),
        (formats.codebook, {"levels": -1}, "not 0"),
        (formats.codebook, {"levels": 16.5}, "levels is 16.5"),
        (formats.codebook, {"scope": "nf4", "levels": 8}, "nf4 has 16 levels, not 8"),
        (formats.codebook, {"scope": "row"}, 'not "row"'),
        (formats.codebook, {"scope": "group", "group": "tensor"}, "needs a group of columns"),
        (formats.codebook, {"group": 48}, "not 48"),
        (formats.codebook, {"scale": "e8m0"}, 'not "e8m0"'),
        (formats.codebook, {"storage": "bf16"}, "stored in fp32 or fp16"),
        (formats.vector_codebook, {"dimension": 1}, r"2\.\.8 columns, not 1"),
        (formats.vector_codebook, {"dimension": 9}, "not 9"),
        (formats.vector_codebook, {"entries": 1}, r"2\.\.4096 entries, not 1"),
        (formats.vector_codebook, {"entries": 4097}, "not 4097"),
        (formats.vector_codebook, {"entries": -1}, "entries is -1"),
        (formats.vector_codebook, {"stages": 0}, r"1\.\.4 stages are possible, not 0"),
        (formats.vector_codebook, {"stages": 5}, "not 5"),
        (formats.vector_codebook, {"activations": "int4"}, "activations are"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make, numbers, text):
    with pytest.raises(ValueError, match=text):
        make(**numbers)


def test_scales_beyond_their_dtype_are_refused():
    weights = np.full((3, 40), 1e6, np.float32)
    for alias in ("codebook16", "vq-d4-k16"):
        with pytest.raises(ValueError, match="scale of row 0, group 0 is beyond what its dtype holds"):
            tersor.quantize(weights, alias)
    assert tersor.quantize(weights, "codebook16-tensor-bf16").errors["weights"] < 0.01


def test_symbols_of_another_kind_are_refused(gaussian):
    for alias, wrong in (("vq-d4-k64", np.uint16), ("vq-d2-k512", np.uint8)):
        q = tersor.quantize(gaussian, alias)
        parts = q.format.symbols(q.parts, q.shape)
        for codes in (parts["codes"].astype(wrong), parts["codes"][:, 1:], parts["codes"] * 0 + q.format.entries):
            if codes.dtype == parts["codes"].dtype and codes.max(initial=0) == 0:
                continue  # 512 is 0 in a byte
            with pytest.raises(FormatError, match="codes"):
                q.format.packed({**parts, "codes": codes}, q.shape)


def test_parts_are_what_they_were():
    """Across machines and compilers: the parts of one matrix by every rule, hashed once and for ever."""
    weights = (np.arange(9 * 300).reshape(9, 300) * 2654435761 % 4093 / 2048 - 1).astype(np.float32)
    digest = hashlib.sha256()
    for alias in ("nf4", "codebook5", "codebook16-channel-g32", "codebook7-group-g128", "vq-d8-k16-s2", "vq-d3-k100"):
        for clip in ("none", "mse"):
            for name, part in sorted(tersor.quantize(weights, alias, clip=clip).parts.items()):
                digest.update(name.encode() + part.tobytes())
    assert digest.hexdigest() == "90a2ed5f05ea9dc3811d35b70b24f3a284f9b78aa742ef7794cffa459e767f28"
