"""No code leaks out of ISA files: of a weak function the linker keeps one copy for all, perhaps the AVX-512 one."""

import pathlib
import re
import shutil
import subprocess

import pytest

ISA_OBJECT = re.compile(r"_(avx2|avx512|avx512vbmi|avx512bf16)\.cpp\.o$")
WEAK = re.compile(r"^[0-9a-f]+ [WVu] (.+)$", re.MULTILINE)
# The latter is a pointer that unwinding needs, no code.
ALLOWED = re.compile(r"\b(avx2|avx512|avx512vbmi|avx512bf16)::|^DW\.ref\.")


def leaks(listing: str) -> list[str]:
    """listing: what `nm -C` prints. Weak and unique symbols defined outside a namespace that is named after an ISA."""
    return [name for name in WEAK.findall(listing) if not ALLOWED.search(name)]


def symbols(binary: pathlib.Path) -> str:
    return subprocess.run(["nm", "-C", str(binary)], capture_output=True, text=True, check=True).stdout


def test_isa_objects_leak_nothing(release):
    objects = [path for path in release.rglob("*.o") if ISA_OBJECT.search(path.name)]
    if not objects and not list((release / "../../csrc").resolve().glob("*/*_avx*.cpp")):
        pytest.skip("no ISA files yet")
    assert objects
    assert {path.name: leaks(symbols(path)) for path in objects} == {path.name: [] for path in objects}


def test_a_leak_is_found(tmp_path):
    compiler = shutil.which("g++") or shutil.which("clang++-14")
    if not compiler or not shutil.which("nm"):
        pytest.skip("no compiler")
    source = tmp_path / "rans_avx2.cpp"
    source.write_text(
        "template <class T> inline T twice(T x) { return x + x; }\n"
        "namespace avx2 { template <class T> inline T thrice(T x) { return x + x + x; } }\n"
        "static int own(int x) { return x * x; }\n"
        "int (*leaked)(int) = twice<int>; int (*kept)(int) = avx2::thrice<int>; int (*inside)(int) = own;\n"
    )
    subprocess.run([compiler, "-O2", "-c", str(source), "-o", str(tmp_path / "a.o")], check=True)
    assert leaks(symbols(tmp_path / "a.o")) == ["int twice<int>(int)"]
