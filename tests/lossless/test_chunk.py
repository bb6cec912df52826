"""Chunks against the decoder written from the page, inside whole .tsr files; chunks by hand; goldens.

Goldens are written once and never again. golden.json tells of each: its raw bytes, their SHA-256. v1_hand_* come from
the cases below, the others from the encoder of version 0.1.0.
"""

import hashlib
import json
import pathlib
import struct

import ml_dtypes
import numpy as np
import pytest
import xxhash

import tersor
from tersor import FormatError

GOLDEN = pathlib.Path(__file__).with_name("golden")
GOLDENS = json.loads((GOLDEN / "golden.json").read_text())
DTYPES = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16, "fp32": np.float32, "int8": np.int8}


def weights(content, dtype, count, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(count) * (20 if dtype == "int8" else 0.02)
    if content == "sparse":
        values[rng.random(count) < 0.9] = 0
    if content == "shifting":  # another table pays where the scale changes
        values *= np.where(np.arange(count) < count // 2, 1, 1 / 64)
    if content == "once_bf16":
        values = values.astype(ml_dtypes.bfloat16)
    array = values.astype(np.float32).astype(DTYPES[dtype])
    if content == "wild":  # NaNs with payloads, infinities, denormals: any bits at one place in 16
        words = array.view(f"u{array.itemsize}")
        bits = rng.integers(0, 1 << 8 * array.itemsize, words[::16].shape)
        words[::16] = bits.astype(words.dtype)
    return array


def only_chunk(container, data):
    """The stored bytes and raw size of a one-chunk file."""
    ((offset, size, _),) = container.read(data).entries[0].chunks
    return data[offset : offset + size], container.read(data).entries[0].raw_bytes


def file_of(container, chunk, raw):
    """A .tsr of origin `array`, one tensor U8 whose only chunk is coded by hand, from docs/formats/tsr.md."""
    digest = xxhash.xxh3_128_digest(raw)
    content = xxhash.xxh3_128_digest(struct.pack("<IBBQ", 0, 2, 1, len(raw)) + digest)
    index = struct.pack("<III", 4, 1, 0) + content + bytes(4) + bytes([1, 2, 1, 2]) + bytes(4)
    index += struct.pack("<QQ", len(raw), len(raw)) + digest
    index += struct.pack("<II", len(chunk), container.crc32c(chunk)) + bytes(4)
    header = container.MAGIC + struct.pack("<HHI", 1, 0, 0)
    trailer = struct.pack("<QQI", 16 + len(chunk), len(index), container.crc32c(index))
    trailer += struct.pack("<I", container.crc32c(header + trailer)) + container.END_MAGIC
    return header + chunk + index + trailer


def decoded(container, chunk, raw):
    """What tersor makes of a chunk of so many raw bytes; FormatError where it refuses."""
    return tersor.decompress(file_of(container, chunk, raw)).tobytes()


@pytest.mark.parametrize("content", ["gaussian", "sparse", "shifting", "once_bf16", "wild"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", [1, 4, 6, 9])
@pytest.mark.parametrize("count", [1, 30, 3001, 70_000])
def test_the_oracle_reads_what_we_write(oracle, container, content, dtype, level, count):
    array = weights(content, dtype, count)
    file = container.read(tersor.compress(array, level=level))
    assert file.read(0, {2: oracle.decode_chunk, **container.STORED}) == array.tobytes()


def test_a_file_of_several_chunks_and_tensors(oracle, container, tmp_path):
    tensors = {dtype: weights("shifting", dtype, 300_000) for dtype in DTYPES}
    tersor.save_file(tensors, tmp_path / "x.tsr")
    file = container.read((tmp_path / "x.tsr").read_bytes())
    for number, entry in enumerate(file.entries):
        raw = file.read(number, {2: oracle.decode_chunk, **container.STORED})
        assert raw == tensors[entry.name].tobytes()


def test_the_example_of_the_page(container):
    words = (0x3F80 + np.arange(12) + 0x8000 * (np.arange(12) % 4 == 3)).astype(np.uint16)
    chunk, _ = only_chunk(container, tersor.compress(words.view(ml_dtypes.bfloat16), level=1))
    assert chunk.hex() == "0300006200ffff011d0000000102830405068708090a8b"


# ---- by hand --------------------------------------------------------------------------------------------------------


def rans_plane(oracle, by_hand, values, run_rows, groups, tail, tables):
    """A plane of kind 2: run i holds 256 * run_rows[i] values, the last one the others."""
    entropy, head, runs, left = oracle.entropy, b"\2" + by_hand.varint(len(tables)), [], len(values)
    for rows, frequencies in zip([*run_rows, None], tables, strict=True):
        size = left if rows is None else 256 * rows
        head += by_hand.varint(size // 256) + by_hand.table(frequencies, 12)
        runs.append((size, entropy.alias_slots(entropy.Table(frequencies, 12, False))))
        left -= size
    block = by_hand.block(values.tolist(), runs, groups, tail)
    return head + struct.pack("<I", len(block)) + block


def two_tables():
    low, high = [0] * 256, [0] * 31 + [1, 0, 0]
    low[0], low[31], low[9] = 3000, 90, 1006
    high[0], high[30], high[12] = 2000, 95, 2000
    return low, high


def drawn(frequencies, count, seed):
    shares = np.array(frequencies) / sum(frequencies)
    return np.random.default_rng(seed).choice(len(frequencies), count, p=shares).astype(np.uint8)


def names_of_two_runs(oracle, by_hand, count, groups, tail):
    low, high = two_tables()
    first = min(512, count // 256 * 256)
    names = np.concatenate([drawn(low, first, 1), drawn(high[:32], count - first, 2)])
    plane = rans_plane(oracle, by_hand, names, [first // 256], groups, tail, [low, high[:32]])
    return names, plane


def hand_names(oracle, by_hand, extra, rest_is_plane):
    """A window that wraps, escapes with bits above their width, a tail longer than the last run, stray bits."""
    count, rng = 1100, np.random.default_rng(extra)
    names, plane = names_of_two_runs(oracle, by_hand, count, 1, 1100 - 32 * 8)
    window, special = 0xFFF0, 0xABCD
    escapes = int((names == 31).sum())
    escaped = rng.integers(0, 65536, escapes)
    low, high = (escaped & 255).astype(np.uint8).tobytes(), (escaped >> 8).astype(np.uint8).tobytes()
    if rest_is_plane:
        rest = rng.integers(0, 256, count).astype(np.uint8)
        tail = b"\1\0" + rest.tobytes()
    else:
        rest = rng.integers(0, 1 << (8 - extra), count).astype(np.uint8)
        tail = b"\0" + packed(rest, extra)
    chunk = bytes([3, 0, extra]) + struct.pack("<HH", window, special) + plane + by_hand.varint(escapes)
    chunk += b"\0" + low + b"\0" + high + tail
    keys, places = (window + names.astype(int)) % 65536, names == 31
    keys[names == 30] = special
    keys[places] = escaped
    low_bits = 7 - extra
    words = keys * (1 << low_bits) % 32768 + (rest >> low_bits & 1).astype(int) * 32768 + rest % (1 << low_bits)
    return chunk, words.astype("<u2").tobytes()


def packed(rest, extra):
    if extra == 0:
        return rest.tobytes()
    runs = {1: 7, 2: 3}[extra]
    out, block = b"", 64 * (runs + 1)
    for at in range(0, len(rest) - block + 1, block):
        lines = rest[at : at + block].reshape(runs + 1, 64)
        dealt = lines[runs]
        for run in range(runs):
            share = (dealt >> run * extra & ((1 << extra) - 1)) << (8 - extra)
            out += (lines[run] | share).tobytes()
    return out + rest[len(rest) // block * block :].tobytes()


def hand_fp32(oracle, by_hand):
    """Upper halves as keys, constant and raw lower planes; three runs, the last of them empty."""
    count = 768
    low, _ = two_tables()
    keys = np.concatenate([drawn(low, 512, 4), drawn(low[::-1], 256, 5)])
    plane = rans_plane(oracle, by_hand, keys, [2, 1], 2, 0, [low, low[::-1], low])
    rest = np.arange(count).astype(np.uint8)
    byte1 = (np.arange(count) * 7).astype(np.uint8)
    chunk = b"\4\1" + plane + b"\0" + rest.tobytes() + b"\0" + byte1.tobytes() + b"\1\x5a"
    upper = keys.astype(int) * 128 + rest % 128 + (rest // 128).astype(int) * 32768
    return chunk, (upper * 65536 + byte1.astype(int) * 256 + 0x5A).astype("<u4").tobytes()


def hand_series(by_hand, width, strides, order):
    """Bins of every width that fits, names that are raw, a divisor, a start; places end within a byte."""
    rng, bits, count = np.random.default_rng(width), 8 * width, 301
    widths = [(i * 5) % (bits - 5) for i in range(40)]
    names = rng.integers(0, 40, count)
    places = [int(rng.integers(0, 1 << 62)) % (1 << widths[name]) for name in names]
    first, start, divisor = -77, -5, 3
    stream = "".join(
        format(place, f"0{widths[name]}b")[::-1] for place, name in zip(places, names, strict=True) if widths[name]
    )
    packed = int(stream[::-1], 2).to_bytes(-(-len(stream) // 8), "little")
    chunk = bytes([5, width, order, len(strides)]) + bytes(strides) + bytes([9, divisor, 40, 153]) + b"\1"
    chunk += bytes(widths) + b"\0" + names.astype(np.uint8).tobytes()
    chunk += by_hand.varint(len(packed)) + packed
    begin = [first + sum(1 << w for w in widths[:i]) for i in range(40)]
    numbers = [(begin[name] + place) * divisor for name, place in zip(names, places, strict=True)]
    if not strides:
        numbers = [number + start for number in numbers]
    for stride in strides[::-1]:
        if stride == strides[0]:
            numbers[:stride] = [number + start for number in numbers[:stride]]
        for i in range(stride, count):
            numbers[i] += numbers[i - stride]
    numbers = [number % (1 << bits) for number in numbers]
    if order:
        sign = 1 << (bits - 1)
        numbers = [(sign - number) % (1 << bits) if number > sign else number for number in numbers]
    return chunk, b"".join(number.to_bytes(width, "little") for number in numbers)


def hand_scaled(width):
    """Steps of 0.1: multiples of both signs and all sizes, zeros, corrections that give -0 and an infinity."""
    bias, kind = {4: (127, np.float32), 8: (1023, np.float64)}[width]
    multiples = [0, 1, -1, 7, -123456, 3, 0, 0, 1 - (1 << (8 * width - 1))]
    floats = (np.array(multiples, np.float64) / 10).astype(kind)
    if width == 8:  # beyond 53 bits a quotient of doubles is rounded twice
        multiples[-1], floats[-1] = 1 << 52, (1 << 52) / 10
    corrections = [0] * len(multiples)
    corrections[6], floats[6] = -1 << (8 * width - 1), -0.0
    infinity = int(np.array(np.inf, kind).view(f"u{width}"))
    corrections[7], floats[7] = infinity, np.inf
    parts = [np.array(part, f"<i{width}").tobytes() for part in (multiples, corrections)]
    chunk = bytes([11, width]) + struct.pack("<QH", 0xCCCCCCCCCCCCCCCD, bias - 2 - 67)
    for part in parts:
        chunk += bytes([len(part) + 1, 0]) + part
    return chunk, floats.tobytes()


# Series of one bin: no strides, start 0, divisor 1, 1 bin at 0 of so many bits, the places.
ONE_BIN = {bits: bytes([0, 0, 1, 1, 0, bits]) for bits in (1, 2, 8)}

HAND = {
    "series_1": lambda o, h: hand_series(h, 1, [], 0),
    "series_2": lambda o, h: hand_series(h, 2, [7], 1),
    "series_4": lambda o, h: hand_series(h, 4, [100, 1], 0),
    "series_8": lambda o, h: hand_series(h, 8, [2, 3], 1),
    "ranks": lambda o, h: (
        b"\6\4\0\3" + ONE_BIN[8] + b"\3xyz" + ONE_BIN[2] + b"\1\x46",
        struct.pack("<4I", *b"zyxy"),
    ),
    "packed": lambda o, h: (b"\7\4\0\x21\x43", b"\1\2\3\4"),
    "sparse": lambda o, h: (b"\x08\2\0\x41\5\0abcd", b"ab" + bytes(10) + b"cd" + bytes(2)),
    "sparse_of_nine": lambda o, h: (b"\x08\1\0\1\1\3\0ab", b"a" + bytes(7) + b"b"),
    "runs": lambda o, h: (b"\x09\2\2\5\0abcd" + ONE_BIN[2] + b"\1\x0d", b"abab" + b"cd" * 4),
    "byte_planes": lambda o, h: (b"\x0a\2\0\1\2\1\7", b"\1\7\2\7"),
    "records": lambda o, h: (
        b"\x0c\2\2\1\1hTT\5\0abcd\3\1\1e",
        b"h" + b"abe" + b"cde" + b"TT",
    ),
    "records_of_runs": lambda o, h: (b"\x0c\1\4\0\x11\x09\2\2\5\0abcd" + ONE_BIN[2] + b"\1\x0d", b"abab" + b"cd" * 4),
    "scaled_4": lambda o, h: hand_scaled(4),
    "scaled_8": lambda o, h: hand_scaled(8),
    "records_of_records": lambda o, h: (b"\x0c\2\1\2\0\3\1\1a\x0d\x0c\2\1\1\0\3\0bd\3\1\1c", b"abcadc"),
    "constant_of_8": lambda o, h: (b"\1\x08abcdefgh", b"abcdefgh" * 3),
    "names_e0_packed": lambda o, h: hand_names(o, h, 0, False),
    "names_e1_packed": lambda o, h: hand_names(o, h, 1, False),
    "names_e2_packed": lambda o, h: hand_names(o, h, 2, False),
    "names_e1_plane": lambda o, h: hand_names(o, h, 1, True),
    "names_e2_plane": lambda o, h: hand_names(o, h, 2, True),
    "fp32_keys": hand_fp32,
    "constant_of_4": lambda o, h: (b"\1\4abcd", b"abcd" * 5),
    "constant_plane": lambda o, h: (b"\2\1x", b"x" * 1000),
}


@pytest.mark.parametrize("name", HAND)
def test_chunks_by_hand(oracle, by_hand, container, name):
    chunk, raw = HAND[name](oracle, by_hand)
    assert oracle.decode_chunk(chunk, len(raw)) == raw
    assert decoded(container, chunk, raw) == raw


def test_damage_is_refused_by_both_readers_alike(oracle, by_hand, container):
    chunk, raw = HAND["names_e1_packed"](oracle, by_hand)
    rng = np.random.default_rng(0)
    bits = [*range(0, 8 * 60, 3), *rng.integers(8 * 60, 8 * len(chunk), 60)]
    bad = [chunk[: bit // 8] + bytes([chunk[bit // 8] ^ 1 << bit % 8]) + chunk[bit // 8 + 1 :] for bit in bits]
    for changed in [*bad, *(chunk[:cut] for cut in range(1, len(chunk), 41)), chunk + b"\0"]:
        try:
            want = oracle.decode_chunk(changed, len(raw))
        except oracle.RefusedError:
            with pytest.raises(FormatError):
                decoded(container, changed, raw)
        else:  # the file's hash must be that of the changed bytes
            assert decoded(container, changed, want) == want


# ---- goldens --------------------------------------------------------------------------------------------------------


def test_every_golden_is_told_of():
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(GOLDENS)


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_stay_readable(oracle, container, name):
    chunk, facts = (GOLDEN / f"{name}.bin").read_bytes(), GOLDENS[name]
    raw = oracle.decode_chunk(chunk, facts["raw_bytes"])
    assert hashlib.sha256(raw).hexdigest() == facts["sha256"]
    assert decoded(container, chunk, raw) == raw
