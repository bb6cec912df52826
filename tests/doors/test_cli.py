"""The command `tersor`, run as people run it: files, pipes, terminals, exit codes."""

import contextlib
import json
import os
import pathlib
import pty
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

import tersor
import tersor.numpy

TERSOR = [sys.executable, "-m", "tersor"]


def run(*arguments, code=0, cwd=None, **options):
    """Run the command, hold it to an exit code and return the finished process."""
    done = subprocess.run(
        [*TERSOR, *map(str, arguments)], cwd=cwd, capture_output=True, check=False, timeout=60, **options
    )
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done


def error_of(done):
    """The one line on stderr."""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def packed(path):
    return pathlib.Path(f"{path}.tsr")


@pytest.fixture
def model(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "embedding": (rng.standard_normal((500, 600)) * 0.02).astype(np.float32),
        "ids": np.arange(100),
        "step": np.array(3, np.int64),
    }
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(tensors, path, {"format": "np"})
    return path


def test_there_and_back(model, tmp_path):
    run("compress", model)
    assert packed(model).stat().st_size < model.stat().st_size
    original = model.read_bytes()
    model.unlink()
    run("decompress", packed(model))
    assert model.read_bytes() == original
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "model.safetensors.tsr"]


def test_one_line_a_file_on_stderr_and_nothing_on_stdout(model):
    done = run("compress", model)
    assert done.stdout == b""
    line = error_of(done)
    assert line.startswith(str(model))
    assert "GB/s" in line
    assert run("compress", "-q", "-f", model).stderr == b""


def test_any_file_and_an_empty_one(tmp_path):
    for name, content in {"text": b"some text\n" * 1000, "empty": b"", "one": b"x"}.items():
        (tmp_path / name).write_bytes(content)
        run("compress", name, cwd=tmp_path)
        run("decompress", name + ".tsr", "-o", "back", "-f", cwd=tmp_path)
        assert (tmp_path / "back").read_bytes() == content


def test_several_inputs_and_one_that_is_missing(model, tmp_path):
    (tmp_path / "text").write_text("text")
    done = run("compress", model, tmp_path / "missing", tmp_path / "text", "-q", code=1)
    assert "missing" in error_of(done)
    assert "No such file" in error_of(done)
    assert (tmp_path / "text.tsr").exists()
    assert (tmp_path / "model.safetensors.tsr").exists()
    assert not (tmp_path / "missing.tsr").exists()


def test_a_file_of_save_file_becomes_safetensors(tmp_path):
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(4, np.int8)}
    tersor.save_file(tensors, tmp_path / "m.tsr", {"k": "v"})
    run("decompress", "m.tsr", cwd=tmp_path)
    loaded = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].tolist() == array.tolist()
    with safetensors.safe_open(tmp_path / "m.safetensors", "np") as file:
        assert file.metadata() == {"k": "v"}


def test_a_compressed_safetensors_file_loads(model, tmp_path):
    run("compress", model)
    ours, theirs = tersor.load_file(packed(model)), safetensors.numpy.load_file(model)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].tobytes() == array.tobytes()
    assert tersor.safe_open(packed(model)).metadata() == {"format": "np"}


def test_pipes(model, tmp_path):
    content = model.read_bytes()
    data = run("compress", input=content).stdout  # no IN in a pipe is -
    assert len(data) < len(content)
    assert run("decompress", "-", input=data).stdout == content
    assert run("compress", "-c", model).stdout == run("compress", model, "-o", "-").stdout
    run("compress", "-", "-o", tmp_path / "from_pipe.tsr", input=content)
    assert run("decompress", "-c", tmp_path / "from_pipe.tsr").stdout == content


def test_file_and_pipe_doors_write_the_same_bytes(model):
    run("compress", model, "-T", "1")
    assert run("compress", input=model.read_bytes()).stdout == packed(model).read_bytes()


def test_levels(model):
    sizes = {level: len(run("compress", "-c", f"-{level}", model).stdout) for level in (1, 9)}
    assert sizes[9] <= sizes[1]
    run("compress", "-0", model, code=2)


def test_overwriting_is_refused_without_force(model):
    run("compress", model)
    before = packed(model).read_bytes()
    for command, name in (("compress", model), ("decompress", packed(model))):
        line = error_of(run(command, name, code=1, stdin=subprocess.DEVNULL))
        assert "exists" in line
        assert "-f" in line
    assert packed(model).read_bytes() == before
    run("compress", "-f", "-9", model)
    run("decompress", "-f", packed(model))


def test_mode_is_kept(model):
    model.chmod(0o640)
    run("compress", model)
    assert os.stat(packed(model)).st_mode & 0o777 == 0o640
    os.chmod(packed(model), 0o604)
    run("decompress", "-f", packed(model))
    assert model.stat().st_mode & 0o777 == 0o604


