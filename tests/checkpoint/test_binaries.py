"""tersor-enc and tersor-dec as programs: exit codes, what lies on disk afterwards, signals, pipes, full disks."""

from __future__ import annotations

import os
import random
import resource
import signal
import stat
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest


class Programs:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> str:
        return str(self.folder / f"tersor-{name}")

    def run(self, name: str, *words: object, **options: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.path(name), *map(str, words)], capture_output=True, check=False, timeout=60, **options
        )

    def ok(self, name: str, *words: object, **options: object) -> bytes:
        done = self.run(name, *words, **options)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout


@pytest.fixture
def programs(binaries: Path) -> Programs:
    return Programs(binaries)


@pytest.fixture(scope="module")
def weights() -> bytes:
    """bf16 weights, 24 MB: several batches, a tenth of a second."""
    values = np.random.default_rng(0).standard_normal(12_000_000, dtype=np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()


@pytest.fixture
def model(tmp_path: Path, weights: bytes) -> Path:
    header = b'{"w":{"dtype":"BF16","shape":[%d],"data_offsets":[0,%d]}}' % (len(weights) // 2, len(weights))
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + weights)
    return path


def one_line(done: subprocess.CompletedProcess, code: int, *parts: str) -> None:
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert text.count("\n") == 1, text
    assert text.startswith("tersor-")
    assert all(part in text for part in parts), text


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def limited(name: int, value: int):
    return lambda: resource.setrlimit(name, (value, value))


def test_there_and_back(programs: Programs, model: Path, tmp_path: Path) -> None:
    programs.ok("enc", model, tmp_path / "m.tsr")
    assert programs.ok("dec", "--verify", tmp_path / "m.tsr") == b""
    programs.ok("dec", tmp_path / "m.tsr", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == model.read_bytes()
    assert names(tmp_path) == {"model.safetensors", "m.tsr", "back"}


def test_same_bytes_over_threads_levels_of_isa_and_pipes(programs: Programs, model: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.tsr"
    programs.ok("enc", "-T1", model, first)
    wanted = first.read_bytes()
    for threads in (2, 3, 8):
        programs.ok("enc", "-f", "-T", threads, model, tmp_path / "again.tsr")
        assert (tmp_path / "again.tsr").read_bytes() == wanted
    for isa in ("scalar", "avx2"):
        environment = {**os.environ, "TERSOR_ISA": isa}
        assert programs.ok("enc", model, "-", env=environment) == wanted
        assert programs.ok("dec", first, "-", env=environment) == model.read_bytes()
    assert programs.ok("enc", "-", "-", input=model.read_bytes()) == wanted
    with model.open("rb") as redirected:
        assert programs.ok("enc", "-", "-", stdin=redirected) == wanted
    assert programs.ok("dec", "-", "-", input=wanted) == model.read_bytes()
    programs.ok("dec", "--verify", "-", input=wanted)


def test_levels_differ_and_come_back(programs: Programs, model: Path) -> None:
    coded = [programs.ok("enc", f"-{level}", model, "-") for level in (1, 9)]
    for one in coded:
        assert programs.ok("dec", "-", "-", input=one) == model.read_bytes()
    assert len(coded[1]) <= len(coded[0])


def test_help_and_version_are_0(programs: Programs) -> None:
    for name in ("enc", "dec"):
        assert programs.ok(name, "-h").startswith(b"usage: tersor-")
        assert programs.ok(name, "-V").startswith(b"tersor-" + name.encode())


def test_usage_errors_are_2(programs: Programs, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for words in ([], [model], [model, out, out], ["-0", model, out], ["-10", model, out], ["-T", model, out]):
        one_line(programs.run("enc", *words), 2)
    for words in (["-T0", model, out], ["-T2000", model, out], ["-T"], ["--what", model, out], ["-1f", model, out]):
        one_line(programs.run("enc", *words), 2)
    one_line(programs.run("dec", "-5", model, out), 2, "unknown option -5")
    one_line(programs.run("enc", "--verify", model), 2, "unknown option --verify")
    one_line(programs.run("dec", "--verify", model, out), 2, "1 names are needed")
    assert names(tmp_path) == {model.name}


def test_names_may_look_like_options(programs: Programs, tmp_path: Path) -> None:
    odd = tmp_path / "-f ü\n\"'"
    odd.write_bytes(b"abc")
    programs.ok("enc", "--", odd.name, "-o.tsr", cwd=tmp_path)
    programs.ok("dec", "--", "-o.tsr", "-9", cwd=tmp_path)
    assert (tmp_path / "-9").read_bytes() == b"abc"


def test_overwriting_is_refused_without_force(programs: Programs, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"mine")
    one_line(programs.run("enc", model, out), 1, "out", "exists", "-f")
    assert out.read_bytes() == b"mine"
    programs.ok("enc", "-f", model, out)
    one_line(programs.run("dec", "-f", out, out), 1, "is the input")
    programs.ok("dec", "--verify", out)
    assert names(tmp_path) == {model.name, "out"}


def test_environment_errors_are_1_and_leave_nothing(programs: Programs, model: Path, tmp_path: Path) -> None:
    one_line(programs.run("enc", tmp_path / "none", tmp_path / "out"), 1, "none", "No such file")
    one_line(programs.run("enc", tmp_path, tmp_path / "out"), 1, "is a folder")
    one_line(programs.run("enc", model, tmp_path), 1, "is a folder")
    one_line(programs.run("enc", model, tmp_path / "no" / "out"), 1, "No such file")
    one_line(programs.run("dec", model, tmp_path / "out"), 1, "not a .tsr file")
    one_line(programs.run("dec", "--verify", "-", input=b""), 1, "not a .tsr file")
    one_line(programs.run("enc", model, "/dev/full"), 1, "No space left")
    assert names(tmp_path) == {model.name}


def test_damage_is_1_names_the_place_and_leaves_nothing(programs: Programs, model: Path, tmp_path: Path) -> None:
    coded = tmp_path / "m.tsr"
    programs.ok("enc", model, coded)
    data = bytearray(coded.read_bytes())
    data[len(data) // 2] ^= 16
    coded.write_bytes(data)
    for words in ([coded, tmp_path / "out"], ["--verify", coded], [coded, "-"]):
        one_line(programs.run("dec", *words), 1, "m.tsr", 'tensor "w": chunk', "is damaged")
    coded.write_bytes(data[:-100])
    one_line(programs.run("dec", coded, tmp_path / "out"), 1, "truncated")
    assert names(tmp_path) == {model.name, "m.tsr"}


def test_mode_is_kept(programs: Programs, model: Path, tmp_path: Path) -> None:
    for mode in (0o600, 0o644, 0o440):
        model.chmod(mode)
        programs.ok("enc", "-f", model, tmp_path / "m.tsr")
        programs.ok("dec", "-f", tmp_path / "m.tsr", tmp_path / "back")
        assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("m.tsr", "back")] == [mode, mode]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_a_full_disk_is_reported_and_cleaned_up(programs: Programs, model: Path, tmp_path: Path, share: float) -> None:
    programs.ok("enc", model, tmp_path / "m.tsr")
    for name, source, size in (
        ("enc", model, (tmp_path / "m.tsr").stat().st_size),
        ("dec", tmp_path / "m.tsr", model.stat().st_size),
    ):
        done = programs.run(
            name, source, tmp_path / "out", preexec_fn=limited(resource.RLIMIT_FSIZE, int(share * size))
        )
        one_line(done, 1, "cannot write", "out", "File too large")
    assert names(tmp_path) == {model.name, "m.tsr"}


def test_a_reader_that_leaves_is_an_error_and_no_signal(programs: Programs, model: Path, tmp_path: Path) -> None:
    programs.ok("enc", model, tmp_path / "m.tsr")
    for name, source in (("enc", model), ("dec", tmp_path / "m.tsr")):
        with subprocess.Popen(
            [programs.path(name), str(source), "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(10)
            process.stdout.close()
            assert b"Broken pipe" in process.stderr.read()
        assert process.returncode == 1
    assert names(tmp_path) == {model.name, "m.tsr"}


def test_no_binary_to_a_terminal(programs: Programs, model: Path) -> None:
    leader, follower = os.openpty()
    try:
        done = subprocess.run(
            [programs.path("enc"), str(model), "-"], stdout=follower, stderr=subprocess.PIPE, check=False, timeout=60
        )
    finally:
        os.close(leader)
        os.close(follower)
    one_line(done, 1, "terminal")


def stopped(process: subprocess.Popen, number: int) -> tuple[int, float]:
    start = time.perf_counter()
    process.send_signal(number)
    return process.wait(timeout=30), time.perf_counter() - start


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_at_once_and_leaves_nothing(
    programs: Programs, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(64 << 30)  # sparse: more work than the test waits for
    busy = subprocess.Popen([programs.path("enc"), "-9", str(large), str(tmp_path / "out")])
    while not any(name.endswith(".tmp") for name in names(tmp_path)):
        assert busy.poll() is None
        time.sleep(0.002)
    time.sleep(0.05)
    reading = subprocess.Popen([programs.path("enc"), "-", str(tmp_path / "out2")], stdin=subprocess.PIPE)
    writing = subprocess.Popen([programs.path("enc"), str(large), "-"], stdout=subprocess.PIPE)
    time.sleep(0.1)
    for process in (busy, reading, writing):
        ended, seconds = stopped(process, number)
        assert ended == code
        assert seconds < 0.5
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()
    assert names(tmp_path) == {"large"}


def test_an_input_cut_short_while_it_is_read_is_an_error(programs: Programs, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(64 << 30)
    process = subprocess.Popen(
        [programs.path("enc"), "-9", str(large), str(tmp_path / "out")], stderr=subprocess.PIPE, text=True
    )
    while not any(name.endswith(".tmp") for name in names(tmp_path)):
        assert process.poll() is None
        time.sleep(0.002)
    os.truncate(large, 1 << 20)
    assert "cut short" in process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert names(tmp_path) == {"large"}


def test_kill_9_at_50_moments_leaves_nothing_under_the_name_that_does_not_verify(
    programs: Programs, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsr"
    start = time.perf_counter()
    programs.ok("enc", "-T2", model, out)
    whole = time.perf_counter() - start
    out.unlink()
    moments = random.Random(0)
    complete = 0
    for _ in range(50):
        process = subprocess.Popen([programs.path("enc"), "-T2", str(model), str(out)])
        time.sleep(moments.uniform(0, 1.3 * whole))
        process.kill()
        process.wait()
        if out.exists():
            programs.ok("dec", "--verify", out)
            complete += 1
            out.unlink()
        for name in names(tmp_path) - {model.name}:
            assert name.startswith(".tersor-")
            assert name.endswith(".tmp")
            (tmp_path / name).unlink()
    assert complete < 50


def test_the_binaries_are_static(programs: Programs) -> None:
    for name in ("enc", "dec"):
        data = Path(programs.path(name)).read_bytes()
        assert data[:4] == b"\x7fELF"
        assert b"ld-linux" not in data[:4096]  # no program header asks for a dynamic loader
