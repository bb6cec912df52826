"""Files as NumPy, PyTorch and the gguf package write them: taken apart, read as tensors, and back byte for byte."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import subprocess
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import gguf
import ml_dtypes
import numpy as np
import pytest
import torch

import tersor

Pack = Callable[[bytes], "Packed"]


class Packed:
    """A file in a .tsr: what the oracle and our own reader see in it."""

    def __init__(self, data: bytes, tsr: Path, container: ModuleType, decoders: dict[int, Callable]) -> None:
        self.data, self.tsr = data, tsr
        self.file = container.read(tsr.read_bytes())
        assert self.file.restored(decoders) == data
        assert self.file.content_hash() == self.file.hash

    @property
    def kinds(self) -> dict[str, str]:
        return {entry.name: entry.dtype or "bytes" for entry in self.file.entries}

    @property
    def ratio(self) -> float:
        return len(self.data) / self.tsr.stat().st_size

    def tensors(self) -> dict[str, np.ndarray]:
        return tersor.load_file(self.tsr)


@pytest.fixture
def pack(tmp_path: Path, binaries: Path, container: ModuleType, decoders: dict[int, Callable]) -> Pack:
    """Bytes of a file -> Packed. Both binaries have agreed that they come back."""

    def pack(data: bytes) -> Packed:
        name, tsr, out = tmp_path / "file", tmp_path / "file.tsr", tmp_path / "out"
        name.write_bytes(data)
        for words in (["tersor-enc", "-f", name, tsr], ["tersor-dec", "--verify", tsr], ["tersor-dec", "-f", tsr, out]):
            subprocess.run([binaries / words[0], *words[1:]], check=True, timeout=60)
        assert out.read_bytes() == data
        piped = subprocess.run([binaries / "tersor-dec", tsr, "-"], check=True, timeout=60, capture_output=True)
        assert piped.stdout == data
        return Packed(data, tsr, container, decoders)

    return pack


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def weights(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    return (np.random.default_rng(len(shape)).standard_normal(shape) * 0.02).astype(dtype)


# ---- NumPy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        weights((300, 40)),
        weights((300, 40), np.float16),
        weights((3, 5, 7), np.float64),
        np.arange(1000, dtype=np.int64).reshape(10, 100),
        np.arange(100) % 3 == 0,
        weights((50,)).astype(np.complex64),
        np.float32(3).reshape(()),
        np.zeros((0, 3)),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_an_array_is_a_tensor(pack: Pack, array: np.ndarray):
    packed = pack(npy(array))
    assert (packed.file.origin, list(packed.kinds)) == ("npy", ["", "gaps"])
    (loaded,) = packed.tensors().values()
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


@pytest.mark.parametrize(
    ("array", "least_ratio"),
    [
        (np.asfortranarray(weights((300, 40))), 1.15),
        (weights((300, 40)).astype(">f4"), 1.15),
        (np.cumsum(weights((3000,), np.float64)) + 1j, 2.0),
        (weights((3000,)).astype(ml_dtypes.bfloat16), 1.3),
        (np.datetime64("2024-01-01", "s") + np.arange(3000), 50.0),
        (np.array(["some", "words"] * 500), 10.0),
        (np.zeros(1000, [("a", "<f4"), ("b", "<i2")]), 10.0),
        (np.array([1, "a", None], object), 0.5),
        (weights((3000,), np.longdouble), 1.3),
    ],
    ids=["fortran", "big endian", "complex128", "bfloat16", "datetime", "text", "structs", "objects", "long double"],
)
def test_other_arrays_travel_as_bytes_but_not_as_any_bytes(pack: Pack, array: np.ndarray, least_ratio: float):
    packed = pack(npy(array))
    assert set(packed.kinds.values()) == {"bytes"}
    assert packed.ratio > least_ratio


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_of_arrays(pack: Pack, save: Callable):
    arrays = {"a": weights((300, 40)), "ids": np.arange(5000), "f": weights((30, 40)).T, "0d": np.array(2)}
    out = io.BytesIO()
    save(out, **arrays)
    packed = pack(out.getvalue())
    if save is np.savez:
        assert packed.file.origin == "npz"
        assert packed.kinds == {"a": "F32", "ids": "I64", "f": "bytes", "0d": "I64", "gaps": "bytes"}
        for name, array in packed.tensors().items():
            np.testing.assert_array_equal(array, arrays[name])
    else:  # deflated: no other deflater makes the same bytes
        assert packed.file.origin == "file"


def test_files_without_tensors_have_hashes_of_their_own(pack: Pack):
    arrays = [np.asfortranarray(weights((5, 4))), np.asfortranarray(weights((5, 4)) + 1), weights((20,)).astype(">f4")]
    packed = [pack(npy(array)) for array in arrays]
    assert len({file.file.hash for file in packed}) == 3
    with pytest.raises(tersor.FormatError, match="a file of kind npy without any"):
        packed[0].tensors()


def test_an_array_may_be_called_as_the_gaps_are(pack: Pack):
    out = io.BytesIO()
    np.savez(out, gaps=np.asfortranarray(weights((5, 4))))
    assert pack(out.getvalue()).kinds == {"gaps, the array": "bytes", "gaps": "bytes"}


def test_a_mixed_archive(pack: Pack):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("notes.txt", b"x" * 100_000, zipfile.ZIP_DEFLATED)
        archive.writestr("a.npy", npy(weights((100, 10))))
        archive.writestr("raw", np.random.default_rng(0).bytes(200_000))
        archive.writestr("folder/b.npy", npy(weights((7,))))
        archive.writestr("c.npy", npy(np.arange(100)), zipfile.ZIP_DEFLATED)
        archive.comment = b"a comment"
    packed = pack(out.getvalue())
    kinds = packed.kinds
    assert {name: kind for name, kind in kinds.items() if kind != "bytes"} == {"a": "F32", "folder/b": "F32"}
    assert sum(name.startswith("bytes from ") for name in kinds) == 1


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


def saved(thing: object, **options: object) -> bytes:
    out = io.BytesIO()
    torch.save(thing, out, **options)
    return out.getvalue()


def test_a_state_dict_has_its_names(pack: Pack):
    model = torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.Embedding(50, 8).bfloat16(), torch.nn.BatchNorm1d(3))
    packed = pack(saved(model.state_dict()))
    assert packed.file.origin == "torch"
    tensors = packed.tensors()
    assert tensors.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert tensors[name].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(tensors[name].astype(np.float64), tensor.double().numpy())


def test_a_training_checkpoint(pack: Pack):
    shared = torch.randn(20, 30)
    checkpoint = {
        "model": OrderedDict(w=torch.randn(50, 60).half(), tied=shared, **{"also.tied": shared}),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(50, 60)}}, "lr": [1e-3]},
        "list": [torch.arange(5), torch.arange(6).to(torch.uint16)],
        "view": torch.randn(100)[10:20],
        "transposed": torch.randn(4, 5).T,
        "f8": torch.randn(64).to(torch.float8_e4m3fn),
        "complex": torch.randn(9, dtype=torch.complex64),
        "complex128": torch.randn(9, dtype=torch.complex128),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "none": None,
        "flag": True,
        "big": 1 << 70,
    }
    packed = pack(saved(checkpoint))
    kinds = {name: kind for name, kind in packed.kinds.items() if not name.startswith("data/")}
    assert kinds == {
        "model.w": "F16",
        "model.tied": "F32",
        "optimizer.state.0.step": "F32",
        "optimizer.state.0.exp_avg": "F32",
        "list.0": "I64",
        "list.1": "U16",
        "f8": "F8_E4M3",
        "complex": "C64",
        "parameter": "F32",
        "gaps": "bytes",
    }
    others = {kind for name, kind in packed.kinds.items() if name.startswith("data/")}
    assert others == {"F32", "bytes"}  # view and transposed; complex128
    tensors = packed.tensors()
    np.testing.assert_array_equal(tensors["optimizer.state.0.exp_avg"], checkpoint["optimizer"]["state"][0]["exp_avg"])


def test_a_whole_module_is_not_unpickled(pack: Pack):
    packed = pack(saved(torch.nn.Linear(20, 30)))
    assert sorted(entry.shape for entry in packed.file.entries if entry.dtype == "F32") == [(30,), (30, 20)]


def test_views_of_one_storage(pack: Pack):
    """The tensor that fills the storage names it, and nobody's values are another's."""
    fp8, row = torch.randn(64).to(torch.float8_e4m3fn), torch.randn(12)
    things = {
        "bytes": fp8.view(torch.uint8),
        "fp8": fp8,
        "head": row[:5],
        "all": row,
        "conjugate": torch.randn(4, dtype=torch.complex64).conj(),
        "negative": torch._neg_view(torch.randn(3)),
        "expanded": torch.randn(1).expand(7),
        "none": torch.zeros(3, 0),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    packed = pack(saved(things))
    kinds = packed.kinds
    assert kinds["bytes"] == "U8"
    assert kinds["all"] == "F32"
    assert not kinds.keys() & {"fp8", "head", "conjugate", "negative", "expanded", "channels last"}
    for name, array in packed.tensors().items():
        if not name.startswith("data/"):
            np.testing.assert_array_equal(array, things[name].numpy())
    others = {array.shape for name, array in packed.tensors().items() if name.startswith("data/")}
    assert others == {(4,), (3,), (1,), (120,)}


def test_a_tensor_alone_and_one_without_a_name(pack: Pack):
    for thing, name in ((torch.randn(3, 4), ""), ({"": torch.randn(3, 4)}, "")):
        assert pack(saved(thing)).tensors()[name].shape == (3, 4)


def test_names_that_clash_cost_nobody_else_theirs(pack: Pack):
    state = {"a": {"b": torch.randn(3)}, "a.b": torch.randn(4), "data/9": torch.randn(5), "ok": torch.randn(6)}
    state |= {-1: torch.randn(7), None: torch.randn(8), 0: torch.randn(9), "\ud800": torch.randn(10)}
    state[1, 2] = torch.randn(11)
    tensors = pack(saved(state)).tensors()
    sizes = {name: array.size for name, array in tensors.items()}
    assert {"a.b": 3, "ok": 6, "-1": 7, "None": 8, "0": 9}.items() <= sizes.items()
    assert sorted(sizes.values()) == [3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_storages_that_no_name_leads_to_have_their_dtype(pack: Pack):
    state = {"sparse": torch.eye(30).to_sparse(), "long": {"k" * 5000: torch.randn(3).half()}}
    kinds = pack(saved(state)).kinds
    assert sorted(kind for name, kind in kinds.items() if name.startswith("data/")) == ["F16", "F32", "I64"]


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_script_module(pack: Pack):
    out = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(20, 30)), out)
    kinds = pack(out.getvalue()).kinds
    assert (kinds["weight"], kinds["bias"]) == ("F32", "F32")


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


HOSTILE = {
    "a long list as the id of many storages": b"(" + b"N" * 100_000 + b"tq\0000" + b"h\0Q0" * 100_000 + b"N.",
    "a long key, often": text(b"k" * 1_000_000) + b"q\0000}(" + b"h\0N" * 200_000 + b"u.",
    "memos far apart": b"N" + b"".join(b"r" + struct.pack("<I", i * 85229 % 2**32) for i in range(50_000)) + b"N.",
    "four million values": b"K\1" * (1 << 22) + b".",
    "four million lists": b"]" * (1 << 22) + b".",
    "deep": b"}(" + text(b"a") + b"}(" * 100_000,
    "a circle": b"}q\0(" + text(b"a") + b"h\0u.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_cost_little(tmp_path: Path, binaries: Path, name: str):
    with zipfile.ZipFile(tmp_path / "in", "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\2" + HOSTILE[name])
        archive.writestr("m/data/0", bytes(100))
    limit = 1 << 30
    subprocess.run(
        [binaries / "tersor-enc", "-T", "1", tmp_path / "in", tmp_path / "out"],
        check=True,
        timeout=20,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )


def test_many_members_in_one_place_are_no_archive(tmp_path: Path, binaries: Path, container: ModuleType):
    """A directory may name the same bytes a thousand times: they are not parsed as often."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.npy", npy(weights((300,))))
    data = out.getvalue()
    at = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    rows = data[at:end] * 20_000
    (tmp_path / "in").write_bytes(
        data[:at] + rows + data[end : end + 8] + struct.pack("<HHII", 20_000, 20_000, len(rows), at) + b"\0\0"
    )
    subprocess.run([binaries / "tersor-enc", tmp_path / "in", tmp_path / "out"], check=True, timeout=20)
    assert container.read((tmp_path / "out").read_bytes()).origin == "file"


