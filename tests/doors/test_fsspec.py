"""URLs of fsspec where a file may stand: memory:// in this process, s3:// against moto's server, file:// in others."""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import safetensors.numpy

import tersor
import tersor.fsspec
import tersor.numpy
from tersor.cli import main

fsspec = pytest.importorskip("fsspec", reason="fsspec is not here")

WEIGHTS = {"w": np.random.default_rng(0).normal(0, 0.02, (300, 400)).astype(np.float32), "step": np.array(7)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Temporary copies go to a folder of the test's, which is empty again at the end."""
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copies"))
    yield tmp_path / "copies"
    assert list((tmp_path / "copies").iterdir()) == []


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    return system


@pytest.fixture(scope="module")
def bucket():
    """An S3 bucket on this machine: its URL, with moto's server behind it."""
    server_module = pytest.importorskip("moto.server", reason="moto, the S3 server for tests, is not here")
    pytest.importorskip("s3fs", reason="s3fs, fsspec's S3 client, is not here")
    server = server_module.ThreadedMotoServer(ip_address="localhost", port=0)
    server.start()
    host, port = server.get_host_and_port()
    wanted = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": host,
        "no_proxy": host,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in wanted.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
        yield "s3://bucket"
    server.stop()


def same(got, want):
    assert list(got) == list(tersor.numpy.load(tersor.numpy.save(want)))
    for name, array in want.items():
        assert got[name].dtype == array.dtype
        assert got[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("store", ["memory", "bucket"])
def test_save_load_and_open(store, request):
    url = {"memory": "memory://models"}.get(store) or request.getfixturevalue(store)
    if store == "memory":
        request.getfixturevalue(store)
    tersor.save_file(WEIGHTS, f"{url}/weights.tsr", {"step": "7"})
    same(tersor.load_file(f"{url}/weights.tsr"), WEIGHTS)
    with tersor.safe_open(f"{url}/weights.tsr", framework="np") as file:
        assert file.metadata() == {"step": "7"}
        assert np.array_equal(file.get_slice("w")[17:20], WEIGHTS["w"][17:20])
    system, path = fsspec.core.url_to_fs(f"{url}/weights.tsr")
    local = tersor.numpy.save(WEIGHTS, {"step": "7"})
    assert system.cat_file(path) == local


def test_torch(memory):
    torch = pytest.importorskip("torch", reason="PyTorch is not here")
    import tersor.torch

    model = torch.nn.Linear(30, 20).bfloat16()
    tersor.torch.save_model(model, "memory://linear.tsr")
    assert torch.equal(tersor.torch.load_file("memory://linear.tsr")["weight"], model.weight)


@pytest.mark.parametrize("store", ["memory", "bucket"])
def test_the_command_line(store, request, capsys):
    url = "memory://models" if store == "memory" else request.getfixturevalue(store)
    plain = safetensors.numpy.save(WEIGHTS)
    system, path = fsspec.core.url_to_fs(f"{url}/model.safetensors")
    system.pipe_file(path, plain)
    assert main(["compress", "-f", f"{url}/model.safetensors"]) == 0
    assert system.size(path + ".tsr") < len(plain)
    assert main(["verify", f"{url}/model.safetensors.tsr"]) == 0
    assert main(["info", f"{url}/model.safetensors.tsr"]) == 0
    assert f"{url}/model.safetensors.tsr" in capsys.readouterr().out
    assert main(["decompress", f"{url}/model.safetensors.tsr"]) == 1
    assert f'"{url}/model.safetensors" exists; -f (force) overwrites it' in capsys.readouterr().err
    system.rm(path)
    assert main(["decompress", f"{url}/model.safetensors.tsr"]) == 0
    assert system.cat_file(path) == plain


def test_nothing_is_uploaded_when_it_fails(memory, capsys):
    memory.pipe_file("/broken.tsr", b"no file of ours")
    assert main(["decompress", "memory://broken.tsr", "-o", "memory://out"]) == 1
    message = capsys.readouterr().err
    assert "memory://broken.tsr" in message
    assert "tersor-" not in message  # the temporary copy's folder
    assert not memory.exists("/out")
    with pytest.raises(TypeError):
        tersor.save_file({"a": object()}, "memory://out")
    assert not memory.exists("/out")


def test_what_is_missing_is_said(memory, bucket, capsys):
    for url in ("memory://none.tsr", f"{bucket}/none.tsr"):
        with pytest.raises(FileNotFoundError, match=url):
            tersor.load_file(url)
        assert main(["verify", url]) == 1
        assert url in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):
        tersor.save_file(WEIGHTS, "s3://no-such-bucket/w.tsr")
    memory.pipe_file("/folder/a", b"")
    with pytest.raises(IsADirectoryError, match="memory://folder"):
        tersor.load_file("memory://folder")
    with pytest.raises(ValueError, match="nosuch"):
        tersor.load_file("nosuch://a")
    assert main(["verify", "nosuch://a"]) == 2


def test_errors_of_a_stores_own_kinds_keep_their_base(memory, monkeypatch):
    class LostError(FileNotFoundError):
        def __init__(self, bucket, key):
            super().__init__(f"no {key} in {bucket}")

    def get_file(*_arguments, **_named):
        raise LostError("bucket", "key")

    monkeypatch.setattr(type(memory), "get_file", get_file)
    with pytest.raises(FileNotFoundError, match=r'"memory://w\.tsr": no key in bucket'):
        tersor.load_file("memory://w.tsr")


def test_errors_about_the_copy_name_the_url(memory):
    memory.pipe_file("/w.tsr", b"")
    for make in (lambda local: json.JSONDecodeError(local, "", 0), lambda local: tersor.FormatError(local)):
        with (
            pytest.raises(ValueError, match=r"^memory://w\.tsr") as told,
            tersor.fsspec.local_input("memory://w.tsr") as at,
        ):
            raise make(at)
        assert told.type in (ValueError, tersor.FormatError)


def test_the_query_of_a_web_url_is_no_part_of_the_name(memory, monkeypatch):
    tersor.save_file(WEIGHTS, "memory://w.tsr")
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda _url: (memory, "/w.tsr"))
    url = "https://arxiv.org/a/w.tsr?signature=" + 100 * "x/yz"
    with tersor.fsspec.local_input(url) as local:
        assert os.path.basename(local) == "w.tsr"
    same(tersor.load_file(url), WEIGHTS)
    assert tersor.fsspec.beside(url, "w") == "https://arxiv.org/a/w"
    assert tersor.fsspec.beside("https://arxiv.org/w.tsr", "w") == "https://arxiv.org/w"
    assert tersor.fsspec.beside("memory://a?b/w.tsr", "w") == "memory://a?b/w"
    long = f"memory://{300 * 'n'}.tsr"
    with tersor.fsspec.local_input(long) as local:
        assert os.path.basename(local) == 196 * "n" + ".tsr"


def test_a_missing_fsspec_is_said(tmp_path):
    (tmp_path / "fsspec.py").write_text("raise ImportError('not here')")
    done = subprocess.run(
        [sys.executable, "-m", "tersor", "verify", "s3://bucket/a"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "tersor: s3://bucket/a needs fsspec: pip install 'tersor[fsspec]'\n"


@pytest.mark.parametrize("path", ["a:b", "C:\\x", "/tmp/a://b", "-", "x", "://"])
def test_local_paths_stay_local(path):
    assert not tersor.fsspec.is_url(path)
    with tersor.fsspec.local_input(path) as same:
        assert same is path


def test_a_command_of_its_own_process(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"some bytes" * 1000)
    subprocess.run(
        [sys.executable, "-m", "tersor", "compress", "-q", (tmp_path / "data.bin").as_uri()],
        env={**os.environ, "TMPDIR": str(tmp_path / "copies")},
        check=True,
    )
    assert (tmp_path / "data.bin.tsr").stat().st_size < 10_000
