"""Tiles keep their sums in registers: gcc 12 spills where an intrinsic overwrites its accumulator."""

import re
import shutil
import subprocess

import pytest

FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
ON_STACK = re.compile(r"%[yz]mm\d+.*\(%r[sb]p|\(%r[sb]p.*%[yz]mm\d+")


def spills(listing: str) -> dict[str, int]:
    """Moves of registers of 256 and 512 bits to or from the stack, by function."""
    found: dict[str, int] = {}
    name = ""
    for line in listing.splitlines():
        if match := FUNCTION.match(line):
            name = match[1]
        elif ON_STACK.search(line):
            found[name] = found.get(name, 0) + 1
    return found


def test_no_tile_spills(release):
    objects = [path for path in release.rglob("*_avx*.cpp.o") if "gemm" in str(path)]
    if not objects or not shutil.which("objdump"):
        pytest.skip("no x86 kernels or no objdump here")
    for path in objects:
        listing = subprocess.run(
            ["objdump", "-dC", "--no-show-raw-insn", str(path)], capture_output=True, text=True, check=True
        ).stdout
        assert ("%zmm" if "avx512" in path.name else "%ymm") in listing
        assert spills(listing) == {}, path.name


def test_a_spill_is_found():
    listing = "0 <tile(int)>:\n  4:\tvmovdqa64 %zmm3,0x40(%rsp)\n  8:\tvmovaps -0x50(%rbp),%zmm1\n"
    assert spills(listing) == {"tile(int)": 2}
