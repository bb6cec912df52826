"""Another processor reads what ours wrote: tersor-dec for aarch64, static and without SIMD, under qemu-user.

Every golden file and every golden chunk is decoded, the C++ checks of the rooms that make bits are run.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import shutil
import subprocess

import pytest

TESTS = pathlib.Path(__file__).parents[1]
FILES = json.loads((TESTS / "container" / "golden" / "golden.json").read_text())
DIFFERENCES = TESTS / "lossless" / "golden" / "difference"
ELF_MACHINE_AARCH64 = 0xB7


@pytest.fixture(scope="module")
def aarch64(root: pathlib.Path) -> pathlib.Path:
    """The preset aarch64, up to date. `make test` has built it on all cores."""
    if not shutil.which("aarch64-linux-gnu-g++"):
        pytest.skip("no aarch64-linux-gnu-g++ (Debian: g++-aarch64-linux-gnu)")
    if not shutil.which("cmake"):
        pytest.skip("no cmake")
    for command in (["cmake", "--preset", "aarch64"], ["cmake", "--build", "--preset", "aarch64"]):
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return root / "build" / "aarch64"


@pytest.fixture(scope="module")
def emulator() -> str:
    found = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if not found:
        pytest.skip("no qemu-aarch64 (Debian: qemu-user)")
    return found


@pytest.fixture(scope="module")
def decode(aarch64, emulator, tmp_path_factory):
    """The SHA-256 of what the other processor's tersor-dec makes of a file."""
    binary, out = aarch64 / "tersor-dec", tmp_path_factory.mktemp("aarch64") / "out"

    def decode(path: pathlib.Path, *options: str | pathlib.Path) -> str:
        subprocess.run([emulator, binary, "-f", *options, path, out], check=True, timeout=60)
        subprocess.run([emulator, binary, *options, "--verify", path], check=True, timeout=60)
        return hashlib.sha256(out.read_bytes()).hexdigest()

    return decode


def test_binary_is_static_and_for_aarch64(aarch64):
    head = (aarch64 / "tersor-dec").read_bytes()[:20]
    assert (head[:4], head[18]) == (b"\x7fELF", ELF_MACHINE_AARCH64)
    headers = subprocess.run(["readelf", "-l", aarch64 / "tersor-dec"], capture_output=True, text=True, check=True)
    assert "INTERP" not in headers.stdout


@pytest.mark.parametrize("name", FILES)
def test_golden_files(decode, name):
    assert decode(TESTS / "container" / "golden" / name) == FILES[name]["sha256"]


@pytest.mark.parametrize("name", json.loads((DIFFERENCES / "golden.json").read_text()))
def test_golden_differences(decode, binaries, name, tmp_path):
    base, path = DIFFERENCES / "v1_earlier.safetensors", DIFFERENCES / f"{name}.tsr"
    subprocess.run([binaries / "tersor-dec", "--base", base, path, tmp_path / "native"], check=True, timeout=60)
    assert decode(path, "--base", base) == hashlib.sha256((tmp_path / "native").read_bytes()).hexdigest()


def test_checks_of_the_rooms_that_make_bits(aarch64, emulator):
    # Not those of files, which make no bits, nor the longest of those that tell sizes, nor those of several threads,
    # which run the code of one: they are the same elsewhere.
    slow = ["-damage", "-tsr", "-thread", "-Gaussian", "-costs little more", "-leave less"]
    command = [emulator, aarch64 / "tersor-check", *slow]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    closing = done.stdout.strip().splitlines()[-1]
    print(f"on aarch64: {closing}")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.fullmatch(r"[1-9]\d* passed, 0 failed", closing)
