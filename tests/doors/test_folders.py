"""Folders of models: X/ becomes X.tsr/ and comes back byte for byte, whole or not at all."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

import tersor


def run(*arguments, code=0, cwd):
    done = subprocess.run(
        [sys.executable, "-m", "tersor", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def model(tmp_path):
    """Two shards, their index, a configuration, a folder below, a .tsr that was there before, an empty file."""
    rng, folder = np.random.default_rng(0), tmp_path / "model"
    (folder / "onnx").mkdir(parents=True)
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for i, name in enumerate(names):
        tensors = {f"layer.{i}": (rng.standard_normal((300, 400)) * 0.02).astype(np.float16)}
        safetensors.numpy.save_file(tensors, folder / name, {"format": "pt"})
    weights = {"weight_map": {f"layer.{i}": name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(weights))
    (folder / "config.json").write_text("{}")
    np.savez(folder / "vectors.npz", a=np.arange(5), b=rng.standard_normal((30, 40)))
    (folder / "training_args.bin").write_bytes(b"no checkpoint")
    (folder / "empty").touch()
    safetensors.numpy.save_file({"a": np.arange(5)}, folder / "onnx" / "b.safetensors")
    tersor.save_file({"old": np.arange(9)}, folder / "before.tsr")
    return folder


def test_there_and_back(model, tmp_path):
    before = contents(model)
    run("compress", "model", cwd=tmp_path)
    packed = contents(tmp_path / "model.tsr")
    assert set(packed) == {
        "model-00001-of-00002.safetensors.tsr",
        "model-00002-of-00002.safetensors.tsr",
        "model.safetensors.index.json",
        "config.json",
        "vectors.npz.tsr",
        "training_args.bin.tsr",
        "empty",
        "onnx/b.safetensors.tsr",
        "before.tsr.tsr",
    }
    assert packed["config.json"] == before["config.json"]
    assert sum(map(len, packed.values())) < 0.9 * sum(map(len, before.values()))
    model.rename(tmp_path / "gone")
    run("verify", "model.tsr", cwd=tmp_path)
    run("decompress", "model.tsr/", cwd=tmp_path)
    assert contents(model) == before
    assert sorted(os.listdir(tmp_path)) == ["gone", "model", "model.tsr"]


def test_links_to_files_are_files_and_links_to_folders_are_refused(model, tmp_path):
    (model / "config.json").rename(tmp_path / "elsewhere.json")
    (model / "config.json").symlink_to(tmp_path / "elsewhere.json")
    run("compress", "model", cwd=tmp_path)
    assert (tmp_path / "model.tsr" / "config.json").read_text() == "{}"
    assert not (tmp_path / "model.tsr" / "config.json").is_symlink()
    (model / "more").symlink_to(tmp_path)
    done = run("compress", "-o", "other.tsr", "model", code=1, cwd=tmp_path)
    assert "is a link to a folder" in done.stderr
    assert not (tmp_path / "other.tsr").exists()


def test_overwriting_needs_force(model, tmp_path):
    run("compress", "model", cwd=tmp_path)
    before = contents(tmp_path / "model.tsr")
    (model / "config.json").write_text('{"new": 1}')
    assert "exists" in run("compress", "model", code=1, cwd=tmp_path).stderr
    assert contents(tmp_path / "model.tsr") == before
    run("compress", "-f", "model", cwd=tmp_path)
    assert (tmp_path / "model.tsr" / "config.json").read_text() == '{"new": 1}'
    assert sorted(os.listdir(tmp_path)) == ["model", "model.tsr"]


def test_damage_leaves_nothing_or_what_is_good(model, tmp_path):
    run("compress", "model", cwd=tmp_path)
    shard = tmp_path / "model.tsr" / "model-00001-of-00002.safetensors.tsr"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    done = run("verify", "model.tsr", code=1, cwd=tmp_path)
    assert "model-00001-of-00002.safetensors.tsr" in done.stderr
    assert "is damaged" in done.stderr
    run("decompress", "-o", "back", "model.tsr", code=1, cwd=tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["model", "model.tsr"]
    done = run("decompress", "--keep-going", "--json", "-o", "back", "model.tsr", code=1, cwd=tmp_path)
    assert len(json.loads(done.stdout)["files"][0]["damaged"]) == 1
    whole, saved = contents(model), contents(tmp_path / "back")
    assert [name for name in whole if saved[name] != whole[name]] == ["model-00001-of-00002.safetensors"]


def test_against_another_folder(model, tmp_path):
    run("compress", "-o", "alone.tsr", "model", cwd=tmp_path)
    run("compress", "--base", "model", "-o", "against.tsr", "model", cwd=tmp_path)
    alone, against = (sum(map(len, contents(tmp_path / name).values())) for name in ("alone.tsr", "against.tsr"))
    assert against < alone / 10
    run("decompress", "--base", "model", "-o", "back", "against.tsr", cwd=tmp_path)
    assert contents(tmp_path / "back") == contents(model)


def test_what_cannot_be_meant(model, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert "holds no files" in run("compress", "nothing", code=1, cwd=tmp_path).stderr
    assert "stdout" in run("compress", "-c", "model", code=2, cwd=tmp_path).stderr
    assert "does not end in .tsr" in run("decompress", "model", code=2, cwd=tmp_path).stderr


def test_outputs_that_would_destroy_what_is_read_are_refused(model, tmp_path):
    run("compress", "-o", "packed.tsr", "model", cwd=tmp_path)
    before = contents(tmp_path)
    for arguments in (
        ("compress", "-f", "-o", ".", "model"),
        ("compress", "-f", "-o", "model", "model"),
        ("compress", "-f", "-o", "model/inside.tsr", "model"),
        ("decompress", "-f", "-o", "packed.tsr", "packed.tsr"),
        ("compress", "-f", "--base", "packed.tsr", "-o", "packed.tsr", "model"),
    ):
        assert "which is read" in run(*arguments, code=1, cwd=tmp_path).stderr
        assert contents(tmp_path) == before


def test_two_files_that_become_one_are_refused(model, tmp_path):
    run("compress", "model/model-00001-of-00002.safetensors", cwd=tmp_path)
    done = run("decompress", "-o", "back", "model", code=1, cwd=tmp_path)
    assert "two files of" in done.stderr
    assert not (tmp_path / "back").exists()


def test_verify_goes_through_all_files_and_wants_some(model, tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "config.json").write_text("{}")
    assert "holds no .tsr files" in run("verify", "plain", code=1, cwd=tmp_path).stderr
    run("compress", "model", cwd=tmp_path)
    for name in ("before.tsr.tsr", "model-00001-of-00002.safetensors.tsr"):
        (tmp_path / "model.tsr" / name).write_bytes(b"no container")
    lines = run("verify", "model.tsr", code=1, cwd=tmp_path).stderr.splitlines()
    assert sum("not a .tsr file" in line for line in lines) == 2
