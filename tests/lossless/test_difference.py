"""Difference chunks against the decoder written from the page, inside whole .tsr files; chunks by hand; goldens.

Goldens are written once and never again: v1_<name>.tsr beside the base that it needs, v1_earlier.safetensors, and the
raw bytes' SHA-256 in golden.json.
"""

import hashlib
import json
import pathlib

import ml_dtypes
import numpy as np
import pytest

import tersor
from tersor import FormatError

GOLDEN = pathlib.Path(__file__).with_name("golden") / "difference"


@pytest.fixture(scope="session")
def difference(load, oracle):
    """The decoder of difference chunks in plain Python, written from the page."""
    return load("tests/lossless/difference_oracle.py")


def weights(dtype, count, seed=0):
    return (np.random.default_rng(seed).standard_normal(count) * 0.02).astype(dtype)


def stepped(array, share, reach, seed=1):
    """The array with a share of its elements moved by up to `reach` steps of their bit patterns."""
    rng, bits = np.random.default_rng(seed), array.view(f"u{array.itemsize}").copy()
    where = rng.random(bits.shape) < share
    bits[where] += rng.integers(-reach, reach + 1, int(where.sum())).astype(bits.dtype)
    return bits.view(array.dtype)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32, np.float64, np.int8, np.complex64])
@pytest.mark.parametrize("level", [1, 4, 9])
@pytest.mark.parametrize(("share", "reach"), [(0.02, 1), (1.0, 3), (0.0, 0)])
def test_the_oracle_reads_what_we_write(difference, container, tmp_path, dtype, level, share, reach):
    base = weights(dtype, 3001)
    array = stepped(base, share, reach) if base.dtype.kind != "c" else base * np.complex64(1 + 1e-6)
    tersor.save_file({"w": base}, tmp_path / "base.tsr")
    data = tersor.numpy.save({"w": array}, level=level, base=tmp_path / "base.tsr")
    file = container.read(data)
    assert file.bases == [container.read((tmp_path / "base.tsr").read_bytes()).content_hash()]
    raw = file.read(0, {3: lambda chunk, size: difference.decode_chunk(chunk, base.tobytes())})
    assert raw == array.tobytes()


def test_the_example_of_the_page(difference):
    base = np.array([0x3F80, 0x3F80, 0xBF00, 0x3F81], "<u2").tobytes()
    raw = difference.decode_chunk(bytes.fromhex("020200000200010100"), base)
    assert np.frombuffer(raw, "<u2").tolist() == [0x3F80, 0x3F81, 0xBF00, 0x3F80]


@pytest.mark.parametrize("name", json.loads((GOLDEN / "golden.json").read_text()))
def test_goldens_are_read(name):
    facts = json.loads((GOLDEN / "golden.json").read_text())[name]
    loaded = tersor.load_file(GOLDEN / f"{name}.tsr", base=GOLDEN / "v1_earlier.safetensors")
    digest = hashlib.sha256(b"".join(loaded[key].tobytes() for key in sorted(loaded))).hexdigest()
    assert digest == facts["sha256"]
    with pytest.raises(FormatError, match="content hash is"):
        tersor.load_file(GOLDEN / f"{name}.tsr")
