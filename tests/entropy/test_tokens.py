"""tokens streams against the reader written from the page; models; damage; streams that ours never writes; goldens.

Goldens are written once and never again. golden.json tells of each: the SHA-256 of its tokens, 16 bits each. v1_hand_*
come from tokens_by_hand.py, the others from the encoder of version 0.1.0; v1_model is a model alone.
"""

import hashlib
import json
import pathlib

import numpy as np
import pytest

from tersor import FormatError
from tersor.entropy import TokenCoder

GOLDEN = pathlib.Path(__file__).parent / "tokens" / "golden"
GOLDENS = json.loads((GOLDEN / "golden.json").read_text())
SHAPES = {
    "rvq": [256] * 8,
    "fsq": [8, 8, 8, 5, 5, 5],
    "flags": [2],
    "one index": [64000],
    "mixed": [5000, 3, 4096, 4097],
    "many": [16] * 64,
}


@pytest.fixture(scope="session")
def oracle(load):
    """The reader of tokens streams in plain Python, written from the page."""
    load("tests/entropy/oracle.py")  # which it imports
    return load("tests/entropy/tokens_oracle.py")


@pytest.fixture(scope="session")
def by_hand(load, oracle):
    """The writer of streams that our encoder never emits."""
    load("tests/entropy/by_hand.py")  # which it imports
    return load("tests/entropy/tokens_by_hand.py")


def tokens_of(sizes, frames, seed=0, stay=0.5):
    """Uneven tokens that stay as they were for a while, the first books longest, and lean on the book before."""
    rng = np.random.default_rng(seed)
    out = np.zeros((frames, len(sizes)), np.uint16)
    for t in range(frames):
        staying = t > 0
        for b, size in enumerate(sizes):
            staying = staying and rng.random() < stay
            drawn = int(rng.random() ** 2 * size + (int(out[t, b - 1]) * 7 if b else 0)) % size
            out[t, b] = out[t - 1, b] if staying else drawn
    return out


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("frames", [0, 1, 2, 7, 8, 9, 40])
def test_the_oracle_reads_what_we_write(oracle, name, frames):
    sizes = SHAPES[name]
    tokens = tokens_of(sizes, frames)
    plain = TokenCoder(sizes, frames_per_chunk=8)
    fitted = TokenCoder.fit([tokens_of(sizes, 30, seed) for seed in (1, 2)], sizes, frames_per_chunk=8)
    for coder, packed in ((plain, None), (fitted, fitted.to_bytes())):
        data = coder.encode(tokens)
        np.testing.assert_array_equal(oracle.decode(data, packed), tokens)
        decoded = coder.decode(data)
        assert decoded.dtype == np.uint16
        np.testing.assert_array_equal(decoded, tokens)


@pytest.mark.parametrize("sizes", [[3, 300, 9], [16, 16]], ids=str)
def test_every_length_comes_back(sizes):
    whole = tokens_of(sizes, 64, 3)
    fitted = TokenCoder.fit(whole, sizes, frames_per_chunk=25)
    for frames in range(65):
        for coder in (TokenCoder(sizes, frames_per_chunk=25), fitted):
            np.testing.assert_array_equal(coder.decode(coder.encode(whole[:frames])), whole[:frames])


# ---- size -----------------------------------------------------------------------------------------------------------


def entropy_of(counts):
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


