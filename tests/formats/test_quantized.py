"""QuantizedTensor and its files: what weights are taken, several tensors a file, shared parts, transforms and side
terms by the protocol, metadata that lies."""

import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch

import tersor
from tersor import FormatError, formats
from tersor.formats import files, recorded, safetensors_file


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(0).standard_normal((12, 200)).astype(np.float32)


class Doubled:
    """A transform: columns times 2 to a power of their own."""

    kind = "doubled"

    def __init__(self, powers):
        self.powers = powers

    def to_dict(self):
        return {"least": int(self.powers.min())}

    def parts(self):
        return {"powers": self.powers}

    def apply(self, matrix):
        return matrix * np.float32(2) ** self.powers

    def undo(self, matrix):
        return matrix / np.float32(2) ** self.powers

    @classmethod
    def from_dict(cls, numbers, parts, shape):
        if parts["powers"].shape != (shape[1],) or numbers != {"least": int(parts["powers"].min())}:
            raise ValueError("powers do not fit")
        return cls(parts["powers"])


class Row:
    """A side term: one row of the matrix, exact."""

    kind = "row"

    def __init__(self, row, values):
        self.row, self.values = row, values

    def to_dict(self):
        return {"row": self.row}

    def parts(self):
        return {"values": self.values}

    def apply(self, matrix):
        matrix[self.row] += self.values
        return matrix

    def undo(self, matrix):
        matrix[self.row] -= self.values
        return matrix

    @classmethod
    def from_dict(cls, numbers, parts, shape):
        return cls(numbers["row"], parts["values"])


@pytest.fixture
def kinds(monkeypatch):
    """The two above, as rows of the tables."""
    monkeypatch.setitem(recorded.TRANSFORMS, "doubled", f"{__name__}:Doubled")
    monkeypatch.setitem(recorded.SIDE_TERMS, "row", f"{__name__}:Row")
    import sys

    module = type(sys)(__name__)
    module.Doubled, module.Row = Doubled, Row
    monkeypatch.setitem(sys.modules, __name__, module)


def test_weights_of_every_kind_give_the_same(weights):
    half = weights.astype(ml_dtypes.bfloat16)
    want = tersor.quantize(half, "int4-g32")
    assert want.dtype == "BF16"
    tensor = torch.from_numpy(weights).bfloat16()
    for same in (
        tensor,
        tensor.t().contiguous().t(),
        torch.nn.Parameter(tensor),
        np.asfortranarray(half),
        np.repeat(half, 2, axis=1)[:, ::2],
    ):
        q = tersor.quantize(same, "int4-g32")
        assert q.dtype == "BF16"
        for name, part in want.parts.items():
            assert q.parts[name].tobytes() == part.tobytes()
    assert tersor.quantize(weights.astype(">f4"), "int8").parts["codes"].tobytes() == (
        tersor.quantize(weights, "int8").parts["codes"].tobytes()
    )


def test_the_memory_of_other_libraries_stays_while_it_is_read():
    matrix = formats.quantized.matrix_of(torch.ones(300, 400, dtype=torch.bfloat16))
    others = [torch.zeros(300, 400, dtype=torch.bfloat16) for _ in range(10)]
    assert (matrix == 1).all()
    del others


@pytest.mark.parametrize(
    ("weight", "error", "text"),
    [
        (np.zeros((3, 4)), TypeError, "F32, F16, BF16, not F64"),
        (np.zeros((3, 4), np.int8), TypeError, "not I8"),
        (np.zeros(4, np.float32), ValueError, r"N, K >= 1, not \[4\]"),
        (np.zeros((2, 3, 4), np.float32), ValueError, r"not \[2, 3, 4\]"),
        (np.zeros((0, 4), np.float32), ValueError, r"not \[0, 4\]"),
        (np.zeros((4, 0), np.float32), ValueError, r"not \[4, 0\]"),
        ("weights", TypeError, "an array is needed"),
        (torch.zeros(3, 4, device="meta"), ValueError, "(?i)dlpack"),
    ],
)
def test_weights_that_are_none_are_refused(weight, error, text):
    with pytest.raises(error, match=text):
        tersor.quantize(weight, "int4")


