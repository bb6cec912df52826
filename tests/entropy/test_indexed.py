"""Indexed streams against the reader written from the page, goldens, 200 hashes, calls, and what is refused.

Goldens are written once and never again. golden.json tells of each: its tables' parameters and the SHA-256 of its
symbols, whose indexes and means follow from its number (see stream). hashes.json holds the SHA-256 of 200 streams.
"""

import array
import concurrent.futures
import contextlib
import gc
import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tersor import FormatError, _core, entropy
from tersor.entropy import Decoder, Encoder, TableSet, decode_indexed, encode_indexed

GOLDEN = pathlib.Path(__file__).with_name("indexed") / "golden"
GOLDENS = json.loads((GOLDEN / "golden.json").read_text())
HASHES = json.loads((GOLDEN / "hashes.json").read_text())
ALL_LEVELS = ["scalar", "avx2", "avx512", "avx512vbmi", "avx512bf16"]
LEVELS = ALL_LEVELS[: min(3, ALL_LEVELS.index(_core.machine_isa()) + 1)]


@contextlib.contextmanager
def held(isa):
    before = _core.active_isa()
    _core.hold_isa(isa)
    try:
        yield
    finally:
        _core.hold_isa(before)


# ---- streams of integers alone: NumPy's own random numbers may change -----------------------------------------------