@pytest.mark.parametrize("fitted", [False, True])
def test_repetitions_cost_their_entropy_and_others_that_of_their_book(fitted):
    """Chunks of 5 bytes, 2 for their length, 2 of rounding; 1 % for coarse levels; the head. No more."""
    rng = np.random.default_rng(5)
    frames, size = 6000, 64
    drawn = np.minimum(rng.geometric(0.1, (frames, 2)) - 1, size - 1).astype(np.uint16)
    tokens = drawn.copy()
    for t in range(1, frames):
        tokens[t] = np.where(rng.random(2) < 0.8, tokens[t - 1], drawn[t])
    again = np.concatenate([np.zeros((1, 2), bool), tokens[1:] == tokens[:-1]])
    bits = 0.0
    for b in range(2):
        others = tokens[~again[:, b], b]
        bits += len(others) * entropy_of(np.bincount(others)) + frames * entropy_of(np.bincount(again[:, b]))
    coder = TokenCoder([size] * 2, frames_per_chunk=100)
    if fitted:
        coder = TokenCoder.fit(tokens, coder.books, frames_per_chunk=100)
    data = coder.encode(tokens)
    model = 0 if fitted else 2 * size * 3 / 8 + 32
    assert len(data) <= bits / 8 * 1.01 + frames / 100 * 9 + 30 + model
    assert len(data) < 0.35 * frames * 2 * 6 / 8  # where raw tokens have 6 bits
    np.testing.assert_array_equal(coder.decode(data), tokens)