def test_a_name_without_our_suffix_needs_an_output(model, tmp_path):
    run("compress", model, "-o", tmp_path / "odd.name")
    assert ".tsr" in error_of(run("decompress", tmp_path / "odd.name", code=2))
    run("decompress", tmp_path / "odd.name", "-o", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == model.read_bytes()


def test_usage_errors_are_2(model, tmp_path):
    run(code=2)
    run("unknown", code=2)
    run("compress", model, "--no-such-option", code=2)
    run("compress", model, "-T", "-1", code=2)
    run("compress", model, "-T", "many", code=2)
    assert "2 inputs" in error_of(run("compress", model, model, "-o", tmp_path / "x", code=2))
    assert "--json" in error_of(run("compress", "-c", "--json", model, code=2))
    run("info", code=2)
    run("info", "-", code=2)


def test_help_and_version():
    assert b"exit codes" in run("--help").stdout
    assert run("--version").stdout.decode().strip() == f"tersor {tersor.__version__}"
    assert run("-V").stdout == run("--version").stdout


def test_damage_is_1_and_leaves_nothing(model, tmp_path):
    run("compress", model)
    data = bytearray(packed(model).read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "bad.tsr").write_bytes(data)
    line = error_of(run("decompress", tmp_path / "bad.tsr", code=1))
    assert "bad.tsr" in line
    assert "embedding" in line
    assert "embedding" in error_of(run("verify", tmp_path / "bad.tsr", code=1))
    (tmp_path / "short.tsr").write_bytes(data[:1000])
    error_of(run("decompress", tmp_path / "short.tsr", code=1))
    error_of(run("decompress", model, "-o", tmp_path / "out", code=1))  # no .tsr at all
    error_of(run("info", model, code=1))
    error_of(run("decompress", "-", code=1, input=b"not ours"))
    assert not {"bad", "short", "out"} & set(os.listdir(tmp_path))
    assert not [name for name in os.listdir(tmp_path) if "tmp" in name]


def test_verify(model):
    run("compress", model)
    line = error_of(run("verify", packed(model)))
    assert "good" in line
    result = json.loads(run("verify", "--json", packed(model)).stdout)
    assert result["files"][0]["hash"] in line


# ---- JSON ------------------------------------------------------------------------------------------------------------


def test_json_of_compress_and_decompress(model, tmp_path):
    made = json.loads(run("compress", "--json", model).stdout)["files"][0]
    assert made["input"] == str(model)
    assert made["output"] == str(packed(model))
    assert made["bytes"] == model.stat().st_size
    assert made["stored"] == os.path.getsize(packed(model))
    assert made["ratio"] == pytest.approx(made["bytes"] / made["stored"], rel=1e-5)
    back = json.loads(run("decompress", "--json", "-f", packed(model)).stdout)["files"][0]
    assert (back["hash"], back["bytes"], back["stored"]) == (made["hash"], made["bytes"], made["stored"])
    failed = run("compress", "--json", model, tmp_path / "missing", code=1)
    files = json.loads(failed.stdout)["files"]
    assert "exists" in files[0]["error"]
    assert "No such file" in files[1]["error"]


def test_json_of_info(model):
    run("compress", model)
    listed = json.loads(run("info", "--json", packed(model)).stdout)
    assert {"tensors", "hash", "version"} <= listed.keys()
    assert listed["version"] == 1
    tensor = next(row for row in listed["tensors"] if row["name"] == "embedding")
    assert (tensor["dtype"], tensor["shape"], tensor["bytes"]) == ("F32", [500, 600], 1_200_000)
    assert tensor["codec"] == "lossless"
    assert tensor["ratio"] == pytest.approx(tensor["bytes"] / tensor["stored"], rel=1e-5)
    assert {row["name"] for row in listed["tensors"]} == {"embedding", "ids", "step"}
    both = json.loads(run("info", "--json", packed(model), packed(model)).stdout)
    assert [row["hash"] for row in both["files"]] == [listed["hash"]] * 2


def test_table_of_info(model):
    run("compress", model)
    table = run("info", packed(model)).stdout.decode()
    assert "embedding" in table
    assert "500x600" in table
    assert "hash" in table


def test_a_hostile_name_cannot_write_to_the_terminal(tmp_path):
    path = tmp_path / "m.tsr"
    tersor.save_file({"\x1b[31mred\n": np.random.default_rng(0).random(3000)}, path)
    assert b"\x1b" not in run("info", path).stdout
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    done = run("verify", path, code=1)
    assert b"\x1b" not in done.stderr
    assert "red" in error_of(done)


def test_names_of_files_may_be_any_bytes(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\n"
    assert "No such file" in error_of(run("compress", os.fsdecode(name), code=1))
    with open(name, "wb") as file:
        file.write(b"content")
    run("compress", os.fsdecode(name))
    assert run("info", os.fsdecode(name) + ".tsr").stdout.count(b"\n") == 3
    assert run("decompress", "-c", os.fsdecode(name) + ".tsr").stdout == b"content"


# ---- terminals -------------------------------------------------------------------------------------------------------


def on_a_terminal(*arguments, stdin=subprocess.DEVNULL, stdout=None):
    """Run with stderr, and stdout where it is not given, on a terminal. Returns exit code and what was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*TERSOR, *map(str, arguments)], stdin=stdin, stdout=stdout or theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux says EIO when the last holder of a terminal is gone
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    return process.wait(timeout=60), shown


def test_no_binary_to_a_terminal(model):
    run("compress", model)
    for arguments in (("compress", "-c", model), ("decompress", "-c", packed(model))):
        code, shown = on_a_terminal(*arguments)
        assert code == 1
        assert b"terminal" in shown
        assert len(shown) < 300
    code, shown = on_a_terminal("compress", "-c", "-f", model)
    assert code == 0
    assert len(shown) > 100_000


def test_progress_on_a_terminal_only(large, tmp_path):
    code, shown = on_a_terminal("compress", "-9", "-T1", large, "-o", tmp_path / "a.tsr", stdout=subprocess.DEVNULL)
    assert code == 0
    assert b"B/s" in shown
    assert b"\x1b[" in shown
    code, shown = on_a_terminal("compress", "-q", large, "-o", tmp_path / "b.tsr", stdout=subprocess.DEVNULL)
    assert (code, shown) == (0, b"")


def test_the_module_and_the_script_are_one(model):
    script = os.path.join(os.path.dirname(sys.executable), "tersor")
    if not os.path.exists(script):
        pytest.skip("no tersor script beside this Python")
    done = subprocess.run([script, "compress", "-c", str(model)], capture_output=True, check=True)
    assert done.stdout == run("compress", "-c", model).stdout
