"""tersor.compress and tersor.decompress: every dtype, shape, order and kind of array comes back bit for bit."""

import array
import mmap

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tersor
import tersor.numpy
from tersor.lossless import NUMPY_DTYPES, elements_of

DTYPES = list(NUMPY_DTYPES.values())
SHAPES = [(), (1,), (0,), (3, 0, 2), (7,), (5, 3), (2, 3, 4, 5), (1, 1, 1), (70_001,)]


def of_bits(dtype, shape, seed=0):
    """Any bit pattern, NaNs with payloads and all; bool takes 0 and 1."""
    count = int(np.prod(shape)) * dtype.itemsize
    bits = np.random.default_rng(seed).integers(0, 2 if dtype == np.bool_ else 256, count, np.uint8)
    return bits.view(dtype).reshape(shape)


def assert_same(got, want):
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_round_trip(dtype, shape):
    want = of_bits(dtype, shape)
    got = tersor.decompress(tersor.compress(want))
    assert_same(got, want)
    assert got.flags.writeable
    assert got.flags.c_contiguous


@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 9), max_size=5),
    level=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_any_array_at_any_level(dtype, shape, level, seed):
    want = of_bits(dtype, tuple(shape), seed)
    assert_same(tersor.decompress(tersor.compress(want, level=level)), want)


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)], ids=str)
@pytest.mark.parametrize("level", [1, 4, 9])
def test_weights_of_several_chunks(dtype, level):
    weights = (np.random.default_rng(1).standard_normal((1300, 1000), np.float32) * 0.02).astype(dtype)
    data = tersor.compress(weights, level=level)
    assert_same(tersor.decompress(data), weights)
    assert isinstance(data, bytes)
    assert len(data) < weights.nbytes


def test_order_and_strides_do_not_change_the_values():
    square = np.arange(12, dtype=np.int32).reshape(3, 4)
    broadcast = np.broadcast_to(square, (2, 3, 4))
    for strided in (np.asfortranarray(square), square.T, square[::-1, ::2], square[:, 1], broadcast):
        want = np.ascontiguousarray(strided)
        assert_same(tersor.decompress(tersor.compress(strided)), want)
        assert tersor.compress(strided) == tersor.compress(want)


def test_big_endian_values_are_kept_in_native_order():
    got = tersor.decompress(tersor.compress(np.arange(5, dtype=">f4")))
    assert_same(got, np.arange(5, dtype="<f4"))


def test_read_only_input_stays_untouched():
    want = of_bits(np.dtype(np.float32), (1000,))
    given_array = want.copy()
    given_array.flags.writeable = False
    assert_same(tersor.decompress(tersor.compress(given_array)), want)
    assert_same(given_array, want)


def test_where_elements_lie_is_found_for_odd_strides_and_addresses():
    """NumPy calls all of these contiguous."""
    one = np.array([(7, 1.5)], "u1,f4")["f1"]  # a stride of 5 bytes, over which nothing steps
    unaligned = np.frombuffer(bytes(range(9)), np.float32, offset=1)
    brain = np.zeros(1, [("gap", "u1"), ("value", ml_dtypes.bfloat16)])["value"]
    for given_array in (one, unaligned, brain, np.zeros((3, 0))[:, :0], np.array(2, ml_dtypes.bfloat16)):
        assert given_array.flags.c_contiguous
        assert elements_of(given_array).address == given_array.ctypes.data
        assert_same(tersor.decompress(tersor.compress(given_array)), given_array.copy())


def test_scalars_of_numpy():
    assert_same(tersor.decompress(tersor.compress(np.float64(1.5))), np.asarray(1.5))


def test_buffers_are_arrays():
    text = b"the same bytes"
    for buffer in (text, bytearray(text), memoryview(text)):
        assert_same(tersor.decompress(tersor.compress(buffer)), np.frombuffer(text, np.uint8))
    assert_same(tersor.decompress(tersor.compress(array.array("d", [1, 2]))), np.array([1.0, 2.0]))


