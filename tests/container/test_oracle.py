"""The reader in C++ and the one in Python, written from the page, must agree about every file."""

from __future__ import annotations

import json
import random
import struct
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xxhash


def framed(oracle: ModuleType, chunks: bytes, index: bytes) -> bytes:
    header = oracle.MAGIC + struct.pack("<HHI", 1, 0, 0)
    trailer = struct.pack("<QQI", 16 + len(chunks), len(index), oracle.crc32c(index))
    trailer += struct.pack("<I", oracle.crc32c(header + trailer)) + oracle.END_MAGIC
    return header + chunks + index + trailer


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", len(data)) + data


class Made:
    """A file with the codec `stored`: three tensors, the last one the first again, under another shape."""

    def __init__(self, oracle: ModuleType) -> None:
        self.oracle = oracle
        first, second = bytes(range(12)), bytes(5)
        self.chunks = first + second
        self.raw = {"a": first, "ü": second, "tied": first}
        digests = {name: xxhash.xxh3_128_digest(raw) for name, raw in self.raw.items()}

        def entry(name: str, dtype: int, shape: tuple[int, ...], same_as: int = 0) -> bytes:
            out = text(name) + struct.pack("<BBBBI", 1, dtype, len(shape), 1, same_as)
            out += struct.pack(f"<{len(shape)}QQ", *shape, len(self.raw[name])) + digests[name]
            return out if same_as else out + struct.pack("<II", len(self.raw[name]), oracle.crc32c(self.raw[name]))

        content = b"".join(
            text(name) + bytes([dtype, len(shape)]) + struct.pack(f"<{len(shape)}Q", *shape) + digests[name]
            for name, dtype, shape in (("a", 12, (3, 1)), ("tied", 12, (3,)), ("ü", 2, (5,)))
        )
        self.index = struct.pack("<III", 2, 3, 1) + xxhash.xxh3_128_digest(content)
        self.index += entry("a", 12, (3, 1)) + entry("ü", 2, (5,)) + entry("tied", 12, (3,), 1)
        self.index += text("k") + text("v") + struct.pack("<I", 1)
        self.index += text("unknown") + struct.pack("<BQ", 0, 3) + b"xyz"  # an extension to be skipped

    def file(self, index: bytes | None = None) -> bytes:
        return framed(self.oracle, self.chunks, self.index if index is None else index)


def refuses(oracle: ModuleType, data: bytes) -> bool:
    try:
        file = oracle.read(data)
        for number in range(len(file.entries)):
            file.read(number)
        return file.content_hash() != file.hash
    except oracle.RefusedError:
        return True


def verify(binaries: Path, data: bytes) -> tuple[int, str]:
    done = subprocess.run(
        [binaries / "tersor-dec", "--verify", "-"], input=data, capture_output=True, check=False, timeout=60
    )
    return done.returncode, done.stderr.decode(errors="replace")


@pytest.fixture
def made(oracle: ModuleType) -> Made:
    return Made(oracle)


def test_a_file_made_from_the_page_is_read_by_both(oracle: ModuleType, made: Made, binaries: Path) -> None:
    file = oracle.read(made.file())
    assert {entry.name: file.read(number) for number, entry in enumerate(file.entries)} == made.raw
    assert file.metadata == {"k": "v"}
    assert not refuses(oracle, made.file())
    assert verify(binaries, made.file()) == (0, "")


def test_changed_indexes_with_right_crcs_are_taken_or_refused_by_both(
    oracle: ModuleType, made: Made, binaries: Path
) -> None:
    chance = random.Random(0)
    interesting = (b"\0" * 4, b"\1\0\0\0", b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"\x21", b"\x02", b"\x80")
    taken = 0
    for _ in range(400):
        index = bytearray(made.index)
        for _ in range(chance.randint(1, 2)):
            at = chance.randrange(len(index))
            if chance.random() < 0.5:
                index[at] ^= 1 << chance.randrange(8)
            else:
                value = chance.choice(interesting)
                index[at : at + len(value)] = value
        if chance.random() < 0.1:
            del index[chance.randrange(len(index)) :]
        data = made.file(bytes(index))
        code, said = verify(binaries, data)
        assert code == int(refuses(oracle, data)), f"{said} {bytes(index).hex()}"
        assert bool(said) == bool(code), said  # a line for everything that is bad
        taken += code == 0
    assert taken > 0  # the extension's bytes, for one, may be anything