def mixed(seed, count):
    """[count] uint64 by SplitMix64 (Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        z = (np.uint64(seed) * np.uint64(1 << 40) + np.arange(1, count + 1, dtype=np.uint64)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        return z ^ z >> np.uint64(31)


def tables_of(number):
    family = ("gaussian", "laplace", "logistic", "student_t", "mixture")[number % 5]
    scales = (7209 + mixed(number, 40) % np.uint64(1 << 20 if number % 3 else 40000)).astype(np.float64) / 65536
    fractions = 1 << number % 4
    if family == "student_t":
        return TableSet.student_t(scales[:5], 1.5 + number % 7, fractions=fractions)
    if family == "mixture":
        means = (mixed(number + 1, 40) % np.uint64(1 << 20)).astype(np.float64).reshape(20, 2) / 65536
        return TableSet.mixture(np.ones((20, 2)), means, scales.reshape(20, 2), fractions=fractions)
    return getattr(TableSet, family)(scales, fractions=fractions)


def stream(number, count):
    """Tables, indexes, means and symbols: as often as the tables say, and one in some hundreds anywhere."""
    tables = tables_of(number)
    indexes = (mixed(number + 1000, count) % np.uint64(len(tables))).astype(np.uint16)
    means = (mixed(number + 2000, count) % np.uint64(4096)).astype(np.int32) - 2048
    slots = (mixed(number + 3000, count) % np.uint64(65536)).astype(np.int64)
    rows = indexes.astype(np.int64) * tables.fractions + means % tables.fractions
    symbols = np.zeros(count, np.int64)
    for row in np.unique(rows):
        starts = np.cumsum(tables.frequencies(*divmod(int(row), tables.fractions)))
        here = rows == row
        symbols[here] = np.searchsorted(starts, slots[here], side="right") + tables.offsets[row]
    symbols += means // tables.fractions
    wild = mixed(number + 4000, count)
    symbols = np.where(wild % np.uint64(300) == 0, (wild >> np.uint64(32)).astype(np.int64) - 2**31, symbols)
    return tables, indexes, means, symbols.astype(np.int32)


COUNTS = [0, 1, 2, 31, 33, 500, 4095, 4097, 20_000, 70_001]


def test_200_streams_have_the_bytes_that_they_had():
    for number, want in enumerate(HASHES):
        count = 600_000 if number == 199 else COUNTS[number % len(COUNTS)]
        tables, indexes, means, symbols = stream(number, count)
        for isa, threads in ((LEVELS[-1], 2), ("scalar", 1)):
            with held(isa):
                data = encode_indexed(symbols, indexes, tables, means=means, threads=threads)
                assert hashlib.sha256(data).hexdigest()[:32] == want, (number, isa)
        for isa, threads in (("scalar", 1), (LEVELS[-1], 2)):
            with held(isa):
                back = decode_indexed(data, indexes, tables, means=means, threads=threads)
                assert np.array_equal(back, symbols), (number, isa)


def test_processes_with_other_levels_read_one_another(tmp_path):
    script = (
        "import sys, numpy as np; from tersor.entropy import *; i = np.arange(300000) % 64; "
        "t = TableSet.gaussian(np.geomspace(0.11, 64, 64)); s = (i * 7919) % 5 - 2; p = sys.argv[2]\n"
        "if sys.argv[1] == 'write': open(p, 'wb').write(encode_indexed(s, i, t, threads=2))\n"
        "else: assert (decode_indexed(open(p, 'rb').read(), i, t) == s).all()"
    )
    levels = {"scalar": "1", LEVELS[-1]: "2"}
    for writer, threads in levels.items():
        for step, isa, number in (("write", writer, threads), *(("read", isa, n) for isa, n in levels.items())):
            environment = {"TERSOR_ISA": isa, "TERSOR_NUM_THREADS": number, "PATH": "/usr/bin:/bin"}
            subprocess.run([sys.executable, "-c", script, step, str(tmp_path / "stream")], check=True, env=environment)


# ---- the oracle -----------------------------------------------------------------------------------------------------


def plain(indexed_oracle, tables):
    return indexed_oracle.parse_set(tables.to_bytes())


@pytest.mark.parametrize("number", range(10))
def test_the_oracle_reads_what_we_write(indexed_oracle, number):
    tables, indexes, means, symbols = stream(number, [0, 1, 7, 64, 300, 1000, 4095, 4097, 9000, 30_000][number])
    data = encode_indexed(symbols, indexes, tables, means=means)
    read = indexed_oracle.decode(data, indexes.tolist(), plain(indexed_oracle, tables), means.tolist())
    assert read == symbols.tolist()


def test_lengths_up_to_64_come_back(indexed_oracle):
    for count in range(65):
        tables, indexes, means, symbols = stream(count, count)
        data = encode_indexed(symbols, indexes, tables, means=means)
        assert np.array_equal(decode_indexed(data, indexes, tables, means=means), symbols)
        assert (
            indexed_oracle.decode(data, indexes.tolist(), plain(indexed_oracle, tables), means.tolist())
            == symbols.tolist()
        )


def test_holes_escape_by_their_own_number(indexed_oracle):
    tables = TableSet.from_pmfs([[0.5, 0, 0, 0.5], np.r_[1, np.zeros(999), 1]], [-1, 7])
    symbols = np.array([-1, 0, 1, 2, 7, 500, 1007, 2**31 - 1, -(2**31)] * 3, np.int32)
    indexes = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1] * 3)
    data = encode_indexed(symbols, indexes, tables)
    assert np.array_equal(decode_indexed(data, indexes, tables), symbols)
    assert indexed_oracle.decode(data, indexes.tolist(), plain(indexed_oracle, tables)) == symbols.tolist()


def test_the_example_of_the_page(indexed_oracle):
    tables = TableSet.from_cdfs([[0, 4096, 12288, 16384]], offsets=[-1], precision=14)
    data = encode_indexed([-1, 0, 0, 100], [0, 0, 0, 0], tables)
    assert data.hex(" ") == "03 01 10 04 02 01 00 00 0d 00 20 80 24"
    assert indexed_oracle.decode(data, [0] * 4, plain(indexed_oracle, tables)) == [-1, 0, 0, 100]


def by_hand(indexed_oracle, tables, symbols, indexes, lanes, log_chunk=None):
    """A stream with lanes and chunks that our encoder would not take, without escapes."""
    chunk = len(symbols) if log_chunk is None else 1 << log_chunk
    bodies = []
    for begin in range(0, len(symbols), chunk):
        states, words = [1 << 31] * lanes, []
        part = list(zip(symbols[begin : begin + chunk], indexes[begin : begin + chunk], strict=True))
        for n, (symbol, index) in reversed(list(enumerate(part))):
            table = tables.tables[index]
            f, start = table.frequencies[symbol - table.low], table.starts[symbol - table.low]
            x = states[n % lanes]
            if x >= f << 47:
                words.append((x % 2**32).to_bytes(4, "little"))
                x >>= 32
            states[n % lanes] = (x // f << 16) + x % f + start
        sizes = [(state.bit_length() + 7) // 8 for state in states]
        lengths = sum(size - 4 << 3 * lane for lane, size in enumerate(sizes))
        body = lengths.to_bytes((3 * lanes + 7) // 8, "little")
        body += b"".join(state.to_bytes(size, "little") for state, size in zip(states, sizes, strict=True))
        bodies.append(body + b"".join(reversed(words)))

    def varint(value):
        return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])

    head = bytes([3, 1, lanes.bit_length() - 1 | (8 if log_chunk is not None else 0)]) + varint(len(symbols))
    if log_chunk is not None:
        head += bytes([log_chunk]) + b"".join(varint(len(body)) for body in bodies)
    return head + b"".join(bodies)


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize(("count", "log_chunk"), [(1, None), (777, None), (9000, 12), (8192, 12)])
def test_layouts_that_ours_does_not_write(indexed_oracle, lanes, count, log_chunk):
    tables = TableSet.laplace([0.5, 4, 40])
    built = plain(indexed_oracle, tables)
    indexes = (mixed(1, count) % np.uint64(3)).astype(np.uint8)
    symbols = (mixed(2, count) % np.uint64(5)).astype(np.int32) - 2
    data = by_hand(indexed_oracle, built, symbols.tolist(), indexes.tolist(), lanes, log_chunk)
    assert indexed_oracle.decode(data, indexes.tolist(), built) == symbols.tolist()
    for isa in LEVELS:
        with held(isa):
            assert np.array_equal(decode_indexed(data, indexes, tables), symbols)


# ---- calls ----------------------------------------------------------------------------------------------------------


def test_every_integer_dtype_is_taken():
    tables = TableSet.gaussian(np.geomspace(0.2, 9, 30))
    indexes = np.arange(5000) % 30
    symbols = (np.arange(5000) * 37) % 11 - 5
    want = encode_indexed(symbols, indexes, tables)
    for dtype in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        assert encode_indexed(symbols, indexes.astype(dtype), tables) == want
        assert np.array_equal(decode_indexed(want, indexes.astype(dtype), tables), symbols)
    for dtype in (np.int8, np.int16, np.int64):
        assert encode_indexed(symbols.astype(dtype), indexes, tables) == want
        out = np.zeros(5000, dtype)
        assert decode_indexed(want, indexes, tables, out=out) is out
        assert np.array_equal(out, symbols)
    assert encode_indexed(symbols.tolist(), indexes.tolist(), tables) == want
    grid = decode_indexed(want, indexes.reshape(50, 100), tables)
    assert (grid.shape, grid.dtype) == ((50, 100), np.int32)
    every_other = np.zeros(10_000, np.int32)[::2]
    decode_indexed(bytearray(want), indexes[::-1][::-1], tables, out=every_other)
    assert np.array_equal(every_other, symbols)


@pytest.mark.parametrize("size", [1, 31, 1000, 5000])
def test_calls_of_any_size_make_the_same_stream(size):
    tables, indexes, means, symbols = stream(6, 20_000)
    encoder = Encoder()
    for at in range(0, symbols.size, size):
        part = slice(at, at + size)
        encoder.write(symbols[part], indexes[part], tables, means=means[part])
    assert len(encoder) == symbols.size
    data = encoder.finish()
    assert data == encode_indexed(symbols, indexes, tables, means=means)
    assert len(encoder) == 0
    assert encoder.finish() == encode_indexed([], [], tables)
    decoder, out = Decoder(data), np.zeros(size, np.int32)
    for at in range(0, symbols.size, size):
        part = slice(at, at + size)
        count = symbols[part].size
        read = decoder.read(indexes[part], tables, means=means[part], out=out[:count] if at % 2 else None)
        assert np.array_equal(read, symbols[part])
    assert decoder.position == len(decoder) == symbols.size


def test_chunks_are_entered_alone():
    tables, indexes, means, symbols = stream(4, 600_000)
    decoder = Decoder(encode_indexed(symbols, indexes, tables, means=means))
    assert decoder.chunk == 1 << 18
    for begin in (1 << 19, 0, 1 << 18):
        decoder.seek(begin)
        part = slice(begin, begin + 1000)
        assert np.array_equal(decoder.read(indexes[part], tables, means=means[part]), symbols[part])
    with pytest.raises(ValueError, match="goes to multiples of 262144"):
        decoder.seek(1000)


def test_threads_may_share_an_encoder():
    """Long calls let go of the GIL; what is written stays whole calls, and tables live as long as they are needed."""
    calls = [stream(number, 9000) for number in range(5, 13)]
    encoder = Encoder()

    def write(call):
        tables, indexes, means, symbols = call
        for at in range(0, 9000, 4500):
            part = slice(at, at + 4500)
            encoder.write(symbols[part], indexes[part], TableSet.from_bytes(tables.to_bytes()), means=means[part])

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(write, calls))
    gc.collect()
    assert len(encoder) == 9000 * len(calls)
    data = encoder.finish()
    done, left = [], [(number, at) for number in range(len(calls)) for at in (0, 4500)]

    def read(halves):
        decoder = Decoder(data)
        for number, at in halves:
            tables, indexes, means, symbols = calls[number]
            part = slice(at, at + 4500)
            if not np.array_equal(decoder.read(indexes[part], tables, means=means[part]), symbols[part]):
                return False
        return True

    while left:  # in which order the calls came is found by reading
        following = next((half for half in left if read([*done, half])), None)
        assert following is not None, "what follows is nobody's call"
        done.append(following)
        left.remove(following)


def test_a_failed_call_writes_nothing_and_a_failed_finish_loses_nothing():
    tables, indexes, means, symbols = stream(3, 3000)
    encoder = Encoder().write(symbols, indexes, tables, means=means)
    wrong = indexes.astype(np.int32)
    wrong[-1] = 10_000
    with pytest.raises(ValueError, match="index 10000 at symbol 2999"):
        encoder.write(symbols[::-1].copy(), wrong, tables, means=means)  # with escapes before the wrong index
    encoder.write(symbols, indexes, tables, means=means)
    twice = [np.concatenate([array, array]) for array in (symbols, indexes, means)]
    assert encoder.finish() == encode_indexed(twice[0], twice[1], tables, means=twice[2])


def test_seek_and_outs_of_every_kind():
    tables, indexes, means, symbols = stream(1, 600_000)
    data = encode_indexed(symbols, indexes, tables, means=means)
    decoder = Decoder(np.frombuffer(data, np.uint8))
    broken = bytearray(data)
    broken[len(data) // 3] ^= 1
    damaged = Decoder(broken)
    with pytest.raises(FormatError):
        damaged.read(indexes, tables, means=means)
    with pytest.raises(FormatError, match="found to be damaged before"):
        damaged.read(indexes[:1], tables)
    damaged.seek(1 << 19)
    last = slice(1 << 19, None)
    assert np.array_equal(damaged.read(indexes[last], tables, means=means[last]), symbols[last])
    with pytest.raises(ValueError, match="not to -1"):
        decoder.seek(-1)
    read_only = np.zeros(10, np.int32)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        decoder.read(indexes[:10], tables, means=means[:10], out=read_only)
    assert decoder.position == 0
    held = array.array("i", [0] * 10)
    assert decoder.read(indexes[:10], tables, means=means[:10], out=held) is held
    assert held.tolist() == symbols[:10].tolist()
    with pytest.raises(ValueError, match="0 means for 5 symbols"):
        encode_indexed(symbols[:5], indexes[:5], tables, means=np.zeros(0, np.int32))
    assert tables.quantize_means([]).shape == (0,)
    assert Decoder(encode_indexed([], [], tables)).chunk == 1


def test_wrong_calls_are_told_of():
    tables = TableSet.gaussian([1, 2])
    data = encode_indexed([1, 2, 3], [0, 1, 0], tables)
    for call, kind, text in [
        (lambda: encode_indexed([1.5], [0], tables), TypeError, "symbols are integers, not float64"),
        (lambda: encode_indexed([1], [0.0], tables), TypeError, "indexes are integers, not float64"),
        (lambda: encode_indexed([2**31], [0], tables), ValueError, "symbols have 32 bits"),
        (lambda: encode_indexed([1], [2], tables), ValueError, "indexes name 2 tables, found 2 to 2"),
        (lambda: encode_indexed([1], np.array([2], np.uint8), tables), ValueError, "index 2 at symbol 0"),
        (lambda: encode_indexed([1], np.array([-1], np.int32), tables), ValueError, "index -1 at symbol 0"),
        (lambda: encode_indexed([1, 2], [0], tables), ValueError, "1 indexes for 2 symbols"),
        (lambda: encode_indexed([1], [0], tables, means=[1, 2]), ValueError, "2 means for 1 symbols"),
        (lambda: encode_indexed([1], [0], tables, means=[1.5]), TypeError, "means"),
        (lambda: decode_indexed(data, [0, 1], tables), ValueError, "the stream holds 3 symbols, the indexes are 2"),
        (lambda: decode_indexed(data, [0, 1, 0], tables, out=np.zeros(2, np.int32)), ValueError, "out has shape"),
        (lambda: decode_indexed(data, [0, 1, 0], tables, out=np.zeros(3)), TypeError, "out holds integers"),
        (lambda: decode_indexed(data, [0, 1, 0], tables, out=[0, 0, 0]), TypeError, "out is an array"),
        (lambda: Decoder(data).read([0] * 4, tables), ValueError, "reads 4 symbols, 3 are left"),
        (lambda: Decoder(data).read([7], tables), ValueError, "found 7 to 7"),
        (lambda: Encoder().write([1], [9], tables), ValueError, "found 9 to 9"),
    ]:
        with pytest.raises(kind, match=text):
            call()
    big = encode_indexed([1000], [0], tables)
    with pytest.raises(ValueError, match="out holds int8"):
        decode_indexed(big, [0], tables, out=np.zeros(1, np.int8))


def test_damage_is_refused_by_both_readers_alike(indexed_oracle):
    tables, indexes, means, symbols = stream(0, 500)
    built = plain(indexed_oracle, tables)
    data = encode_indexed(symbols, indexes, tables, means=means)
    changed = [data[:cut] for cut in range(0, len(data), 7)]
    changed += [
        data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
        for bit in [*range(140), *range(140, 8 * len(data), 41)]
    ]
    refused = 0
    for bad in changed:
        try:
            want = indexed_oracle.decode(bad, indexes.tolist(), built, means.tolist())
        except (indexed_oracle.RefusedError, AssertionError):  # the latter: another number of symbols
            refused += 1
            with pytest.raises((FormatError, ValueError)):
                decode_indexed(bad, indexes, tables, means=means)
        else:  # a bit of an escape, which nothing but a checksum could tell
            assert np.array_equal(decode_indexed(bad, indexes, tables, means=means), want)
    assert refused > 0.9 * len(changed)


@pytest.mark.parametrize(
    "bad",
    [
        "03 01 16 04 02 01 00 00 0d 00 20 80 24",  # 64 lanes
        "03 01 17 04 02 01 00 00 0d 00 20 80 24",
        "03 01 30 04 02 01 00 00 0d 00 20 80 24",  # an unknown bit of the layout
        "03 01 10 04 02 09 00 00 0d 00 20 80 24",  # padding behind the lengths
        "03 01 10 04 02 02 00 00 0d 00 20 00 80 24",  # a state in more bytes than it needs
        "03 01 10 04 02 00 00 00 0d 00 80 24",  # a state below 2^31
        "03 01 10 04 02 04 00 00 0d 00 20 00 00 80 80 24",  # a state from 2^63 on
        "03 01 10 04 02 05 00 00 0d 00 20 00 00 00 01 80 24",  # a state of 9 bytes
        "03 01 10 04 02 01 00 00 0d 00 20 80 a4",  # padding behind the escapes
        "03 01 10 04 03 01 00 00 0d 00 20 80 24 00",  # an escape's byte too many
        "03 01 10 04 01 01 00 00 0d 00 20 80",  # one too few
        "03 01 10 04 02 01 00 00 0d 00 20 00 00 00 00 80 24",  # a word too many
        "03 01 10 04 02 01 00 00 0d 00 20 00 80 24",  # a quarter of one
        "03 01 10 03 02 01 00 00 0d 00 20 80 24",  # a symbol too few
        "03 01 18 04 0b 03 02 01 00 00 0d 00 20 80 24",  # chunks of 2^11
        "03 01 18 04 12 0a 02 01 00 00 0d 00 20 80 24",  # a single one where there are several
        "03 01 00 00 00",  # something behind nothing
        "03 01 01 00",  # lanes of nothing
    ],
)
def test_each_rule_of_the_page_is_held(indexed_oracle, bad):
    tables = TableSet.from_cdfs([[0, 4096, 12288, 16384]], offsets=[-1], precision=14)
    data = bytes.fromhex(bad)
    count = data[3]
    with pytest.raises(indexed_oracle.RefusedError):
        indexed_oracle.decode(data, [0] * count, plain(indexed_oracle, tables))
    with pytest.raises(FormatError):
        decode_indexed(data, [0] * count, tables)


def test_what_is_not_the_coders_is_told_of_or_wrong():
    tables, indexes, means, symbols = stream(0, 3000)
    data = encode_indexed(symbols, indexes, tables, means=means)
    for other, at, mean in [
        (TableSet.gaussian(np.geomspace(0.5, 5, len(tables))), indexes, means),
        (tables, np.roll(indexes, 1), means),
        (tables, indexes, means + 1),
    ]:
        with contextlib.suppress(FormatError):
            assert not np.array_equal(decode_indexed(data, at, other, means=mean), symbols)
    decoder = Decoder(data[:-8])
    with pytest.raises(FormatError):
        decoder.read(indexes, tables, means=means)
    with pytest.raises(FormatError, match="found to be damaged before"):
        decoder.read(indexes[:1], tables)
    for kind in (b"", b"\1\1\0\0", b"\3\2\0\0", b"\3\1\7\0", b"\3\1\0\5", entropy.encode(np.zeros(9, np.uint8))):
        with pytest.raises(FormatError):
            Decoder(kind).read([0], tables)


# ---- goldens --------------------------------------------------------------------------------------------------------


def test_every_golden_is_told_of():
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(GOLDENS)


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_stay_readable(indexed_oracle, name):
    facts = GOLDENS[name]
    data = (GOLDEN / f"{name}.bin").read_bytes()
    if name.startswith("v1_tables"):
        assert hashlib.sha256(TableSet.from_bytes(data).to_bytes()).hexdigest() == facts["sha256"]
        assert len(plain(indexed_oracle, TableSet.from_bytes(data)).tables) == facts["tables"]
        return
    tables, indexes, means, symbols = stream(facts["stream"], facts["symbols"])
    for read in (
        decode_indexed(data, indexes, tables, means=means),
        np.array(
            indexed_oracle.decode(data, indexes.tolist(), plain(indexed_oracle, tables), means.tolist()), np.int32
        ),
    ):
        assert np.array_equal(read, symbols)
        assert hashlib.sha256(read.tobytes()).hexdigest() == facts["sha256"]
