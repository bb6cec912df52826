"""tersor.zarr: arrays of both zarr formats, compressed by the codec that zarr finds by its entry point."""

import json

import numpy as np
import pytest

import tersor

zarr = pytest.importorskip("zarr", minversion="3.1", reason="zarr >= 3.1 is not here")

import numcodecs  # noqa: E402 - zarr brings it
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tersor.zarr import TersorCodec  # noqa: E402

DTYPES = ("bool", "i1", "u2", "i4", "u8", "f2", "f4", "f8", "c8", "c16", "M8[ns]", "U5", "S3", ">f4", ">i2")


def example(dtype, shape=(37, 23)):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind in "US":
        return rng.choice(["a", "bb", "ccc"], shape).astype(dtype)
    return (rng.normal(size=shape) * 100).astype("i8" if np.dtype(dtype).kind == "M" else "f8").astype(dtype)


def stored_bytes(store):
    return sum(len(value.to_bytes()) for key, value in store._store_dict.items() if "/c" in f"/{key}")


@pytest.mark.parametrize("shards", [None, (20, 20)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_format_3(dtype, shards):
    want, store = example(dtype), zarr.storage.MemoryStore()
    array = zarr.create_array(
        store, shape=want.shape, dtype=dtype, chunks=(10, 10), shards=shards, compressors=TersorCodec()
    )
    array[:] = want
    again = zarr.open_array(store, mode="r")
    got = again[:]
    want = want.astype(got.dtype)  # format 3 keeps no byte order in its dtype: big-endian comes back in ours
    assert got.dtype == want.dtype.newbyteorder("=")
    assert got.tobytes() == want.tobytes()
    assert np.array_equal(again[5:31:3, 7], want[5:31:3, 7])


@pytest.mark.parametrize("level", [None, 1, 9])
def test_metadata_names_the_codec(level, tmp_path):
    zarr.create_array(tmp_path / "a", shape=(8,), dtype="f4", compressors=TersorCodec(level=level))
    codec = json.loads((tmp_path / "a" / "zarr.json").read_text())["codecs"][-1]
    assert codec["name"] == "tersor"
    assert codec["configuration"] == ({} if level is None else {"level": level})
    assert zarr.open_array(tmp_path / "a").compressors == (TersorCodec(level=level),)


def test_found_by_its_entry_point():
    assert zarr.registry.get_codec_class("tersor") is TersorCodec
    assert TersorCodec.from_dict({"name": "tersor"}) == TersorCodec()
    by_name = zarr.create_array({}, shape=(8,), dtype="f4", compressors={"name": "tersor", "configuration": {}})
    assert by_name.compressors == (TersorCodec(),)


def test_floats_are_split():
    want = (np.random.default_rng(0).normal(size=(256, 256)) * 0.02).astype("f4")
    sizes = []
    for compressors in (TersorCodec(), zarr.codecs.ZstdCodec(level=19)):
        store = zarr.storage.MemoryStore()
        zarr.create_array(store, shape=want.shape, dtype="f4", chunks=(128, 256), compressors=compressors)[:] = want
        sizes.append(stored_bytes(store))
    assert sizes[0] < 0.86 * want.nbytes < sizes[1]


def test_other_codecs_in_front_and_text_of_any_length():
    want, store = example("f4"), {}
    filters = [zarr.codecs.TransposeCodec(order=(1, 0))]
    array = zarr.create_array(store, shape=want.shape, dtype="f4", filters=filters, compressors=TersorCodec())
    array[:] = want
    assert np.array_equal(zarr.open_array(store)[:], want)
    endian = zarr.codecs.BytesCodec(endian="big")
    array = zarr.create_array({}, shape=want.shape, dtype="f4", serializer=endian, compressors=TersorCodec())
    array[:] = want
    assert np.array_equal(array[:], want)
    words = np.array(["ä", "longer words", ""], dtype=object)
    array = zarr.create_array({}, shape=(3,), dtype=str, compressors=TersorCodec())
    array[:] = words
    assert list(array[:]) == list(words)


@pytest.mark.parametrize("order", "CF")
def test_format_2_through_numcodecs(order):
    want, store = example("f4"), zarr.storage.MemoryStore()
    codec = numcodecs.get_codec({"id": "tersor"})
    array = zarr.create_array(
        store, shape=want.shape, dtype="f4", chunks=(10, 10), zarr_format=2, compressors=codec, order=order
    )
    array[:] = want
    assert np.array_equal(zarr.open_array(store)[:], want)
    assert json.loads(store._store_dict[".zarray"].to_bytes())["compressor"] == {"id": "tersor", "level": None}


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_arrays_and_indices_that_zarr_draws(data):
    strategies = pytest.importorskip("zarr.testing.strategies", reason="this zarr comes without its strategies")
    want = data.draw(strategies.numpy_arrays(shapes=strategies.npst.array_shapes(max_dims=3, min_side=1, max_side=8)))
    array = zarr.create_array({}, shape=want.shape, dtype=want.dtype, compressors=TersorCodec())
    array[...] = want
    index = data.draw(strategies.basic_indices(shape=want.shape))
    np.testing.assert_array_equal(array[index], want[index])


def test_bad_chunks_and_levels():
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(store, shape=(1000,), dtype="f4", compressors=TersorCodec())
    array[:] = np.arange(1000)
    (key,) = (key for key in store._store_dict if key.startswith("c/"))
    chunk = bytearray(store._store_dict[key].to_bytes())
    chunk[len(chunk) // 3] ^= 1
    store._store_dict[key] = zarr.core.buffer.cpu.Buffer.from_bytes(bytes(chunk))
    with pytest.raises(tersor.FormatError):
        array[:]
    for level in (0, 10, "4"):
        with pytest.raises(ValueError, match=f"not {level!r}"):
            TersorCodec(level=level)