def test_what_the_binary_writes_keeps_every_rule(oracle: ModuleType, binaries: Path) -> None:
    header = b'{"__metadata__":{"format":"pt"},"w":{"dtype":"F16","shape":[2,700000],"data_offsets":[0,2800000]},'
    header += b'"e":{"dtype":"I8","shape":[0],"data_offsets":[2800000,2800000]}}'
    body = random.Random(1).randbytes(2_800_000)
    model = len(header).to_bytes(8, "little") + header + body
    for data, origin in ((model, "safetensors"), (b"", "file"), (model[:-1], "file")):
        coded = subprocess.run(
            [binaries / "tersor-enc", "-", "-"], input=data, capture_output=True, check=True, timeout=60
        ).stdout
        file = oracle.read(coded)
        assert file.origin == origin
        assert file.content_hash() == file.hash
        for entry in file.entries:
            for offset, size, crc in entry.chunks:
                assert oracle.crc32c(coded[offset : offset + size]) == crc
        if origin == "file":
            assert file.hash == xxhash.xxh3_128_digest(data)
            continue
        kept, weight, empty = file.entries
        assert (kept.kind, kept.name, kept.raw_bytes) == ("bytes", "header", 8 + len(header))
        assert (empty.name, empty.dtype, empty.shape, empty.chunks) == ("e", "I8", (0,), [])
        assert (weight.name, weight.dtype, weight.shape) == ("w", "F16", (2, 700_000))
        assert weight.hash == xxhash.xxh3_128_digest(body)
        assert len(weight.chunks) == 3
        assert file.metadata == {"format": "pt"}


def test_plain_python_reads_a_checkpoint_that_the_binary_wrote(
    oracle: ModuleType, decoders: dict, binaries: Path
) -> None:
    """From the pages alone: nothing that decodes here shares code with what encoded."""
    chance = np.random.default_rng(2)
    weights = {
        "bf16": (chance.standard_normal(9000, dtype=np.float32).view(np.uint32) >> 16).astype("<u2").tobytes(),
        "fp16": chance.standard_normal(5000).astype("<f2").tobytes(),
        "fp32": (0.02 * chance.standard_normal(6000)).astype("<f4").tobytes(),
        "bytes": chance.geometric(0.4, 7000).clip(0, 255).astype(np.uint8).tobytes(),
        "zeros": bytes(4000),
    }
    dtypes = {"bf16": "BF16", "fp16": "F16", "fp32": "F32", "bytes": "I8", "zeros": "I64"}
    header, at = {}, 0
    for name, raw in weights.items():
        items = len(raw) // {"BF16": 2, "F16": 2, "F32": 4, "I8": 1, "I64": 8}[dtypes[name]]
        header[name] = {"dtype": dtypes[name], "shape": [items], "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text_of_header = json.dumps(header).encode()
    model = len(text_of_header).to_bytes(8, "little") + text_of_header + b"".join(weights.values())
    for level in (1, 4, 9):
        coded = subprocess.run(
            [binaries / "tersor-enc", f"-{level}", "-", "-"], input=model, capture_output=True, check=True, timeout=60
        ).stdout
        file = oracle.read(coded)
        parts = {entry.name: file.read(number, decoders) for number, entry in enumerate(file.entries)}
        assert list(parts) == ["header", *weights]
        assert b"".join(parts.values()) == model


def test_the_crc_of_the_page(oracle: ModuleType) -> None:
    assert oracle.crc32c(b"123456789") == 0xE3069283
