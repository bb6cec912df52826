"""Whatever stops the command, nothing lies under the output's name but a whole file."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import tersor
import tersor.numpy

TERSOR = [sys.executable, "-m", "tersor"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_it_within_half_a_second(large, tmp_path, number, code):
    process = subprocess.Popen(
        [*TERSOR, "compress", "-9", "-T1", large, "-o", tmp_path / "out.tsr"], stderr=subprocess.PIPE
    )
    while not os.listdir(tmp_path):  # until the temporary file stands beside the target
        assert process.poll() is None
        time.sleep(0.01)
    start = time.monotonic()
    process.send_signal(number)
    _, told = process.communicate(timeout=10)
    took = time.monotonic() - start
    assert process.returncode == code
    assert told.decode().splitlines() == (["tersor: interrupted"] if code == 130 else [])
    assert took < 0.5
    assert os.listdir(tmp_path) == []


def test_ctrl_c_while_a_pipe_is_waited_for(tmp_path):
    process = subprocess.Popen(
        [*TERSOR, "compress", "-", "-o", tmp_path / "out.tsr"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdin.write(b"some bytes")
    process.stdin.flush()
    time.sleep(0.5)  # long enough to start and to wait
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    assert time.monotonic() - start < 0.5
    process.stdin.close()
    process.stderr.close()
    assert os.listdir(tmp_path) == []


def test_ctrl_c_in_python_raises_keyboard_interrupt(tmp_path):
    code = """
import os, signal, sys, threading
import numpy as np, tersor
weights = np.random.default_rng(0).standard_normal(64_000_000, np.float32)
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    while True:
        tersor.save_file({"w": weights}, sys.argv[1], level=9)
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "out.tsr"], capture_output=True, timeout=60, check=True
    )
    assert done.stdout == b"stopped\n"
    assert set(os.listdir(tmp_path)) <= {"out.tsr"}


def test_kill_at_any_moment(tmp_path):
    """50 random moments of SIGKILL: the name is absent, or its file verifies."""
    weights = np.random.default_rng(0).standard_normal(4_000_000, np.float32)
    source, target = tmp_path / "w.bin", tmp_path / "w.tsr"
    weights.tofile(source)
    command = [*TERSOR, "compress", "-q", "-f", "-1", source, "-o", target]
    start = time.monotonic()
    subprocess.run(command, check=True)
    took = time.monotonic() - start
    moments, killed = random.Random(0), 0
    for _ in range(50):
        target.unlink(missing_ok=True)
        process = subprocess.Popen(command)
        time.sleep(moments.random() * took)
        process.kill()
        if process.wait() == -signal.SIGKILL:
            killed += 1
        else:  # done before: the machine has become faster since, and the moments were to fall inside the work
            took *= 0.9
        if target.exists():
            summary = tersor._core.verify_file(bytes(target), [], 0, None)
            assert (summary.raw_bytes, summary.damaged) == (weights.nbytes, [])
    assert killed > 10


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_full_disk_is_reported_and_cleaned_up(large, tmp_path, tmp_path_factory, command):
    """The limit on a file's size stands for the disk's: it can be set without being root."""
    source = large
    if command == "decompress":
        source = tmp_path_factory.mktemp("whole") / "large.tsr"
        tersor._core.compress_file(bytes(large), bytes(source), [], 1, 0, False, None)
    done = subprocess.run(
        [*TERSOR, command, source, "-o", tmp_path / "out"],
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, 50_000_000)),
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert "File too large" in line
    assert str(tmp_path / "out") in line
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def own_mounts(tmp_path_factory):
    """Words before a command that let it mount what nobody else sees, and that is gone when it ends."""
    told = "no unshare"
    for words in (["unshare", "-rm"], ["unshare", "-m"]) if shutil.which("unshare") else ():
        mount = [*words, "mount", "-t", "tmpfs", "none", tmp_path_factory.mktemp("mount")]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return words
        told = done.stderr.strip()
    pytest.skip(f"this process may mount no tmpfs: {told}")


@pytest.mark.parametrize("left", [0, 4096, 20 << 20])
@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_tmpfs_that_is_full(own_mounts, large, tmp_path, command, left):
    """left: bytes that the disk still takes. A full one is found while writing, whatever was reserved or mapped."""
    source, disk, names = large, tmp_path / "disk", tmp_path / "names"
    disk.mkdir()
    if command == "decompress":
        source = tmp_path / "large.tsr"
        tersor._core.compress_file(bytes(large), bytes(source), [], 1, 0, False, None)
    script = """
        mount -t tmpfs -o size=24m none "$1" && head -c $((24 * 1048576 - $2)) /dev/zero >"$1/ballast" || exit 99
        disk=$1 names=$3; shift 3
        "$@"; status=$?
        ls -A "$disk" >"$names"; exit $status
    """
    shell = [*own_mounts, "sh", "-c", script, "sh", disk, str(left), names]
    done = subprocess.run(
        [*shell, *TERSOR, command, source, "-o", disk / "out"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.decode().splitlines()
    assert line.endswith("No space left on device")
    assert str(disk / "out") in line
    assert names.read_text().split() == ["ballast"]


def test_a_full_device_is_reported():
    command = [*TERSOR, "compress", "-c", sys.executable]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.endswith("No space left on device")


def test_a_reader_that_goes_away(large):
    for arguments in (("compress", "-c", "-1", large), ("--help",)):
        process = subprocess.Popen([*TERSOR, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if arguments[0] == "compress":
            process.stdout.read(10)
        process.stdout.close()
        told = process.stderr.read()
        process.stderr.close()
        assert process.wait(timeout=60) in (0, 1)
        assert told == b""
