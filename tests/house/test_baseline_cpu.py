"""The proof that no AVX code leaks: an emulated x86-64 CPU without it passes the checks and writes the same bytes."""

import pathlib
import re
import shutil
import subprocess

import pytest

ELF_MACHINE_X86_64 = 62


@pytest.fixture(scope="module")
def emulator() -> list[str]:
    found = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if not found:
        pytest.skip("no qemu-x86_64 (Debian: qemu-user)")
    return [found, "-cpu", "qemu64"]  # SSE2 and SSE3: no AVX, no SSE4.2, no BMI


def is_static_x86(binary: pathlib.Path) -> bool:
    head = binary.read_bytes()[:20]
    return head[:4] == b"\x7fELF" and head[18] == ELF_MACHINE_X86_64


def test_an_avx_instruction_is_caught(emulator, tmp_path):
    if not shutil.which("g++"):
        pytest.skip("no g++")
    source = tmp_path / "leak.cpp"
    source.write_text('int main() { float x = 1; __asm__ volatile("vaddss %0, %0, %0" : "+x"(x)); return x != 2; }\n')
    binary = tmp_path / "leak"
    subprocess.run(["g++", "-static", str(source), "-o", str(binary)], check=True)
    if not is_static_x86(binary):
        pytest.skip("not an x86-64 machine")
    assert subprocess.run([*emulator, str(binary)], capture_output=True, check=False).returncode != 0


def test_checks_pass_without_avx(emulator, release):
    # Debian 12's qemu-user dies when a forked child starts a thread; that case runs on the real CPU. So do those about
    # equal bytes on several threads, about size and quality: they take long here and run the kernels of the others.
    slow = ["-after fork", "-thread", "-Gaussian", "-costs little more", "-leave less"]
    command = [*emulator, str(release / "tersor-check"), *slow]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    closing = done.stdout.strip().splitlines()[-1]
    print(f"under {emulator[-1]}: {closing}")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.fullmatch(r"[1-9]\d* passed, 0 failed", closing)


def test_binaries_give_the_same_bytes_without_avx(emulator, release, tmp_path):
    native, emulated = tmp_path / "native.tsr", tmp_path / "emulated.tsr"
    source = tmp_path / "source.bin"
    source.write_bytes((pathlib.Path(__file__).parents[2] / "docs" / "design.md").read_bytes() * 20)
    enc, dec = str(release / "tersor-enc"), str(release / "tersor-dec")
    subprocess.run([enc, str(source), str(native)], check=True)
    subprocess.run([*emulator, enc, str(source), str(emulated)], check=True, timeout=300)
    assert native.read_bytes() == emulated.read_bytes()
    subprocess.run([*emulator, dec, str(native), str(tmp_path / "back.bin")], check=True, timeout=300)
    assert (tmp_path / "back.bin").read_bytes() == source.read_bytes()
    subprocess.run([*emulator, dec, "--verify", str(native)], check=True, timeout=300)
