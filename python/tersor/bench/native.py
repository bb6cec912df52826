"""Peers that have no Python package: huff0 from the static libzstd, rANS 32x16 from htscodecs, both through ctypes."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tersor.bench.harness import AbsentError, Bytes, Codec, as_bytes

HTS_BLOCK = 1 << 20  # bytes; one block is one table and one set of 32 states
_RANS_X32 = 0x04  # order 0, 32 states
_HTS_CPU = {"AVX2": (2 << 0) | (2 << 8), "AVX-512": (4 << 0) | (4 << 8)}


def _pointer(array: Bytes, offset: int = 0) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data + offset)


def _cache() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        folder = root / "tersor-bench"
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="tersor-bench-"))


def compiler(what: str) -> str:
    """The system's C compiler. Raises AbsentError, which says what it was to build."""
    found = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if found is None:
        raise AbsentError(f"no C compiler to build {what} with")
    return found


def library(source: Path, *arguments: str, needs: bytes = b"") -> ctypes.CDLL:
    """A C file as a shared library: compiled once and kept. arguments: what the compiler is told behind the file;
    needs: the content of whatever else decides what comes out. Raises AbsentError."""
    what = source.stem
    command = [compiler(what), "-O3", "-shared", "-fPIC"]
    key = hashlib.sha256(source.read_bytes() + needs).hexdigest()[:16]
    target = _cache() / f"{what}-{key}.so"
    if not target.exists():
        building = target.with_suffix(f".{os.getpid()}")
        command += ["-o", str(building), str(source), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = next((line for line in done.stderr.splitlines() if "error" in line or "undefined" in line), "?")
            raise AbsentError(f"{what} does not build: {reason.strip()}")
        building.replace(target)
    return ctypes.CDLL(str(target))


def _huff0_library() -> ctypes.CDLL:
    archive = subprocess.run(
        [compiler("huff0"), "-print-file-name=libzstd.a"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if not Path(archive).is_absolute():
        raise AbsentError("no static libzstd here: apt install libzstd-dev")
    source = Path(__file__).with_name("huff0.c")
    found = library(source, archive, "-Wl,--exclude-libs,ALL", needs=Path(archive).read_bytes())
    found.huff0_bound.restype = found.huff0_encode.restype = ctypes.c_size_t
    found.huff0_decode.restype = ctypes.c_int
    return found


def huff0() -> Codec:
    """Huffman of zstd, four streams, blocks of 128 KiB, tables built and read in every block. Raises AbsentError."""
    library = _huff0_library()
    room: dict[int, Bytes] = {}

    def encode(symbols: Any) -> Bytes:
        raw = as_bytes(symbols)
        if raw.size not in room:
            room[raw.size] = np.zeros(library.huff0_bound(ctypes.c_size_t(raw.size)), np.uint8)
        out = room[raw.size]
        stored = library.huff0_encode(_pointer(raw), ctypes.c_size_t(raw.size), _pointer(out))
        if stored == 0:
            raise RuntimeError(f"huff0 refused {raw.size} bytes")
        return out[:stored]

    def decode(coded: Bytes, out: Bytes | None) -> Bytes:
        assert out is not None
        if not library.huff0_decode(
            _pointer(coded), ctypes.c_size_t(coded.size), _pointer(out), ctypes.c_size_t(out.size)
        ):
            raise RuntimeError(f"huff0 cannot read its own {coded.size} bytes")
        return out

    return Codec(name="huff0", encode=encode, decode=decode, policies=("given",))


def htscodecs(level: str) -> Codec:
    """rANS with 32 states of htscodecs, order 0, blocks of 1 MiB. level: "AVX2" or "AVX-512". Raises AbsentError."""
    found = ctypes.util.find_library("htscodecs")
    if found is None:
        raise AbsentError("no htscodecs here: apt install libhtscodecs2")
    if level == "AVX-512" and not _has_avx512():
        raise AbsentError("this machine has no AVX-512")
    library = ctypes.CDLL(found)
    library.rans_compress_bound_4x16.restype = ctypes.c_uint
    library.rans_compress_to_4x16.restype = library.rans_uncompress_to_4x16.restype = ctypes.c_void_p
    room: dict[int, Bytes] = {}

    def encode(symbols: Any) -> list[Bytes]:
        raw = as_bytes(symbols)
        library.rans_set_cpu(_HTS_CPU[level])
        bound = library.rans_compress_bound_4x16(min(raw.size, HTS_BLOCK), _RANS_X32)
        blocks = -(-raw.size // HTS_BLOCK)
        if raw.size not in room:
            room[raw.size] = np.zeros(blocks * bound, np.uint8)
        coded = []
        for number in range(blocks):
            size = min(HTS_BLOCK, raw.size - number * HTS_BLOCK)
            stored = ctypes.c_uint(bound)
            out = room[raw.size][number * bound :]
            if not library.rans_compress_to_4x16(
                _pointer(raw, number * HTS_BLOCK), size, _pointer(out), ctypes.byref(stored), _RANS_X32
            ):
                raise RuntimeError(f"htscodecs refused {size} bytes")
            coded.append(out[: stored.value])
        return coded

    def decode(coded: list[Bytes], out: Bytes | None) -> Bytes:
        assert out is not None
        library.rans_set_cpu(_HTS_CPU[level])
        for number, block in enumerate(coded):
            size = ctypes.c_uint(min(HTS_BLOCK, out.size - number * HTS_BLOCK))
            if not library.rans_uncompress_to_4x16(
                _pointer(block), block.size, _pointer(out, number * HTS_BLOCK), ctypes.byref(size)
            ):
                raise RuntimeError(f"htscodecs cannot read its own {block.size} bytes")
        return out

    # 4 bytes a block: a stream of blocks has to say where each one ends.
    return Codec(
        name=f"htscodecs rANS 32x16 {level}",
        encode=encode,
        decode=decode,
        size=lambda blocks: sum(block.size + 4 for block in blocks),
        policies=("given",),
    )


def _has_avx512() -> bool:
    with Path("/proc/cpuinfo").open() as lines:
        return any("avx512bw" in line for line in lines if line.startswith("flags"))
