"""tersor.numcodecs: numcodecs' own codec checks, found by entry point, exact for every dtype, small for floats."""

import itertools

import ml_dtypes
import numpy as np
import pytest

import tersor

numcodecs = pytest.importorskip("numcodecs", reason="numcodecs is not here")
checks = pytest.importorskip("numcodecs.tests.common", reason="this numcodecs comes without its tests")

CODECS = [numcodecs.get_codec({"id": "tersor", "level": level}) for level in (None, 1, 4, 9)]


def arrays():
    """Those that numcodecs gives to its own compressors: dtypes, shapes, both orders; then the ones it leaves out."""
    rng = np.random.default_rng(0)
    yield np.arange(1000, dtype="i4")
    yield np.linspace(1000, 1001, 1000, dtype="f8")
    yield rng.normal(loc=1000, scale=1, size=(100, 10))
    yield rng.integers(0, 2, size=1000).astype(bool).reshape(100, 10, order="F")
    yield rng.choice([b"a", b"bb", b"ccc"], size=1000).reshape(10, 10, 10)
    for unit, kind in itertools.product(("ns", "m"), "Mm"):
        yield rng.integers(0, 2**25, size=1000, dtype="u8").view(f"{kind}8[{unit}]")
        yield rng.integers(-(2**63), -(2**63) + 20, size=1000, dtype="i8").view(f"{kind}8[{unit}]")
    yield rng.normal(size=(10, 20)).astype(">f4")
    yield rng.normal(size=(10, 20)).astype("f2").reshape(20, 10, order="F")
    yield rng.normal(size=10).astype("c16") * 1j
    yield rng.normal(size=10).astype("c8") * 1j
    yield np.array(["text", "längerer Text", ""])
    yield np.zeros(0, "f4")
    yield np.array(3.5)
    yield np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i2"), ("b", "f8")])


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_numcodecs_own_checks(codec):
    for array in arrays():
        checks.check_encode_decode(array, codec)
    checks.check_config(codec)
    checks.check_err_decode_object_buffer(codec)
    checks.check_err_encode_object_buffer(codec)


def test_repr(monkeypatch):
    monkeypatch.setattr(checks, "TersorCodec", type(CODECS[0]), raising=False)
    checks.check_repr("TersorCodec(level=3)")
    checks.check_repr("TersorCodec(level=None)")


def test_found_by_its_entry_point():
    from tersor.numcodecs import TersorCodec

    assert type(numcodecs.get_codec({"id": "tersor"})) is TersorCodec
    assert CODECS[1].get_config() == {"id": "tersor", "level": 1}


def test_the_chunk_is_coded_as_its_dtype():
    weights = (np.random.default_rng(0).normal(size=100_000) * 0.02).astype(ml_dtypes.bfloat16)
    codec = CODECS[0]
    typed, plain = codec.encode(weights), codec.encode(weights.tobytes())
    assert typed == tersor.compress(weights)
    assert len(typed) < 0.66 * weights.nbytes < len(plain)
    back = codec.decode(typed)
    assert back.dtype == ml_dtypes.bfloat16
    assert back.tobytes() == weights.tobytes()


def test_out_takes_any_buffer_of_the_right_size():
    weights = np.random.default_rng(0).normal(size=(30, 40)).astype("f4")
    coded = CODECS[0].encode(weights)
    room = bytearray(weights.nbytes + 1)
    CODECS[0].decode(coded, out=memoryview(room)[1:])  # an odd address
    assert room[1:] == weights.tobytes()
    with pytest.raises(ValueError, match="out has 4799 bytes, the chunk 4800"):
        CODECS[0].decode(coded, out=bytearray(weights.nbytes - 1))


def test_what_is_refused():
    with pytest.raises(ValueError, match="not 0"):
        numcodecs.get_codec({"id": "tersor", "level": 0})
    with pytest.raises(ValueError, match="contiguous"):
        CODECS[0].encode(np.arange(10)[::2])
    with pytest.raises(tersor.FormatError):
        CODECS[0].decode(b"no chunk of ours")
    coded = bytearray(CODECS[0].encode(np.arange(1000)))
    coded[len(coded) // 3] ^= 1
    with pytest.raises(tersor.FormatError):
        CODECS[0].decode(coded)
