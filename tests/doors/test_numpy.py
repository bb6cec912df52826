"""tersor.numpy: safetensors.numpy's functions and behaviors, over .tsr files."""

import os
import threading

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import tersor
import tersor.numpy


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return {
        "layer.weight": rng.standard_normal((300, 200)).astype(np.float32),
        "layer.bias": rng.standard_normal(300).astype(ml_dtypes.bfloat16),
        "half": rng.standard_normal((4, 5, 6)).astype(np.float16),
        "fp8": rng.standard_normal(50).astype(ml_dtypes.float8_e4m3fn),
        "ids": rng.integers(0, 1000, (10, 2)),
        "mask": rng.integers(0, 2, 33).astype(bool),
        "step": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "größe/ü": np.arange(3, dtype=np.uint16),
    }


def assert_same_tensors(got, want):
    assert got.keys() == want.keys()
    for name in want:
        assert (got[name].dtype, got[name].shape) == (want[name].dtype, want[name].shape), name
        assert got[name].tobytes() == want[name].tobytes(), name


def test_file_round_trip(tmp_path, tensors):
    path = tmp_path / "m.tsr"
    assert tersor.numpy.save_file(tensors, path, {"format": "np"}) is None
    assert_same_tensors(tersor.numpy.load_file(path), tensors)
    assert_same_tensors(tersor.load_file(os.fspath(path), "cpu"), tensors)
    assert os.listdir(tmp_path) == ["m.tsr"]


def test_bytes_round_trip(tensors):
    data = tersor.numpy.save(tensors)
    assert isinstance(data, bytes)
    assert_same_tensors(tersor.numpy.load(data), tensors)
    assert_same_tensors(tersor.numpy.load(memoryview(data)), tensors)


def test_file_and_bytes_are_the_same(tmp_path, tensors):
    for level in (None, 1, 9):
        tersor.save_file(tensors, tmp_path / "m.tsr", {"a": "b"}, level=level)
        assert (tmp_path / "m.tsr").read_bytes() == tersor.numpy.save(tensors, {"a": "b"}, level=level)


def test_order_of_save_does_not_change_the_hash(tensors):
    hashes = set()
    for names in (list(tensors), list(tensors)[::-1]):
        for level in (1, 9):
            data = tersor.numpy.save({name: tensors[name] for name in names}, level=level)
            hashes.add(tersor._core.TensorFile.view(data, []).hash)
    assert len(hashes) == 1


def test_tied_tensors_are_stored_once(tensors):
    weight = tensors["layer.weight"]
    once, twice = tersor.numpy.save({"a": weight}), tersor.numpy.save({"a": weight, "b": weight.copy()})
    assert len(twice) < len(once) + 500
    assert_same_tensors(tersor.numpy.load(twice), {"a": weight, "b": weight})


def test_results_are_fresh_and_writable(tensors):
    data = tersor.numpy.save(tensors)
    first, second = tersor.numpy.load(data), tersor.numpy.load(data)
    first["layer.weight"][:] = 0
    assert second["layer.weight"].any()


def test_strided_arrays_keep_their_values():
    square = np.arange(12.0).reshape(3, 4)
    got = tersor.numpy.load(tersor.numpy.save({"f": np.asfortranarray(square), "t": square.T, "s": square[:, ::2]}))
    assert_same_tensors(got, {"f": square, "t": square.T.copy(), "s": square[:, ::2].copy()})


def test_no_tensors(tmp_path):
    tersor.save_file({}, tmp_path / "none.tsr", {"only": "text"})
    assert tersor.load_file(tmp_path / "none.tsr") == {}
    assert tersor.safe_open(tmp_path / "none.tsr").metadata() == {"only": "text"}


def test_a_file_is_replaced(tmp_path, tensors):
    path = tmp_path / "m.tsr"
    tersor.save_file(tensors, path)
    tersor.save_file({"a": np.zeros(3)}, path)
    assert list(tersor.load_file(path)) == ["a"]


def test_a_refused_save_leaves_the_file(tmp_path):
    path = tmp_path / "m.tsr"
    tersor.save_file({"a": np.zeros(3)}, path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="'b'"):
        tersor.save_file({"b": np.array(["text"])}, path)
    assert path.read_bytes() == before


def test_bad_calls(tmp_path):
    path, zeros = tmp_path / "m.tsr", np.zeros(3)
    with pytest.raises(TypeError, match=r"tensor 'a': an array is needed .*, found list"):
        tersor.save_file({"a": [1, 2]}, path)
    with pytest.raises(TypeError, match="names of tensors are text, found 3"):
        tersor.save_file({3: zeros}, path)
    with pytest.raises(TypeError, match="found list"):
        tersor.save_file([zeros], path)
    with pytest.raises(TypeError, match="metadata maps str to str, found 'n': 1"):
        tersor.save_file({"a": zeros}, path, {"n": 1})
    with pytest.raises(ValueError, match="11"):
        tersor.save_file({"a": zeros}, path, level=11)
    assert not path.exists()
    with pytest.raises(FileNotFoundError, match=r"no/such/folder"):
        tersor.save_file({"a": zeros}, tmp_path / "no/such/folder/m.tsr")
    with pytest.raises(FileNotFoundError, match=r"m\.tsr"):
        tersor.load_file(path)
    tersor.save_file({"a": zeros}, path)
    with pytest.raises(ValueError, match="cuda"):
        tersor.load_file(path, "cuda")


def test_other_files_are_named(tmp_path, tensors):
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "m.safetensors")
    with pytest.raises(tersor.FormatError, match=r"m\.safetensors\": not a \.tsr file: it begins with"):
        tersor.load_file(tmp_path / "m.safetensors")
    (tmp_path / "text").write_text("just some text, longer than any header of ours would be")
    with pytest.raises(tersor.FormatError, match="text"):
        tersor.load_file(tmp_path / "text")
    (tmp_path / "nothing").write_bytes(b"")
    with pytest.raises(tersor.FormatError):
        tersor.load_file(tmp_path / "nothing")
    with pytest.raises(tersor.FormatError):
        tersor.numpy.load(b"")


def test_names_of_files_may_be_any_bytes(tmp_path, tensors):
    path = os.fsencode(tmp_path) + b"/\xff\xfe.tsr"
    tersor.save_file(tensors, os.fsdecode(path))
    assert_same_tensors(tersor.load_file(os.fsdecode(path)), tensors)


def test_damage_names_the_tensor(tmp_path, tensors):
    path = tmp_path / "m.tsr"
    tersor.save_file({"the.weight": tensors["layer.weight"]}, path)
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(tersor.FormatError, match=r"the\.weight"):
        tersor.load_file(path)


def test_many_threads_save_and_load(tensors):
    failed = []

    def work():
        try:
            for _ in range(5):
                assert_same_tensors(tersor.numpy.load(tersor.numpy.save(tensors)), tensors)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