@pytest.mark.parametrize("source", ["frame", "book"])
@pytest.mark.parametrize("size", [16, 200])
def test_a_fit_finds_the_token_that_tells_of_another(source, size):
    """Tokens that another token gives away, but for one bit; flags and what is not sure yet cost less than another."""
    rng = np.random.default_rng(6)
    tokens = rng.integers(0, size, (9000, 2)).astype(np.uint16)
    for t in range(1, 9000):
        told = tokens[t - 1, 1] if source == "frame" else tokens[t, 0]
        tokens[t, 1] = (int(told) // (size // 8) * 5 + 3 * rng.integers(0, 2)) % size
    coder = TokenCoder.fit(tokens[:8000], [size] * 2, frames_per_chunk=1000)
    assert 8 * len(coder.encode(tokens[8000:])) / 1000 < np.log2(size) + 2


def test_tokens_that_training_never_saw_can_be_coded():
    sizes = [300, 7, 65536]
    coder = TokenCoder.fit(np.zeros((50, 3), np.uint8), sizes)
    tokens = np.stack([np.arange(300), np.arange(300) % 7, 65535 - np.arange(300) * 200], 1)
    np.testing.assert_array_equal(coder.decode(coder.encode(tokens)), tokens)


def test_a_model_has_no_more_weights_than_a_reader_takes():
    """Small books that tell of large ones, so that each large one would have 16 tables."""
    sizes = [16, 4096] * 32
    small = np.random.default_rng(7).integers(0, 16, (300, 32))
    tokens = np.stack([small, small * 250 + 1], 2).reshape(300, 64)
    coder = TokenCoder.from_bytes(TokenCoder.fit(tokens, sizes).to_bytes())
    np.testing.assert_array_equal(coder.decode(coder.encode(tokens)), tokens)
    np.testing.assert_array_equal(TokenCoder(sizes).decode(TokenCoder(sizes).encode(tokens)), tokens)


def test_a_million_equal_tokens_take_what_the_page_says():
    tokens = np.full((65535, 16), 9, np.uint16)
    data = TokenCoder([1024] * 16, frames_per_chunk=65535).encode(tokens)
    assert tokens.size / 2048 <= len(data) < 1000
    np.testing.assert_array_equal(TokenCoder([1024] * 16).decode(data), tokens)


# ---- streaming and damage -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken():
    sizes = [64] * 4
    clips = [tokens_of(sizes, 400, seed) for seed in range(3)]
    return TokenCoder.fit(clips[:2], sizes, frames_per_chunk=50), clips[2][:375]


@pytest.mark.parametrize("step", [1, 7, 50, 175, 400])
def test_chunks_come_as_soon_as_they_are_full_and_are_those_of_the_stream(spoken, step):
    coder, tokens = spoken
    encoder, decoder = coder.encoder(), coder.decoder()
    chunks, heard = [], []
    for at in range(0, len(tokens), step):
        chunks += encoder.push(tokens[at : at + step])
        assert len(chunks) == min(at + step, len(tokens)) // 50
    chunks += encoder.finish()
    assert encoder.finish() == []
    assert coder.encode(tokens).endswith(b"".join(chunks))
    for chunk in chunks:
        heard.append(decoder.push(chunk))
    np.testing.assert_array_equal(np.concatenate(heard), tokens)


def test_a_chunk_that_does_not_arrive_costs_itself(spoken):
    coder, tokens = spoken
    chunks = coder.encoder().push(tokens)
    decoder = coder.decoder()
    decoder.push(chunks[0])
    with pytest.raises(FormatError, match="chunk 1: its CRC-32C"):
        decoder.push(chunks[3])
    np.testing.assert_array_equal(decoder.push(chunks[2]), tokens[100:150])
    np.testing.assert_array_equal(decoder.push(chunks[5], 5), tokens[250:300])
    np.testing.assert_array_equal(decoder.push(chunks[6]), tokens[300:350])


def flipped(data, bit):
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def test_a_flipped_bit_costs_its_second_and_is_told_of(spoken):
    coder, tokens = spoken
    data = coder.encode(tokens)
    encoder = coder.encoder()
    sizes = [len(chunk) for chunk in [*encoder.push(tokens), *encoder.finish()]]
    ends = len(data) - sum(sizes) + np.cumsum(sizes)
    for number, end in enumerate(ends):
        for bit in range(8 * (end - sizes[number]), 8 * end, 23):
            bad = flipped(data, bit)
            last = min(50 * number + 49, 374)
            with pytest.raises(FormatError, match=rf"chunk {number} \(frames {50 * number} to {last}\): .*; 1 damaged"):
                coder.decode(bad)
            found, damaged = coder.recover(bad)
            assert [(chunk.number, chunk.first_frame, chunk.frames) for chunk in damaged] == [
                (number, 50 * number, last + 1 - 50 * number)
            ]
            want = tokens.copy()
            want[50 * number : last + 1] = 0
            np.testing.assert_array_equal(found, want)


def test_a_stream_that_is_cut_off_gives_its_whole_seconds(spoken):
    coder, tokens = spoken
    data = coder.encode(tokens)
    assert coder.recover(data).damaged == []
    sizes = [len(chunk) for chunk in coder.encoder().push(tokens)]
    for cut in range(len(data)):
        with pytest.raises(FormatError):
            coder.decode(data[:cut])
        try:
            found, damaged = coder.recover(data[:cut])
        except FormatError:
            assert cut < len(data) - sum(sizes)
            continue
        np.testing.assert_array_equal(found, tokens[: len(found)])
        assert [chunk.number for chunk in damaged] == list(range(len(found) // 50, 8))
    np.testing.assert_array_equal(coder.recover(data + b"more").tokens, tokens)
    with pytest.raises(FormatError, match="chunks of"):
        coder.decode(data + b"more")


def test_damage_to_heads_and_models_is_refused(spoken):
    coder, tokens = spoken
    plain = TokenCoder(coder.books, frames_per_chunk=50)
    data, packed = plain.encode(tokens), coder.to_bytes()
    assert 20 < data[3] < 128  # the model's bytes
    for bit in range(0, 8 * (4 + data[3]), 3):
        with pytest.raises(FormatError):
            plain.recover(flipped(data, bit))
    for bit in range(0, 8 * len(packed), 7):
        with pytest.raises(FormatError):
            TokenCoder.from_bytes(flipped(packed, bit))
    for cut in range(0, len(packed), 3):
        with pytest.raises(FormatError):
            TokenCoder.from_bytes(packed[:cut])


# ---- by hand --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shy", [False, True])
def test_models_and_tokens_that_ours_does_not_write(oracle, by_hand, shy):
    data, rows = by_hand.stream_of_sources(shy)
    assert oracle.decode(data).tolist() == rows
    coder = TokenCoder([23, 23, 9000, 2, 5000])
    assert coder.decode(data).tolist() == rows
    model = TokenCoder.from_bytes(by_hand.packed(by_hand.model(7, by_hand.sources())))
    assert model.frames_per_chunk == 7
    assert model.decode(model.encode(rows)).tolist() == rows
    with pytest.raises(ValueError, match="token 16 of book 0 has no probability in this model"):
        model.encode([[16, 2, 0, 0, 0]])


def hostile(by_hand):
    two = [by_hand.Shape(4, 1, (7,) * 8, (), [[1] * 4]), by_hand.Shape(3)]
    rows = [[1, 2], [1, 0], [3, 0]]
    code, model = by_hand.code(two, rows), by_hand.model(5, two)
    chunk = by_hand.chunk(3, code, 0)

    def with_model(data):
        return by_hand.stream(data, 3, [chunk])

    def with_chunk(data, frames=3):
        return by_hand.stream(model, frames, [data])

    def recrc(data):
        head = len(data) - len(chunk) - 4
        return by_hand.with_crc(data[:head]) + data[head + 4 :]

    good = with_chunk(chunk)
    deep = [by_hand.Shape(4, 1, (7,) * 8, (), [[1, 2, 3, 4]])]
    wide = b"\5\x40\xff\xff\3\x40" + b"\x3e\0\0\0\0" * 64 + b"\1\x0f"
    return {
        "good": good,
        "stream": recrc(b"\1" + good[1:]),
        "version": recrc(good[:1] + b"\2" + good[2:]),
        "kind 2 is a model alone": recrc(good[:2] + b"\2" + good[3:]),
        "kind 3": recrc(good[:2] + b"\3" + good[3:]),
        "chunks of no frames": with_model(b"\0" + model[1:]),
        "chunks of 65536 frames": with_model(b"\x80\x80\4" + model[1:]),
        "no books": with_model(b"\5\0\0"),
        "65 books": with_model(b"\5\x41" + b"\1\x41" + b"\0" * 5 * 65 + b"\0"),
        "a book of one token": with_model(model[:2] + b"\0" + model[3:]),
        "a book of 65537 tokens": with_model(model[:2] + b"\x80\x80\4" + model[3:]),
        "a run of none": with_model(model[:3] + b"\0" + model[4:]),
        "a run of too many": with_model(model[:3] + b"\3" + model[4:]),
        "two tables without classes": with_model(model[:6] + b"\5" + model[7:]),
        "17 tables": with_model(by_hand.model(5, [by_hand.Shape(4, 2, (7,) * 8, [0] * 4, [[1] * 4] * 17), two[1]])),
        "a book before the first": with_model(
            by_hand.model(5, [by_hand.Shape(4, 3, (7,) * 8, [0] * 4, [[1] * 4]), two[1]])
        ),
        "a class without a table": with_model(
            by_hand.model(5, [by_hand.Shape(4, 2, (7,) * 8, [0, 0, 1, 0], [[1] * 4]), two[1]])
        ),
        "a table without a weight": with_model(
            by_hand.model(5, [by_hand.Shape(4, 1, (7,) * 8, (), [[0] * 4]), two[1]])
        ),
        "33 levels": with_model(by_hand.model(5, two, [15] * 33)),
        "no levels for tables": with_model(model[:16] + b"\0" + model[17:]),
        "levels for no tables": with_model(by_hand.model(5, [by_hand.Shape(4), two[1]])[:-1] + b"\1\1"),
        "a half byte too many": with_model(model[:16] + b"\3\xff\x1f" + model[33:]),
        "a last level of no weight": with_model(by_hand.model(5, two, [15] * 4 + [0])),
        "no weight for levels": with_model(by_hand.model(5, two, [15] * 4)[:16] + b"\2\0" + b"\0" * 4),
        "too many weights": with_model(wide),
        "a model's code too long": with_model(model + b"\0"),
        "a model's code too short": with_model(by_hand.model(5, deep)[:-1]),
        "frames too many": by_hand.stream(model, 6, [chunk]),
        "frames too few": by_hand.stream(model, 2, [chunk]),
        "frames beyond the bytes": by_hand.stream(model, 1 << 60, [chunk]),
        "a chunk of no frames": with_chunk(by_hand.chunk(0, b"", 0), 0),
        "a chunk that tells 2 frames": with_chunk(by_hand.chunk(2, code, 0)),
        "a chunk of too many frames": with_chunk(by_hand.chunk(6, code, 0), 6),
        "a chunk of 4 bytes": with_chunk(chunk[-4:]),
        "a chunk's CRC": with_chunk(chunk[:-1] + bytes([chunk[-1] ^ 1])),
        "a chunk of another place": with_chunk(by_hand.chunk(3, code, 1)),
        "a needless varint byte": with_chunk(by_hand.with_crc(b"\x83\0" + code, bytes(8))),
        "code too long": with_chunk(by_hand.chunk(3, code + b"\0", 0)),
        "code too short": with_chunk(by_hand.chunk(3, code[:-1], 0)),
        "other code": with_chunk(by_hand.chunk(3, code[:-1] + bytes([code[-1] ^ 0x40]), 0)),
        "a token outside its book": by_hand.stream(
            by_hand.model(5, [by_hand.Shape(4097)]),
            1,
            [by_hand.chunk(1, by_hand.code([by_hand.Shape(4097)], [[4097]]), 0)],
        ),
        "the head's CRC": good[: len(good) - len(chunk) - 1] + b"\0" + chunk,
        "lengths too short": good + b"\0",
        "more tokens than bytes can stand for": by_hand.stream(
            by_hand.model(65535, [by_hand.Shape(4)]), 65535, [by_hand.chunk(65535, b"\1\2\3", 0)]
        ),
    }


def test_hostile_streams_are_refused_by_both_readers(oracle, by_hand):
    streams = hostile(by_hand)
    good = streams.pop("good")
    assert oracle.decode(good).tolist() == TokenCoder([4, 3]).decode(good).tolist() == [[1, 2], [1, 0], [3, 0]]
    others = {"a token outside its book": [4097], "more tokens than bytes can stand for": [4]}
    for name, data in streams.items():
        coder = TokenCoder(others.get(name, [4, 3]))
        with pytest.raises(oracle.RefusedError):
            print(name, oracle.decode(data))
        with pytest.raises(FormatError):
            print(name, coder.decode(data))


def test_damaged_code_under_a_good_checksum_is_read_alike(oracle, by_hand):
    """Whoever can write a checksum can write any code: both readers see the same tokens in it, or none."""
    shapes, rows = by_hand.sources(), by_hand.frames_of_sources(40)
    packed = by_hand.packed(by_hand.model(40, shapes))
    model, coder = oracle.unpack(packed), TokenCoder.from_bytes(packed)
    code = by_hand.code(shapes, rows)
    outcomes = set()
    for bit in range(0, 8 * len(code), 3):
        chunk = by_hand.chunk(40, flipped(code, bit), 0)
        try:
            want = model.decode_chunk(chunk, 0)
        except oracle.RefusedError:
            outcomes.add("refused")
            with pytest.raises(FormatError):
                coder.decoder().push(chunk)
        else:
            outcomes.add("read")
            assert coder.decoder().push(chunk).tolist() == want
    assert "refused" in outcomes


def test_the_example_of_the_page(oracle):
    tokens = np.array([[1, 5], [1, 5], [1, 6], [2, 5], [2, 5], [1, 5]])
    data = TokenCoder([4, 8], frames_per_chunk=4).encode(tokens)
    page = (pathlib.Path(__file__).parents[2] / "docs/formats/tokens.md").read_text()
    example = page[page.index("## Example") :].split("\n\n")[1]
    told = "".join(line[:30] for line in example.splitlines() if line.startswith("    "))
    assert data == bytes.fromhex(told)
    np.testing.assert_array_equal(oracle.decode(data), tokens)


# ---- the door -------------------------------------------------------------------------------------------------------


def test_the_door_says_what_it_needs():
    coder = TokenCoder([8, 8])
    fitted = TokenCoder.fit(np.zeros((4, 2), np.uint8), [8, 8])
    for books in ([], [8] * 65, [1, 8], [65537]):
        with pytest.raises(ValueError, match="1 to 64 books of 2 to 65536 tokens"):
            TokenCoder(books)
    with pytest.raises(ValueError, match="1 to 65535 frames, not 0"):
        TokenCoder([8], frames_per_chunk=0)
    with pytest.raises(TypeError, match="tokens are integers, not float64"):
        coder.encode(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"shape \[frames, 2\], not \[3\]"):
        coder.encode([1, 2, 3])
    for bad in ([[-1, 0]], [[0, 8]], [[1 << 40, 0]]):
        with pytest.raises(ValueError, match="tokens from"):
            coder.encode(bad)
    with pytest.raises(ValueError, match="token 3 of book 1, which has 3"):
        TokenCoder([8, 3]).encode(np.array([[7, 3]], np.uint16))
    with pytest.raises(ValueError, match="token 9 of book 1, which has 8"):
        fitted.encode(np.array([[7, 9]], np.uint16))
    with pytest.raises(ValueError, match="to_bytes needs a model"):
        coder.to_bytes()
    with pytest.raises(ValueError, match="encoder needs a model"):
        coder.encoder()
    data = fitted.encode([[1, 2]])
    with pytest.raises(ValueError, match="coded with a model, and none is given"):
        coder.decode(data)
    with pytest.raises(ValueError, match="coded with the model"):
        TokenCoder.fit([[0, 1], [1, 1]], [8, 8]).decode(data)
    with pytest.raises(ValueError, match=r"books have the sizes \[8, 8\], the coder's \[8, 9\]"):
        TokenCoder([8, 9]).decode(coder.encode([[1, 2]]))


def test_other_integers_and_strided_arrays_are_taken():
    tokens = tokens_of([200, 9], 50)
    coder = TokenCoder([200, 9])
    data = coder.encode(tokens)
    assert data == coder.encode(tokens.astype(np.int64)) == coder.encode(tokens.tolist())
    assert data == coder.encode(np.asfortranarray(tokens)) == coder.encode(tokens.astype(">u4"))
    np.testing.assert_array_equal(coder.decode(bytearray(data)), tokens)


# ---- goldens --------------------------------------------------------------------------------------------------------


def drawn_by_hand(sizes, frames):
    """From a congruential generator, so from nobody's library: what the goldens were made of.

    A token stays, or leans on the book before, the first one on the frame before.
    """
    state, rows = 1, []
    for t in range(frames):
        row = []
        for b, size in enumerate(sizes):
            state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            drawn = (state >> 33) % 1000
            told = row[-1] if b else rows[-1][0] if t else 0
            row.append(rows[-1][b] if t and drawn >= 700 else (drawn * size // 4000 + told * 7 // 4) % size)
        rows.append(row)
    return np.array(rows, np.uint16)


def test_a_fit_gives_the_same_model_everywhere():
    tokens = drawn_by_hand([100, 100, 9, 20], 3000)
    coder = TokenCoder.fit([tokens[:1000], tokens[1000:2800]], [100, 100, 9, 20], frames_per_chunk=40)
    assert coder.to_bytes() == (GOLDEN / "v1_model.bin").read_bytes()
    assert coder.encode(tokens[2800:]) == (GOLDEN / "v1_fitted.bin").read_bytes()
    assert TokenCoder([100, 100, 9, 20]).encode(tokens[:900]) == (GOLDEN / "v1_inside.bin").read_bytes()


def test_every_golden_is_told_of():
    assert {path.stem for path in GOLDEN.glob("*.bin")} == {*GOLDENS, "v1_model"}


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_stay_readable(oracle, name):
    data, packed = (GOLDEN / f"{name}.bin").read_bytes(), (GOLDEN / "v1_model.bin").read_bytes()
    coder = TokenCoder.from_bytes(packed) if name == "v1_fitted" else TokenCoder(GOLDENS[name]["books"])
    for tokens in (coder.decode(data), oracle.decode(data, packed)):
        assert hashlib.sha256(tokens.astype("<u2").tobytes()).hexdigest() == GOLDENS[name]["sha256"]