class Bomb:
    def __reduce__(self) -> tuple:
        return (pytest.fail, ("it was carried out",))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_no_pickle_is_carried_out(pack: Pack, protocol: int):
    data = saved({"bomb": Bomb(), "w": torch.randn(30, 40)}, pickle_protocol=protocol)
    assert pack(data).kinds["w"] == "F32"


def test_older_files_are_files_of_bytes(pack: Pack):
    older = pack(saved({"w": torch.randn(300, 400).bfloat16()}, _use_new_zipfile_serialization=False))
    assert older.file.origin == "file"
    assert older.ratio > 1.4  # and yet their numbers are found
    assert pack(pickle.dumps({"w": 1})).file.origin == "file"


# ---- GGUF ------------------------------------------------------------------------------------------------------------


def quantized(name: str, rows: int, columns: int) -> np.ndarray:
    """[rows, bytes] of ggml's type `name`, by the gguf package where it can; else blocks of bytes."""
    kind = gguf.GGMLQuantizationType[name]
    try:
        return gguf.quants.quantize(weights((rows, columns)), kind)
    except NotImplementedError:
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        size = (rows, columns // per_block * block_bytes)
        return np.random.default_rng(0).integers(0, 200, size, dtype=np.uint8)


def gguf_file(tmp_path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> bytes:
    writer = gguf.GGUFWriter(tmp_path / "made.gguf", "llama")
    writer.add_array("tokenizer.ggml.tokens", [f"token {i}" for i in range(1000)])
    writer.add_float32("one", 1.0)
    for name, (kind, array) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return (tmp_path / "made.gguf").read_bytes()


def test_every_type_of_ggml_has_the_size_of_its_own_package(pack: Pack, tmp_path: Path):
    kinds = [kind.name for kind in gguf.GGMLQuantizationType if gguf.GGML_QUANT_SIZES[kind][0] > 1]
    data = gguf_file(tmp_path, {kind: (kind, quantized(kind, 3, 512)) for kind in kinds})
    packed = pack(data)
    assert packed.file.origin == "gguf"
    known = {name: entry for name, entry in zip(packed.kinds, packed.file.entries, strict=True) if entry.dtype}
    missing = set(kinds) - known.keys()
    assert missing <= {"Q8_1"}, "the package's size of a type that no file has"
    for name, entry in known.items():
        assert entry.shape == quantized(name, 3, 512).shape, name


def test_quantized_weights_shrink_and_load(pack: Pack, tmp_path: Path):
    kinds = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ2_0", "F16", "BF16", "F32"]
    arrays = {kind: quantized(kind, 200, 512) for kind in kinds if "_" in kind}
    arrays |= {"F16": weights((30, 40), np.float16), "F32": weights((30, 40))}
    arrays["BF16"] = weights((30, 40)).astype(ml_dtypes.bfloat16).view(np.uint8)
    packed = pack(gguf_file(tmp_path, {kind: (kind, arrays[kind]) for kind in kinds}))
    tensors = packed.tensors()
    for kind in kinds:
        np.testing.assert_array_equal(tensors[kind].view(np.uint8), arrays[kind].view(np.uint8))
    for entry in packed.file.entries:
        if entry.name.startswith("Q"):
            assert sum(size for _, size, _ in entry.chunks) < 0.98 * entry.raw_bytes, entry.name


def gptq_words(rows: int, columns: int, group: int = 128) -> np.ndarray:
    """[rows / 8, columns] int32: 4-bit codes of Gaussian weights by groups, as GPTQ packs them."""
    weight = weights((columns, rows)).reshape(columns, rows // group, group)
    low, high = weight.min(2, keepdims=True), weight.max(2, keepdims=True)
    codes = np.rint((weight - low) / (high - low) * 15).astype(np.uint32).reshape(columns, rows).T
    return sum(codes[i::8] << np.uint32(4 * i) for i in range(8)).view(np.int32)


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "GPTQ"])
def test_packed_weights_against_zstd(tmp_path: Path, binaries: Path, kind: str):
    """At most the size of zstd -19, at 5 times its speed or more, a process of ours against its call in memory."""
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not here")
    if kind == "GPTQ":
        data = npy(gptq_words(2048, 2048))
    else:
        data = gguf_file(tmp_path, {"w": (kind, quantized(kind, 2048, 2048))})
    (tmp_path / "in").write_bytes(data)
    start = time.perf_counter()
    subprocess.run([binaries / "tersor-enc", "-T", "1", tmp_path / "in", tmp_path / "out"], check=True, timeout=60)
    middle = time.perf_counter()
    theirs = len(zstandard.ZstdCompressor(level=19).compress(data))
    ratio, ours = (time.perf_counter() - middle) / (middle - start), (tmp_path / "out").stat().st_size
    print(f"{kind}: {ours} bytes, zstd -19 {theirs}: {ours / theirs:.4f} of it at {ratio:.0f} times its speed")
    assert ours <= theirs
    assert ratio >= 5


def test_a_checkpoint_of_torch_can_be_a_base(tmp_path: Path, binaries: Path):
    state = {"a": torch.randn(300, 400), "b": torch.randn(20)}
    (tmp_path / "one.pt").write_bytes(saved(state))
    (tmp_path / "two.pt").write_bytes(saved({**state, "b": torch.randn(20)}))
    enc, dec = binaries / "tersor-enc", binaries / "tersor-dec"
    base = ["--base", tmp_path / "one.pt"]
    subprocess.run([enc, *base, tmp_path / "two.pt", tmp_path / "two.tsr"], check=True, timeout=60)
    assert (tmp_path / "two.tsr").stat().st_size < 3000
    subprocess.run([dec, *base, tmp_path / "two.tsr", tmp_path / "out"], check=True, timeout=60)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "two.pt").read_bytes()
