"""Peers with a Python package, each on one thread. A factory raises AbsentError where its package is not installed.

The element of a case is "bf16", "fp32", "bytes", or NumPy's name of a dtype; a peer that knows types is told it, and
the zstd and lz4 families see bytes, as a user's call would have it.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from tersor.bench.harness import AbsentError, Bytes, Codec, as_bytes

SLOW_BYTES = 6_000_000  # what zstd -19 is given: at 2 MB/s the whole input would take the afternoon
ITEM_BYTES = {"bf16": 2, "fp32": 4, "bytes": 1}


def item_bytes(element: str) -> int:
    """Bytes an element."""
    return ITEM_BYTES.get(element) or np.dtype(element).itemsize


def imported(name: str, package: str) -> Any:
    """A peer's module. Raises AbsentError, which says what would bring it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AbsentError(f"no {name} here ({error}): pip install {package}") from error


def zstd(level: int, *, limit_bytes: int | None = None) -> Codec:
    """zstd's one-shot calls on the raw bytes; into a given buffer through its stream reader."""
    zstandard = imported("zstandard", "zstandard")
    compressor, decompressor = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()

    def decode(coded: bytes, out: Bytes | None) -> Any:
        if out is None:
            return decompressor.decompress(coded)
        reader, done = decompressor.stream_reader(coded), 0
        while done < out.size:
            got = reader.readinto(out[done:])
            if got == 0:
                raise RuntimeError(f"zstd ended after {done} of {out.size} bytes")
            done += got
        return out

    return Codec(
        name=f"zstd -{level}",
        encode=lambda array: compressor.compress(as_bytes(array)),
        decode=decode,
        limit_bytes=limit_bytes,
        options={"level": level},
    )


def lz4() -> Codec:
    """An lz4 frame at its default level."""
    frame = imported("lz4.frame", "lz4")
    return Codec(
        name="lz4 frame",
        encode=lambda array: frame.compress(as_bytes(array)),
        decode=lambda coded, out: frame.decompress(coded),
        policies=("fresh",),
    )


def zipnn(element: str) -> Codec:
    """zipnn's byte interface on one thread. It turns the bits of its input in place, so every call gets a copy that is
    made before the clock starts."""
    module = imported("zipnn", "zipnn")
    names = {"bf16": "bfloat16", "fp32": "float32"}
    if element not in names:
        raise AbsentError(f"zipnn has no {element}")
    coder = module.ZipNN(input_format="byte", bytearray_dtype=names[element], threads=1)
    return Codec(
        name="zipnn",
        prepare=lambda array: bytearray(as_bytes(array)),
        encode=coder.compress,
        decode=lambda coded, out: coder.decompress(coded),
        policies=("fresh",),
        options={"dtype": names[element]},
    )


def pcodec(element: str, level: int = 8) -> Codec:
    """pcodec, standalone format; bf16 as 16-bit integers, since it has no bf16."""
    module, standalone = imported("pcodec", "pcodec"), imported("pcodec.standalone", "pcodec")
    dtype = np.dtype({"bf16": "uint16", "fp32": "float32", "bytes": "uint8"}.get(element, element))
    if dtype.itemsize == 1 and element != "bytes":
        raise AbsentError("pcodec refuses 8-bit types")
    config = module.ChunkConfig(compression_level=level)

    def decode(coded: bytes, out: Bytes | None) -> Any:
        if out is None:
            return standalone.simple_decompress(coded)
        return standalone.simple_decompress_into(coded, out.view(dtype))

    return Codec(
        name=f"pcodec -{level}",
        encode=lambda array: standalone.simple_compress(as_bytes(array).view(dtype), config),
        decode=decode,
        options={"level": level, "dtype": dtype.name},
    )


def blosc2(element: str, codec: str, level: int, shuffle: str) -> Codec:
    """blosc2, one thread. codec: "zstd" or "lz4"; shuffle: "shuffle" or "bitshuffle"."""
    module = imported("blosc2", "blosc2")
    parameters = module.CParams(
        codec=getattr(module.Codec, codec.upper()),
        clevel=level,
        typesize=item_bytes(element),
        filters=[getattr(module.Filter, shuffle.upper())],
        filters_meta=[0],
        nthreads=1,
    )
    reading = module.DParams(nthreads=1)

    def decode(coded: bytes, out: Bytes | None) -> Any:
        fresh = module.decompress2(coded, dst=out, dparams=reading)
        return fresh if out is None else out

    return Codec(
        name=f"blosc2 {codec}-{level} {shuffle}",
        encode=lambda array: module.compress2(as_bytes(array), cparams=parameters),
        decode=decode,
        options={"codec": codec, "level": level, "filter": shuffle},
    )
