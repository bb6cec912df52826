"""Damage costs its chunk: verify names every bad one, --keep-going saves the rest, and the exit code says so."""

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

import tersor

CHUNK = 1 << 20


def run(*arguments, code, cwd):
    done = subprocess.run(
        [sys.executable, "-m", "tersor", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def damaged(tmp_path, load):
    """model.safetensors and its .tsr with three bad chunks: 0 and 2 of `a`, 0 of `b`; returns the tensors."""
    container = load("tests/container/oracle.py")
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.standard_normal(size).astype(np.float32) for name, size in (("a", 700_000), ("b", 9), ("c", 5000))
    }
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    run("compress", "-q", "model.safetensors", code=0, cwd=tmp_path)
    data = bytearray((tmp_path / "model.safetensors.tsr").read_bytes())
    entries = {entry.name: entry for entry in container.read(bytes(data)).entries}
    for name, chunk in (("a", 0), ("a", 2), ("b", 0)):
        offset, size, _ = entries[name].chunks[chunk]
        data[offset + size // 2] ^= 4
    (tmp_path / "model.safetensors.tsr").write_bytes(data)
    (tmp_path / "model.safetensors").rename(tmp_path / "whole")
    return tensors


def test_verify_names_every_bad_chunk(damaged, tmp_path):
    lines = run("verify", "model.safetensors.tsr", code=1, cwd=tmp_path).stderr.splitlines()
    assert len(lines) == 3
    for line, (name, chunk) in zip(lines, (("a", 0), ("a", 2), ("b", 0)), strict=True):
        assert line.startswith('tersor: "model.safetensors.tsr": ')
        assert f'tensor "{name}": chunk {chunk} is damaged' in line


def test_decompress_leaves_nothing_unless_it_is_told_to_keep_going(damaged, tmp_path):
    run("decompress", "model.safetensors.tsr", code=1, cwd=tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("door", ["python", "pipe", "binary"])
def test_keep_going_saves_the_rest(damaged, tmp_path, binaries, door, threads):
    if door == "binary":
        command = [binaries / "tersor-dec", "--keep-going", f"-T{threads}", "model.safetensors.tsr", "out"]
    else:
        target = ["-o", "out"] if door == "python" else ["-c"]
        command = [sys.executable, "-m", "tersor", "decompress", "--keep-going", "-q", "-T", str(threads), *target]
        command.append("model.safetensors.tsr")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.decode().count("is damaged") == 3
    if door == "pipe":
        (tmp_path / "out").write_bytes(done.stdout)
    whole, saved = (tmp_path / "whole").read_bytes(), (tmp_path / "out").read_bytes()
    assert len(saved) == len(whole)
    loaded = safetensors.numpy.load_file(tmp_path / "out")
    a, wanted = loaded["a"].view(np.uint8), damaged["a"].view(np.uint8)
    assert not a[:CHUNK].any()
    assert (a[CHUNK : 2 * CHUNK] == wanted[CHUNK : 2 * CHUNK]).all()
    assert not a[2 * CHUNK :].any()
    assert not loaded["b"].any()
    assert (loaded["c"] == damaged["c"]).all()


def test_json_lists_what_is_lost(damaged, tmp_path):
    done = run("decompress", "--keep-going", "--json", "-o", "out", "model.safetensors.tsr", code=1, cwd=tmp_path)
    (row,) = json.loads(done.stdout)["files"]
    assert len(row["damaged"]) == 3


def test_keep_going_over_a_whole_file_is_decompress(damaged, tmp_path):
    run("compress", "-q", "-o", "good.tsr", "whole", code=0, cwd=tmp_path)
    run("decompress", "--keep-going", "-o", "out", "good.tsr", code=0, cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_damaged_index_cannot_be_kept_going(damaged, tmp_path):
    data = bytearray((tmp_path / "model.safetensors.tsr").read_bytes())
    data[-40] ^= 1
    (tmp_path / "model.safetensors.tsr").write_bytes(data)
    run("decompress", "--keep-going", "-o", "out", "model.safetensors.tsr", code=1, cwd=tmp_path)
    assert not (tmp_path / "out").exists()


def test_slices_and_tensors_beside_the_damage_are_read(damaged, tmp_path):
    with tersor.safe_open(tmp_path / "model.safetensors.tsr") as file:
        assert (file.get_tensor("c") == damaged["c"]).all()
        middle = slice(CHUNK // 4, CHUNK // 2)
        assert (file.get_slice("a")[middle] == damaged["a"][middle]).all()
        with pytest.raises(tersor.FormatError, match='tensor "a": chunk 0 is damaged'):
            file.get_slice("a")[:5]
