"""Reads .tsr files in plain Python, written from docs/formats/tsr.md alone: the format's second implementation.

It checks every rule of the page. What a codec does with a chunk is not its matter:
`File.read` takes decoders by number.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

import xxhash

MAGIC = bytes.fromhex("d47473720d0a1a0a")
END_MAGIC = bytes.fromhex("d4747372656e640a")
CHUNK = 1 << 20
ORIGINS = {1: "safetensors", 2: "tensors", 3: "file", 4: "array", 5: "npy", 6: "npz", 7: "torch", 8: "gguf"}
WITH_GAPS = {"npy", "npz", "torch", "gguf"}
KINDS = {1: "tensor", 2: "bytes"}
# number: (safetensors' name, bytes an element)
DTYPES = {
    1: ("BOOL", 1),
    2: ("U8", 1),
    3: ("I8", 1),
    4: ("F8_E5M2", 1),
    5: ("F8_E4M3", 1),
    6: ("I16", 2),
    7: ("U16", 2),
    8: ("F16", 2),
    9: ("BF16", 2),
    10: ("I32", 4),
    11: ("U32", 4),
    12: ("F32", 4),
    13: ("F64", 8),
    14: ("I64", 8),
    15: ("U64", 8),
    16: ("C64", 8),
    17: ("F8_E8M0", 1),
}

Decoder = Callable[[bytes, int], bytes]
"""A chunk's stored bytes and the number of raw bytes in it -> the raw bytes."""

STORED = {1: lambda chunk, size: chunk}


class RefusedError(Exception):
    """The page does not allow this file."""


def need(condition: bool, text: str) -> None:
    if not condition:
        raise RefusedError(text)


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state = state >> 8 ^ _TABLE[(state ^ byte) & 0xFF]
    return state ^ 0xFFFFFFFF


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        need(size <= len(self.data) - self.at, f"{size} bytes needed, {len(self.data) - self.at} left")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form: str) -> int:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def text(self, most: int = 0xFFFFFFFF) -> str:
        size = self.number("I")
        need(size <= most, f"a text of {size} bytes, at most {most}")
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise RefusedError(f"not UTF-8: {error}") from None


@dataclass
class Entry:
    name: str
    kind: str
    dtype: str | None
    dtype_number: int
    shape: tuple[int, ...]
    codec: int
    same_as: int | None
    raw_bytes: int
    hash: bytes
    chunks: list[tuple[int, int, int]] = field(default_factory=list)  # offset, stored bytes, CRC
    base: int | None = None  # of codec 3: which of the file's bases


@dataclass
class File:
    data: bytes
    origin: str
    hash: bytes
    entries: list[Entry]
    metadata: dict[str, str]
    bases: list[bytes] = field(default_factory=list)  # content hashes
    gaps: list[int] = field(default_factory=list)  # bytes before every entry but the last

    def read(self, number: int, decoders: Mapping[int, Decoder] = STORED) -> bytes:
        """The raw bytes of an entry, CRCs and hash checked."""
        entry = self.entries[number]
        stored = entry if entry.same_as is None else self.entries[entry.same_as]
        need(entry.codec in decoders, f"codec {entry.codec} of {entry.name!r} is unknown")
        raw = b""
        for i, (offset, size, crc) in enumerate(stored.chunks):
            chunk = self.data[offset : offset + size]
            need(crc32c(chunk) == crc, f"{entry.name!r}: chunk {i} is damaged")
            wanted = min(CHUNK, entry.raw_bytes - i * CHUNK)
            part = decoders[entry.codec](chunk, wanted)
            need(len(part) == wanted, f"{entry.name!r}: chunk {i} holds {len(part)} bytes, {wanted} needed")
            raw += part
        need(xxhash.xxh3_128_digest(raw) == entry.hash, f"{entry.name!r} has another hash")
        return raw

    def restored(self, decoders: Mapping[int, Decoder] = STORED) -> bytes:
        """The file that this one was made from. Not for tensors that came from no file."""
        need(self.origin not in ("tensors", "array"), "tensors of no file")
        parts = [self.read(number, decoders) for number in range(len(self.entries))]
        if self.origin not in WITH_GAPS:
            return b"".join(parts)
        between, out = parts.pop(), b""
        for gap, part in zip(self.gaps, parts, strict=True):
            out, between = out + between[:gap] + part, between[gap:]
        return out + between

    def content_hash(self) -> bytes:
        if self.origin == "file":
            return self.entries[0].hash
        stream = xxhash.xxh3_128()
        if self.origin in WITH_GAPS and all(entry.kind == "bytes" for entry in self.entries):
            stream.update(b"".join(entry.hash for entry in self.entries))
        for entry in sorted((e for e in self.entries if e.kind == "tensor"), key=lambda e: e.name.encode()):
            name = entry.name.encode()
            stream.update(struct.pack("<I", len(name)) + name + bytes([entry.dtype_number, len(entry.shape)]))
            stream.update(struct.pack(f"<{len(entry.shape)}Q", *entry.shape) + entry.hash)
        return stream.digest()