def test_options_that_mean_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="clip is"):
        tersor.quantize(weights, "int4", clip="max")
    with pytest.raises(ValueError, match="no format is named 'int9'"):
        tersor.quantize(weights, "int9")
    q = tersor.quantize(weights, "int4")
    with pytest.raises(ValueError, match="activations are"):
        dataclasses.replace(q, activations="int4")
    with pytest.raises(ValueError, match="one of F32, F16, BF16"):
        dataclasses.replace(q, dtype="F64")
    with pytest.raises(FormatError, match="part codes is"):
        dataclasses.replace(q, shape=(11, 200))
    with pytest.raises(FormatError, match="part scales is"):
        dataclasses.replace(q, format=formats.parse("int4-g64"))


def test_every_byte_is_counted(weights, kinds):
    q = tersor.quantize(weights, "int4-g64")
    assert q.nbytes == 12 * 100 + 2 * 12 * 4
    assert q.bits_per_weight == 8 * q.nbytes / 2400
    assert f"{q!r}" == "QuantizedTensor(int4-g64, [12, 200], 4.32 bits/weight)"
    powers, values = np.arange(200, dtype=np.uint8) % 3, weights[3].copy()
    more = tersor.quantize(weights, "int4-g64", transforms=[Doubled(powers)], side_terms=[Row(3, values)])
    assert more.nbytes == q.nbytes + 200 + 800


def test_transforms_and_side_terms(weights, kinds, tmp_path):
    powers = (np.arange(200) % 3).astype(np.uint8)
    other = (np.arange(200) % 2).astype(np.uint8)
    q = tersor.quantize(
        weights, "int8", transforms=[Doubled(powers), Doubled(other)], side_terms=[Row(3, weights[3] - 1)]
    )
    stored = formats.QuantizedTensor(format=q.format, shape=q.shape, parts=q.parts).dequantize()
    scale = np.float32(2) ** (powers + other)
    want = stored / scale
    want[3] += weights[3] - 1
    assert q.dequantize().tobytes() == want.tobytes()
    assert q.dequantize(np.float16).tobytes() == want.astype(np.float16).tobytes()
    assert q.errors["weights"] == pytest.approx(np.linalg.norm(want - weights) / np.linalg.norm(weights), rel=1e-4)
    for suffix in (".tsr", ".safetensors"):
        q.save(tmp_path / f"x{suffix}")
        back = formats.QuantizedTensor.load(tmp_path / f"x{suffix}")
        assert back.dequantize().tobytes() == q.dequantize().tobytes()
        assert back.nbytes == q.nbytes


