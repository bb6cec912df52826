"""tersor.safe_open: lazy reading by tensor and by slice, as safetensors.safe_open gives it."""

import threading

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import tersor

TENSORS = {
    "z": np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4),
    "a": np.arange(700_000, dtype=np.int32).reshape(700, 1000),  # three chunks
    "b": (np.arange(1_200_000) * 0.001).astype(ml_dtypes.bfloat16).reshape(2, 600_000),  # rows longer than a chunk
    "s": np.array(5, np.uint8),
    "e": np.zeros((4, 0), np.float64),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("safe_open") / "m.tsr"
    tersor.save_file(TENSORS, path, {"who": "test"})
    return path


@pytest.fixture(scope="module")
def reader(path):
    return tersor.safe_open(path, framework="np")


def same(got, want):
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert got.tobytes() == want.tobytes()


def test_as_safetensors_does(path, tmp_path):
    plain = {name: array for name, array in TENSORS.items() if name != "b"}
    safetensors.numpy.save_file(plain, tmp_path / "m.safetensors", {"who": "test"})
    tersor.save_file(plain, tmp_path / "m.tsr", {"who": "test"})
    with (
        safetensors.safe_open(tmp_path / "m.safetensors", framework="np", device="cpu") as theirs,
        tersor.safe_open(tmp_path / "m.tsr", framework="np", device="cpu") as ours,
    ):
        assert ours.keys() == theirs.keys()
        assert sorted(ours.offset_keys()) == sorted(theirs.offset_keys())
        assert ours.metadata() == theirs.metadata()
        for name in theirs.keys():  # noqa: SIM118 - theirs is no mapping
            same(ours.get_tensor(name), theirs.get_tensor(name))
            assert ours.get_slice(name).get_shape() == theirs.get_slice(name).get_shape()
            assert ours.get_slice(name).get_dtype() == theirs.get_slice(name).get_dtype()
        for index in (
            0,
            -1,
            slice(1, 2),
            (slice(None), 1),
            (..., 2),
            (0, 1, 2),
            ...,
            slice(0, 2, 2),
            (slice(0, 1), slice(1, 3)),
        ):
            same(ours.get_slice("z")[index], theirs.get_slice("z")[index])


def test_no_metadata_is_none(tmp_path):
    tersor.save_file({}, tmp_path / "m.tsr")
    assert tersor.safe_open(tmp_path / "m.tsr").metadata() is None


def test_get_tensors(reader):
    assert reader.offset_keys() == list(reader.get_tensors())
    for name, array in reader.get_tensors().items():
        same(array, TENSORS[name])


def test_a_closed_file_says_so(path):
    with tersor.safe_open(path) as file:
        part = file.get_slice("z")
    for use in (lambda: file.get_tensor("z"), file.metadata, lambda: file.get_slice("z"), lambda: part[0]):
        with pytest.raises(ValueError, match="the file is closed"):
            use()


def test_bad_calls(path, reader):
    with pytest.raises(ValueError, match="not 'xx'"):
        tersor.safe_open(path, "xx")
    with pytest.raises(ValueError, match="cuda:0"):
        tersor.safe_open(path, "np", "cuda:0")
    with pytest.raises(KeyError, match="no tensor is named 'q'"):
        reader.get_tensor("q")
    with pytest.raises(KeyError, match="no tensor is named 'q'"):
        reader.get_slice("q")
    part = reader.get_slice("z")
    for index in (2, -3, (0, 3), (0, 0, 0, 0), (..., ...)):
        with pytest.raises(IndexError):
            part[index]
    for index in ([0], None, 1.5, "a", True, np.array([0, 1])):
        with pytest.raises(TypeError, match="indices are integers"):
            part[index]


def test_a_plain_file_is_no_file_of_tensors(tmp_path):
    (tmp_path / "text").write_text("text")
    tersor._core.compress_file(bytes(tmp_path / "text"), bytes(tmp_path / "text.tsr"), [], 1, 1, False, None)
    with pytest.raises(tersor.FormatError, match="tensors are needed"):
        tersor.safe_open(tmp_path / "text.tsr")


@st.composite
def indices(draw, shape):
    """An index of up to all axes: integers, slices with any step, maybe an ellipsis."""

    def axis(size):
        bound = st.none() | st.integers(-size - 2, size + 2)
        step = st.none() | st.integers(-size - 1, size + 1).filter(bool)
        picks = st.builds(slice, bound, bound, step)
        return picks | st.integers(-size, size - 1) if size else picks

    count = draw(st.integers(0, len(shape)))
    front = draw(st.integers(0, count))
    items = [draw(axis(size)) for size in shape[:front]]
    back = count - front
    if back or draw(st.booleans()):
        items += [..., *(draw(axis(size)) for size in shape[len(shape) - back :])]
    return tuple(items)


@pytest.mark.parametrize("name", TENSORS)
def test_slices_are_numpys(reader, name):
    array, part = TENSORS[name], reader.get_slice(name)

    @given(index=indices(array.shape))
    @settings(max_examples=60, deadline=None)
    def check(index):
        same(part[index], np.asarray(array[index]))

    check()


def test_a_slice_reads_only_the_chunks_it_touches(path, tmp_path):
    """Damage of every other chunk does not reach it."""
    data = bytearray(path.read_bytes())
    coded = sum(entry.stored for entry in tersor._core.TensorFile.open(bytes(path), []).entries)
    first_row, last_row = TENSORS["a"][0], TENSORS["a"][-1]
    damaged = 0
    for at in range(20, 16 + coded, coded // 40):
        bad = bytearray(data)
        bad[at] ^= 0x10
        (tmp_path / "bad.tsr").write_bytes(bad)
        part = tersor.safe_open(tmp_path / "bad.tsr").get_slice("a")
        readable = 0
        for index, want in ((0, first_row), (-1, last_row)):
            try:
                same(part[index], want)
                readable += 1
            except tersor.FormatError:
                damaged += 1
        assert readable >= 1  # the two rows lie in different chunks
    assert damaged > 0


def test_many_threads_read_one_file(reader):
    failed = []

    def work(seed):
        rng = np.random.default_rng(seed)
        try:
            for _ in range(20):
                row = int(rng.integers(700))
                same(reader.get_slice("a")[row], TENSORS["a"][row])
                same(reader.get_tensor("z"), TENSORS["z"])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
