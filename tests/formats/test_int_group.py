"""int_group: its page's example, GGUF's blocks, its names."""

import hashlib
import itertools

import gguf
import numpy as np
import pytest
from gguf import quants

import tersor
from tersor import FormatError, formats
from tersor.formats import gguf_blocks

EXAMPLE = np.array([[0.5, -1, 0.25, 0, 1, 0.75, -0.5, -0.25, 0.125, -0.75]], np.float32)
KINDS = ("Q4_0", "Q4_1", "Q8_0", "Q4_K")
GROUPS = (16, 32, 64, 128, 256, "channel", "tensor")
MODES = ("symmetric", "zero", "minimum")
SCALES = ("fp16", "bf16", "fp32", "super6", "super7", "super8")
WIDE = {"Q5_0": "int5-g32", "Q5_1": "int5-g32-minimum", "Q5_K": "q5_k", "Q6_K": "int6-g16-fp32"}
BYTES = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34, "Q4_K": 144, "Q5_0": 22, "Q5_1": 24, "Q5_K": 176, "Q6_K": 210}


def ggml(blocks, kind):
    return quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])


def arbitrary_blocks(kind, rows, count, seed=0):
    """Any bytes, but scales that are finite."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (rows, count, BYTES[kind]), np.uint8)
    pairs = ("Q4_1", "Q4_K", "Q5_1", "Q5_K")
    for at in [0, 2] if kind in pairs else [208] if kind == "Q6_K" else [0]:
        scales = rng.standard_normal((rows, count)).astype(np.float16)
        blocks[..., at : at + 2] = scales.view(np.uint8).reshape(rows, count, 2)
    return blocks.reshape(rows, -1)


def test_the_example_of_the_page(root):
    page = (root / "docs/formats/int_group.md").read_text()
    q = tersor.quantize(EXAMPLE, "int4-g16")
    for part in q.parts.values():
        assert f" {part.tobytes().hex(' ')} " in page
    assert "w       " + " ".join(f"{w:g}" for w in q.dequantize()[0]) in page
    q = tersor.quantize(EXAMPLE, "ternary")
    assert (
        f"codes {q.parts['codes'].tobytes().hex(' ')}, scale {q.parts['scales'].tobytes().hex(' ')}, 0.5126953125"
        in page
    )


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 8, "ternary"])
def test_every_combination_of_numbers(oracles, bits):
    weights = np.random.default_rng(8).standard_normal((3, 300)).astype(np.float32)
    oracle, count = oracles["int_group"], 0
    for group, mode, scale in itertools.product(GROUPS, MODES, SCALES):
        try:
            fmt = formats.int_group(bits, group, mode, scale)
        except ValueError:
            assert (bits == "ternary" and mode != "symmetric") or (scale.startswith("super") and group not in (16, 32))
            continue
        q = tersor.quantize(weights, fmt)
        for name, part in oracle.encode(fmt.to_dict(), weights).items():
            assert q.parts[name].tobytes() == part.tobytes(), (fmt, name)
        for clip in ("none", "mse"):
            q = tersor.quantize(weights, fmt, clip=clip)
            assert q.dequantize().tobytes() == oracle.decode(fmt.to_dict(), q.parts, 3, 300).tobytes(), fmt
        count += 1
    assert count == (7 * 3 + 2 * 3) * (1 if bits == "ternary" else 3)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_gguf_come_back_bit_for_bit(kind):
    for rows, count in [(1, 1), (3, 5), (16, 4)]:
        blocks = arbitrary_blocks(kind, rows, count)
        q = gguf_blocks.from_blocks(blocks, kind)
        assert gguf_blocks.kind_of(q) == kind
        assert q.dequantize().tobytes() == ggml(blocks, kind).tobytes()
        np.testing.assert_array_equal(gguf_blocks.to_blocks(q), blocks)


@pytest.mark.parametrize("kind", WIDE)
def test_blocks_of_five_and_six_bits_are_read_bit_for_bit(kind):
    for rows, count in [(1, 1), (3, 5)]:
        blocks = arbitrary_blocks(kind, rows, count)
        q = gguf_blocks.from_blocks(blocks, kind)
        assert q.format == formats.parse(WIDE[kind])
        assert q.dequantize().tobytes() == ggml(blocks, kind).tobytes()
        with pytest.raises(ValueError, match="no GGUF type"):
            gguf_blocks.to_blocks(q)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_what_gguf_quantizes_is_read(kind, gaussian):
    blocks = quants.quantize(gaussian, gguf.GGMLQuantizationType[kind])
    q = gguf_blocks.from_blocks(blocks, kind)
    assert q.dequantize().tobytes() == quants.dequantize(blocks, gguf.GGMLQuantizationType[kind]).tobytes()


@pytest.mark.parametrize("clip", ["none", "mse"])
@pytest.mark.parametrize("kind", KINDS)
def test_gguf_reads_what_we_quantize(kind, clip):
    weights = np.random.default_rng(1).standard_normal((7, 1024)).astype(np.float32)
    q = tersor.quantize(weights, kind.lower(), clip=clip)
    blocks = gguf_blocks.to_blocks(q)
    assert blocks.nbytes <= q.nbytes  # ggml packs the six bits of Q4_K's scales
    assert ggml(blocks, kind).tobytes() == q.dequantize().tobytes()
    back = gguf_blocks.from_blocks(blocks, kind)
    for name, part in q.parts.items():
        assert back.parts[name].tobytes() == part.tobytes(), name


def test_a_gguf_file_holds_our_blocks(tmp_path):
    q = tersor.quantize(np.random.default_rng(2).standard_normal((4, 512)).astype(np.float32), "q4_k")
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("w", gguf_blocks.to_blocks(q), raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tensor,) = gguf.GGUFReader(tmp_path / "x.gguf").tensors
    assert ggml(tensor.data, "Q4_K").tobytes() == q.dequantize().tobytes()


def test_blocks_that_are_none_are_refused():
    for kind in KINDS:
        with pytest.raises(ValueError, match=f"a multiple of {BYTES[kind]}"):
            gguf_blocks.from_blocks(np.zeros((2, BYTES[kind] + 1), np.uint8), kind)
        blocks = arbitrary_blocks(kind, 2, 2)
        blocks[1, :2] = 0x00, 0x7E  # NaN
        with pytest.raises(FormatError, match="scales: number 2 is not finite"):
            gguf_blocks.from_blocks(blocks, kind)
    with pytest.raises(ValueError, match="not 'Q9'"):
        gguf_blocks.from_blocks(np.zeros((2, 18), np.uint8), "Q9")
    with pytest.raises(TypeError, match="not F32"):
        gguf_blocks.from_blocks(np.zeros((2, 18), np.float32), "Q4_0")
    with pytest.raises(ValueError, match="no GGUF type"):
        gguf_blocks.to_blocks(tersor.quantize(EXAMPLE, "int3"))
    with pytest.raises(ValueError, match="a multiple of 32 weights, not 10"):
        gguf_blocks.to_blocks(tersor.quantize(EXAMPLE, "q4_0"))


def test_names():
    assert formats.parse("W4A16") == formats.int_group(bits=4, group=128, activations="exact")
    assert formats.parse("int4") == formats.int_group() == formats.parse("int4-g128")
    assert formats.parse("int8") == formats.int_group(8, "channel")
    assert formats.parse("ternary") == formats.int_group("ternary", "tensor")
    assert formats.parse("q4_k") == formats.int_group(4, 32, "minimum", "super6")
    assert formats.parse("int3-g64-zero-bf16") == formats.int_group(3, 64, "zero", "bf16")
    assert str(formats.int_group(4, 32, "minimum", "super6")) == "int4-g32-minimum-super6"
    assert str(formats.int_group(activations="int8-outlier")).startswith("IntGroup(")
    for text in ("int7", "int4-g48", "int4-", "int4-g128-mse", "INT4", "", "ternary-zero-g16"):
        with pytest.raises(ValueError, match="no format is named"):
            formats.parse(text)
    with pytest.raises(TypeError, match="found int"):
        formats.parse(4)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"bits": 7}, "bits are 1, 2, 3, 4, 5, 6, 8"),
        ({"bits": 0}, "not 0"),
        ({"bits": "two"}, "ternary"),
        ({"bits": 4.0}, "bits is 4.0"),
        ({"bits": None}, "bits is None"),
        ({"bits": True}, "bits is True"),
        ({"group": 48}, "not 48"),
        ({"group": -1}, "-1 columns"),
        ({"group": "row"}, 'not "row"'),
        ({"mode": "affine"}, "mode is one of symmetric, zero, minimum"),
        ({"scale": "fp64"}, "scale is one of"),
        ({"scale": "e8m0"}, "scales of int_group are"),
        ({"scale": "super6"}, "groups of 16 or 32, not 128"),
        ({"bits": "ternary", "mode": "zero"}, "ternary levels are symmetric"),
        ({"activations": "int4"}, "activations are int8, int8-g128, int8-outlier, exact"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(numbers, text):
    with pytest.raises(ValueError, match=text):
        formats.int_group(**numbers)


def test_a_scale_beyond_its_dtype_is_refused():
    weights = np.full((3, 40), 1e6, np.float32)
    with pytest.raises(ValueError, match="scale of row 0, group 0 is beyond what its dtype holds"):
        tersor.quantize(weights, "int4-g32")
    assert tersor.quantize(weights, "int4-g32-bf16").errors["weights"] < 0.01
    with pytest.raises(ValueError, match="super-scale of row 0, group 0"):
        tersor.quantize(weights * 1000, "q4_k")


def test_parts_are_what_they_were():
    """Across machines and compilers: the parts of one matrix by every rule, hashed once and for ever."""
    weights = (np.arange(3 * 300).reshape(3, 300) * 2654435761 % 4093 / 2048 - 1).astype(np.float32)
    digest = hashlib.sha256()
    for alias in (
        "int1",
        "int2",
        "int3-g64",
        "int4-g32-bf16",
        "ternary",
        "int5-g16-zero",
        "int8-channel-minimum",
        "q4_k",
    ):
        for clip in ("none", "mse"):
            for name, part in sorted(tersor.quantize(weights, alias, clip=clip).parts.items()):
                digest.update(name.encode() + part.tobytes())
    assert digest.hexdigest() == "bb6d686d9c0fab17cc6c85616087d94e8c0f48899402f7785bc0efcff7ee9b29"