@pytest.mark.parametrize("suffix", [".tsr", ".safetensors"])
def test_several_tensors_and_plain_arrays_in_a_file(weights, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    one = tersor.quantize(weights, "int4-g32")
    two = dataclasses.replace(one, parts={**one.parts, "codes": one.parts["codes"] ^ 1}, activations="exact")
    three = tersor.quantize(weights.astype(np.float16), "nvfp4")
    bias = np.arange(5, dtype=ml_dtypes.bfloat16)
    formats.save_file({"a.one": one, "bias": bias, "two": two, "three": three}, path, {"note": "text"})
    assert list(formats.load_file(path)) == ["a.one", "two", "three", "bias"]
    back = formats.load_file(path)
    for name, q in (("a.one", one), ("two", two), ("three", three)):
        assert back[name].dequantize().tobytes() == q.dequantize().tobytes()
        assert back[name].activations == q.activations
    assert back["two"].parts["scales"] is back["a.one"].parts["scales"]
    np.testing.assert_array_equal(back["bias"], bias)
    assert formats.total_nbytes(back) == one.nbytes + two.nbytes + three.nbytes - one.parts["scales"].nbytes
    with pytest.raises(FormatError, match="one quantized matrix is needed, found 3"):
        formats.QuantizedTensor.load(path)
    if suffix == ".safetensors":
        assert "a.one.codes" in safetensors.numpy.load_file(path)  # safetensors' own reader takes it
    else:
        with tersor.safe_open(path) as reader:
            assert reader.metadata()["note"] == "text"


def test_parts_that_a_format_shares_are_stored_once_where_they_are_equal(weights, monkeypatch, tmp_path):
    monkeypatch.setattr(formats.FloatGroup, "shareable", ("tensor_scale",))
    q = tersor.quantize(weights, "nvfp4")
    twin = dataclasses.replace(q, parts={name: part.copy() for name, part in q.parts.items()})
    formats.save_file({"a": q, "b": twin}, tmp_path / "x.safetensors")
    back = formats.load_file(tmp_path / "x.safetensors")
    assert back["a"].parts["tensor_scale"] is back["b"].parts["tensor_scale"]
    assert back["a"].parts["scales"] is not back["b"].parts["scales"]
    assert formats.total_nbytes({"a": q, "b": twin}) == 2 * q.nbytes - 4


def test_names_that_collide_are_refused(weights, tmp_path):
    q = tersor.quantize(weights, "int4")
    for tensors in ({"a": q, "a.codes": weights}, {"a.codes": weights, "a": q}):
        with pytest.raises(ValueError, match=r"two arrays would be named 'a\.codes'"):
            formats.save_file(tensors, tmp_path / "x.tsr")
    with pytest.raises(ValueError, match=r"not '\.npz'"):
        q.save(tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


def test_a_file_in_whose_place_nothing_can_be_written_keeps_the_old(weights, tmp_path):
    q = tersor.quantize(weights, "int4")
    with pytest.raises(OSError, match="none"):
        q.save(tmp_path / "none" / "x.safetensors")
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(OSError, match="directory"):
        q.save(tmp_path / "x.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_packed_file_that_was_compressed_is_read(weights, tmp_path, binaries):
    import subprocess

    q = tersor.quantize(weights, "int3-g32")
    q.save(tmp_path / "x.safetensors")
    subprocess.run([binaries / "tersor-enc", tmp_path / "x.safetensors", tmp_path / "y.tsr"], check=True)
    assert formats.QuantizedTensor.load(tmp_path / "y.tsr").dequantize().tobytes() == q.dequantize().tobytes()


MEMBERS = ("format", "shape", "dtype", "codes", "activations", "errors", "parts", "transforms", "side_terms")
LIES = [
    (("version",), 2, "version 2"),
    (("tensors",), [], "damaged"),
    (("tensors", "w"), [], "tensor 'w'"),
    (("tensors", "w", "shape"), [12, 201], "part codes is|codes are"),
    (("tensors", "w", "shape"), [12, 1 << 39], "part codes is|codes are"),
    (("tensors", "w", "shape"), [(1 << 40) - 1, (1 << 40) - 1], "overflows|codes|bytes"),
    (("tensors", "w", "shape"), [12, 0], r"\[N, K\]"),
    (("tensors", "w", "shape"), [12, True], r"\[N, K\]"),
    (("tensors", "w", "shape"), [12, 200.0], r"\[N, K\]"),
    (("tensors", "w", "shape"), [12, 1 << 90], r"\[N, K\]"),
    (("tensors", "w", "shape"), [12], r"\[N, K\]"),
    (("tensors", "w", "dtype"), "F64", "one of F32"),
    (("tensors", "w", "dtype"), [], "one of F32"),
    (("tensors", "w", "codes"), "planes", "codes are"),
    (("tensors", "w", "activations"), "int4", "activations are"),
    (("tensors", "w", "errors"), {"weights": "small"}, "errors are"),
    (("tensors", "w", "errors"), {"weights": float("nan")}, "errors are"),
    (("tensors", "w", "errors"), 3, "tensor 'w'"),
    (("tensors", "w", "parts"), {"codes": "w.codes"}, "part scales is missing"),
    (("tensors", "w", "parts"), {"codes": "w.codes", "scales": "gone"}, "no array is named 'gone'"),
    (("tensors", "w", "parts"), {"codes": "w.scales", "scales": "w.codes"}, "part codes is|codes are"),
    (("tensors", "w", "parts"), ["w.codes"], "tensor 'w'"),
    (("tensors", "w", "parts", "codes"), {}, "tensor 'w'"),
    (("tensors", "w", "format"), "int4", "a format is"),
    (("tensors", "w", "format", "family"), "lattice", "families are"),
    (("tensors", "w", "format", "family"), [], "a format is"),
    (("tensors", "w", "format", "bits"), 7, "bits are"),
    (("tensors", "w", "format", "bits"), 3, "part codes is|codes: row"),
    (("tensors", "w", "format", "bits"), 1 << 70, "bits"),
    (("tensors", "w", "format", "bits"), [4], "bits"),
    (("tensors", "w", "format", "group"), -32, "group"),
    (("tensors", "w", "format", "group"), 1 << 70, "group"),
    (("tensors", "w", "format", "mode"), 1, "mode"),
    (("tensors", "w", "format", "mode"), {}, "mode"),
    (("tensors", "w", "format", "activations"), {}, "activations are"),
    (("tensors", "w", "format", "stray"), 1, "numbers of int_group"),
    (("tensors", "w", "transforms"), [{"kind": "spin", "parts": {}}], "not 'spin'"),
    (("tensors", "w", "transforms"), [{"kind": {}, "parts": {}}], "kinds are"),
    (("tensors", "w", "side_terms"), [3], "tensor 'w'"),
    (("tensors", "w", "side_terms"), 3, "tensor 'w'"),
]


@pytest.mark.parametrize("symbols", [False, True])
@pytest.mark.parametrize(("where", "value", "text"), LIES)
def test_metadata_that_lies_is_refused(weights, tmp_path, where, value, text, symbols):
    path = tmp_path / "x.safetensors"
    formats.save_file({"w": tersor.quantize(weights, "int4-g32")}, path)
    arrays, metadata = safetensors_file.read(path)
    document = json.loads(metadata[files.KEY])
    if symbols:
        arrays["w.codes"] = np.zeros((12, 200), np.uint8)
        document["tensors"]["w"]["codes"] = "symbols"
    into = document
    for step in where[:-1]:
        into = into[step]
    into[where[-1]] = value
    if (where[-1], value) == ("bits", 3) and symbols:
        document["tensors"]["w"]["format"]["bits"] = 2
        arrays["w.codes"][3, 4], text = 4, "codes: row 3 holds 4, at most 3"
    safetensors_file.write(arrays, {files.KEY: json.dumps(document)}, path)
    with pytest.raises(FormatError, match=text):
        formats.load_file(path)


@pytest.mark.parametrize(
    "member", ["format", "shape", "dtype", "codes", "activations", "errors", "parts", "transforms"]
)
def test_rows_without_a_member_are_refused(weights, tmp_path, member):
    path = tmp_path / "x.safetensors"
    formats.save_file({"w": tersor.quantize(weights, "int4-g32")}, path)
    arrays, metadata = safetensors_file.read(path)
    document = json.loads(metadata[files.KEY])
    del document["tensors"]["w"][member]
    safetensors_file.write(arrays, {files.KEY: json.dumps(document)}, path)
    with pytest.raises(FormatError, match=f"tensor 'w': .*{member}"):
        formats.load_file(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1}', "[" * 100_000])
def test_metadata_that_is_no_document_is_refused(weights, tmp_path, text):
    safetensors_file.write({"a": weights}, {files.KEY: text}, tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match="damaged"):
        formats.load_file(tmp_path / "x.safetensors")


def test_files_without_quantized_matrices_are_arrays(weights, tmp_path):
    for name, save in (("x.safetensors", safetensors.numpy.save_file), ("x.tsr", tersor.save_file)):
        save({"a": weights}, tmp_path / name)
        assert formats.load_file(tmp_path / name)["a"].tobytes() == weights.tobytes()


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,-4]}}',
        b'{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":[],"shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}',
        b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1' + b",1" * 32 + b'],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1000000000000000000,10],"data_offsets":[0,4]}}',
        b'{"__metadata__":{"a":1}}',
        b'{"__metadata__":[]}',
        b"{}",
        b"[]",
        b"3",
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_headers_of_safetensors_that_lie_are_refused(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(FormatError, match="safetensors"):
        formats.load_file(path)
    for size in (len(header) + 5, 1 << 63):
        path.write_bytes(size.to_bytes(8, "little") + header + bytes(4))
        with pytest.raises(FormatError, match="a header of"):
            formats.load_file(path)