def test_data_may_be_any_buffer(tmp_path):
    want = np.arange(100)
    data = tersor.compress(want)
    (tmp_path / "data").write_bytes(data)
    with open(tmp_path / "data", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for buffer in (bytearray(data), memoryview(data), np.frombuffer(data, np.uint8), mapped):
            assert_same(tersor.decompress(buffer), want)


class OnlyDLPack:
    """An array of a library that knows nothing but the protocol."""

    def __init__(self, values):
        self.values = values

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


def test_dlpack():
    want = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert tersor.compress(OnlyDLPack(want)) == tersor.compress(want)
    assert tersor.compress(OnlyDLPack(want.T)) == tersor.compress(want.T)
    out = np.zeros_like(want)
    tersor.decompress(tersor.compress(want), OnlyDLPack(out))
    assert_same(out, want)


def test_out_is_filled_and_returned():
    for dtype in DTYPES:
        want = of_bits(dtype, (50, 20))
        out = np.zeros_like(want)
        assert tersor.decompress(tersor.compress(want), out) is out
        assert_same(out, want)
    buffer = bytearray(4)
    assert tersor.decompress(tersor.compress(b"abcd"), out=buffer) is buffer
    assert buffer == b"abcd"


def test_out_that_does_not_fit():
    data = tersor.compress(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"out is F32 \[3, 2\], the data is F32 \[2, 3\]"):
        tersor.decompress(data, np.zeros((3, 2), np.float32))
    with pytest.raises(TypeError, match="out is I32"):
        tersor.decompress(data, np.zeros((2, 3), np.int32))
    with pytest.raises(ValueError, match="c_contiguous=False"):
        tersor.decompress(data, np.zeros((2, 3), np.float32, order="F"))
    with pytest.raises(ValueError, match="writeable=False"):
        tersor.decompress(tersor.compress(b"abcd"), b"1234")
    with pytest.raises(ValueError, match="writeable=False"):
        tersor.decompress(tersor.compress(np.float64(1.5)), np.float64(0))
    with pytest.raises(TypeError, match="found int"):
        tersor.decompress(data, 3)


@pytest.mark.parametrize(
    "stranger",
    [np.zeros(2, np.complex128), np.array(["a"]), np.array([None]), np.zeros(2, "M8[s]"), np.zeros(2, "i4,f4")],
    ids=lambda value: str(value.dtype),
)
def test_a_dtype_without_a_number_is_refused(stranger):
    with pytest.raises(TypeError, match="is not one of bool, uint8"):
        tersor.compress(stranger)


def test_what_is_no_array_is_refused():
    for stranger in ([1, 2], 3, None, "text", {"a": 1}):
        with pytest.raises(TypeError, match="an array is needed"):
            tersor.compress(stranger)


@pytest.mark.parametrize("level", [0, 10, -1])
def test_levels_are_1_to_9(level):
    assert tersor._core.DEFAULT_LEVEL == 4  # docstrings and tersor-enc say so
    with pytest.raises(ValueError, match=str(level)):
        tersor.compress(np.zeros(3), level=level)


def test_same_bytes_whatever_the_threads():
    weights = np.random.default_rng(2).standard_normal(2_000_000).astype(np.float32)
    before = tersor.get_num_threads()
    try:
        data = set()
        for threads in (1, 2, 7):
            tersor.set_num_threads(threads)
            data.add(tersor.compress(weights))
            assert_same(tersor.decompress(data.copy().pop()), weights)
        assert len(data) == 1
    finally:
        tersor.set_num_threads(before)


def test_damage_is_an_error_or_harmless():
    want = (np.random.default_rng(3).standard_normal(3000) * 0.1).astype(ml_dtypes.bfloat16)
    data = tersor.compress(want)
    for length in range(len(data)):
        if length < 400 or length > len(data) - 400 or length % 97 == 0:
            with pytest.raises(tersor.FormatError):
                tersor.decompress(data[:length])
    rng = np.random.default_rng(4)
    for _ in range(500):
        bad = bytearray(data)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        try:
            got = tersor.decompress(bad)
        except tersor.FormatError:
            continue
        assert_same(got, want)  # a bit that nothing reads


def test_other_containers_are_named():
    with pytest.raises(tersor.FormatError, match="origin tensors"):
        tersor.decompress(tersor.numpy.save({"a": np.zeros(3), "b": np.zeros(2)}))


def test_format_error_is_a_value_error():
    assert issubclass(tersor.FormatError, ValueError)
    assert (tersor.FormatError.__module__, tersor.FormatError.__qualname__) == ("tersor", "FormatError")