def _entry(cursor: _Cursor, offset: int) -> tuple[Entry, int]:
    name = cursor.text(65536)
    kind, dtype, rank, codec = (cursor.number("B") for _ in range(4))
    same_as = cursor.number("I")
    need(kind in KINDS, f"kind {kind}")
    need(rank <= 32, f"{rank} dims")
    shape = tuple(cursor.number("Q") for _ in range(rank))
    raw_bytes, digest = cursor.number("Q"), cursor.take(16)
    if kind == 1:
        need(dtype in DTYPES, f"dtype {dtype}")
        width = DTYPES[dtype][1]
        need(width * prod(dim for dim in shape if dim) < 1 << 64, f"{shape} overflows")
        need(width * prod(shape) == raw_bytes, f"{raw_bytes} bytes for {shape}")
    else:
        need(dtype == 0 and rank == 0, "plain bytes with a dtype or dims")
    entry = Entry(
        name,
        KINDS[kind],
        DTYPES[dtype][0] if kind == 1 else None,
        dtype,
        shape,
        codec,
        same_as - 1 if same_as else None,
        raw_bytes,
        digest,
    )
    if not same_as:
        count = -(-raw_bytes // CHUNK)
        need(count * 8 <= len(cursor.data) - cursor.at, f"{count} chunks do not fit")
        for _ in range(count):
            size, crc = cursor.number("I"), cursor.number("I")
            need(1 <= size <= 1 << 21, f"{size} stored bytes")
            entry.chunks.append((offset, size, crc))
            offset += size
    return entry, offset


def _is_difference(entry: Entry) -> bool:
    return entry.codec == 3 and entry.same_as is None


def _bases(cursor: _Cursor, entries: list[Entry]) -> list[bytes]:
    """The extension `base`, written from docs/formats/difference.md."""
    size = cursor.number("Q")
    end = cursor.at + size
    need(end <= len(cursor.data), "an extension that does not fit")
    count = cursor.number("B")
    need(count >= 1, "no bases")
    hashes = [cursor.take(16) for _ in range(count)]
    for entry in entries:
        if _is_difference(entry):
            entry.base = cursor.number("B")
            need(entry.base < count, f"base {entry.base} of {count}")
    need(cursor.at == end, "another length")
    return hashes


def _gaps(cursor: _Cursor, origin: str, entries: list[Entry]) -> list[int]:
    size = cursor.number("Q")
    need(origin in WITH_GAPS and len(entries) > 1 and size == 4 * (len(entries) - 1), "gaps of no such file")
    return [cursor.number("I") for _ in entries[1:]]


def _check_entries(origin: str, entries: list[Entry]) -> None:
    names = sorted((e.kind, e.name) for e in entries)
    need(all(a != b for a, b in pairwise(names)), "a name twice")
    for number, entry in enumerate(entries):
        if entry.same_as is None:
            continue
        need(entry.same_as < number, "same as a later entry")
        first = entries[entry.same_as]
        need(first.same_as is None and entry.raw_bytes > 0, "a chain, or nothing to share")
        for what in ("kind", "dtype_number", "codec", "raw_bytes", "hash"):
            need(getattr(first, what) == getattr(entry, what), f"the same, with another {what}")
    kinds = [e.kind for e in entries]
    last = entries[-1] if entries else None
    has_gaps = last is not None and (last.kind, last.name, last.same_as) == ("bytes", "gaps", None)
    fits = dict.fromkeys(WITH_GAPS, has_gaps and last.raw_bytes <= 1 << 26) | {
        "safetensors": kinds.count("bytes") == 1 and kinds[0] == "bytes",
        "tensors": "bytes" not in kinds,
        "file": kinds == ["bytes"],
        "array": kinds == ["tensor"],
    }
    need(fits[origin], f"origin {origin} with {kinds}")


def read(data: bytes) -> File:
    """Everything but the chunks' bytes. Raises RefusedError."""
    need(len(data) >= 48, f"{len(data)} bytes")
    header, trailer = data[:16], data[-32:]
    need(header[:8] == MAGIC and trailer[24:] == END_MAGIC, "magic")
    version, _optional, required = struct.unpack("<HHI", header[8:])
    need(version == 1, f"version {version}")
    need(required == 0, f"required features {required:#x}")
    offset, size, index_crc, frame_crc = struct.unpack("<QQII", trailer[:24])
    need(crc32c(header + trailer[:20]) == frame_crc, "frame CRC")
    need(offset >= 16 and offset + size + 32 == len(data), "index offset")
    index = data[offset : offset + size]
    need(crc32c(index) == index_crc, "index CRC")

    cursor = _Cursor(index)
    origin, count, pairs = (cursor.number("I") for _ in range(3))
    need(origin in ORIGINS and count <= 1 << 24 and pairs <= 1 << 24, "origin or counts")
    digest = cursor.take(16)
    entries: list[Entry] = []
    at = 16
    for _ in range(count):
        entry, at = _entry(cursor, at)
        entries.append(entry)
    need(at == offset, f"chunks end at {at}, the index begins at {offset}")
    metadata: dict[str, str] = {}
    last: bytes | None = None
    for _ in range(pairs):
        key = cursor.text(65536)
        need(last is None or last < key.encode(), "metadata keys out of order")
        last = key.encode()
        metadata[key] = cursor.text()
    bases: list[bytes] = []
    gaps: list[int] = []
    for _ in range(cursor.number("I")):
        name, flag = cursor.text(65536), cursor.number("B")
        if name == "base":
            need(flag == 1 and not bases, "base is optional, or there twice")
            bases = _bases(cursor, entries)
            continue
        if name == "gaps":
            need(flag == 1 and not gaps, "gaps are optional, or there twice")
            gaps = _gaps(cursor, ORIGINS[origin], entries)
            continue
        need(flag == 0, f"extension {name!r} has flag {flag}")
        cursor.take(cursor.number("Q"))
    need(cursor.at == len(index), "bytes behind the index's end")
    _check_entries(ORIGINS[origin], entries)
    need(bases or not any(_is_difference(entry) for entry in entries), "a difference without bases")
    if ORIGINS[origin] in WITH_GAPS:
        need(len(gaps) + 1 == len(entries) and sum(gaps) <= entries[-1].raw_bytes, "gaps and entries differ")
    return File(data, ORIGINS[origin], digest, entries, metadata, bases, gaps)
