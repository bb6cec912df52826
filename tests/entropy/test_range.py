"""range streams against the coder written from the page; rates against entropies; damage; goldens.

Goldens are written once and never again. golden.json tells of each: the calls that decode it, the SHA-256 of the
results. v1_hand_* come from range_oracle.py, the others from the encoder of version 0.1.0.
TERSOR_MEASURE=1 pytest -s -k speed tests/entropy/test_range.py prints the speed.
"""

import hashlib
import json
import os
import pathlib
import threading
import time

import numpy as np
import pytest

from tersor import FormatError
from tersor.entropy import range as coder

GOLDEN = pathlib.Path(__file__).parent / "range" / "golden"
GOLDENS = json.loads((GOLDEN / "golden.json").read_text())


@pytest.fixture(scope="session")
def oracle(load):
    """The coder in plain Python, written from the page."""
    load("tests/entropy/oracle.py")  # which it imports
    return load("tests/entropy/range_oracle.py")


def bernoulli(p, count, seed=0):
    return (np.random.default_rng(seed).random(count) < p).astype(np.uint8)


def entropy_of(p):
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def mixed(count, seed=0, contexts=64, least=0.02):
    """Bins with a probability for each context, contexts at random."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(least, 0.5, contexts)
    ids = rng.integers(0, contexts, count)
    return (rng.random(count) < p[ids]).astype(np.uint8), ids, p


# ---- calls as data: (kind, values, arguments), for us and for the oracle ---------------------------------------------


def drawn_calls(seed, contexts):
    rng = np.random.default_rng(seed)
    calls = []
    for _ in range(rng.integers(0, 25)):
        kind = rng.integers(0, 4)
        count = int(rng.integers(0, 12))
        if kind == 0:
            p = rng.choice([0.001, 0.3, 0.999])
            calls.append(("bins", (rng.random(count) < p).astype(np.uint8), rng.integers(0, contexts, count)))
        elif kind == 1:
            width = int(rng.integers(1, 33))
            calls.append(("bits", rng.integers(0, 1 << width, count), width))
        else:
            order, span = int(rng.choice([0, 1, 5, 31])), int(rng.integers(1, contexts))
            least, below = (-(1 << 31), 1 << 31) if kind == 3 else (0, 1 << 32)
            values = np.clip(rng.integers(least, below, count) >> rng.integers(0, 32, count), least, below - 1)
            first = rng.integers(0, contexts - span + 1, count)
            calls.append(("numbers", values, (first, span, order, bool(kind == 3))))
    return calls


def encoded(calls, contexts, **model):
    encoder = coder.Encoder(contexts, **model)
    for kind, values, argument in calls:
        if kind == "bins":
            encoder.encode(values, argument)
        elif kind == "bits":
            encoder.encode_bypass(values, argument)
        else:
            first, span, order, signed = argument
            encoder.encode_exp_golomb(values, first, span=span, order=order, signed=signed)
    return encoder.finish()


def decoded(data, calls, contexts, **model):
    decoder = coder.Decoder(data, contexts, **model)
    out = []
    for kind, values, argument in calls:
        if kind == "bins":
            out.append(decoder.decode(argument))
        elif kind == "bits":
            out.append(decoder.decode_bypass(len(values), argument))
        else:
            first, span, order, signed = argument
            out.append(decoder.decode_exp_golomb(len(values), first, span=span, order=order, signed=signed))
    decoder.finish()
    return out


def encoded_by_hand(oracle, calls, contexts, **model):
    encoder = oracle.Encoder(contexts, **model)
    for kind, values, argument in calls:
        for i, value in enumerate(np.asarray(values).tolist()):
            if kind == "bins":
                encoder.bin(value, int(argument[i]))
            elif kind == "bits":
                encoder.bits(value, argument)
            else:
                encoder.number(value, int(argument[0][i]), *argument[1:])
    return encoder.finish()


def decoded_by_hand(oracle, data, calls, contexts, **model):
    decoder = oracle.Decoder(data, contexts, **model)
    out = []
    for kind, values, argument in calls:
        if kind == "bins":
            out.append([decoder.bin(int(context)) for context in argument])
        elif kind == "bits":
            out.append([decoder.bits(argument) for _ in values])
        else:
            out.append([decoder.number(int(first), *argument[1:]) for first in argument[0]])
    decoder.finish()
    return out


@pytest.mark.parametrize("rates", [(4, 7), (2, 2), (12, 5)])
def test_the_oracle_writes_and_reads_the_same_bytes(oracle, rates):
    for seed in range(40):
        calls = drawn_calls(seed, 9)
        start = np.random.default_rng(seed).uniform(0.01, 0.99, 9) if seed % 2 else None
        exact = None if start is None else [int(value) for value in np.rint(start * 65536)]
        data = encoded(calls, 9, rates=rates, start=start)
        assert data == encoded_by_hand(oracle, calls, 9, rates=rates, start=exact)
        for found, by_hand, (_, values, _) in zip(
            decoded(data, calls, 9, rates=rates, start=start),
            decoded_by_hand(oracle, data, calls, 9, rates=rates, start=exact),
            calls,
            strict=True,
        ):
            np.testing.assert_array_equal(found, values)
            np.testing.assert_array_equal(by_hand, values)


def test_every_short_length_comes_back():
    for count in range(65):
        for p in (0.0, 0.03, 0.5, 1.0):
            bins = bernoulli(p, count, count)
            data = encoded([("bins", bins, np.zeros(count, int))], 1)
            np.testing.assert_array_equal(decoded(data, [("bins", bins, np.zeros(count, int))], 1)[0], bins)


def test_carries_run_through_many_bytes(oracle):
    """Zeros in the upper part of a range near 2^64 leave low at ...ffff; then a carry goes through all of it."""
    encoder, hand = coder.Encoder(1), oracle.Encoder(1)
    for value in [*[(1 << 32) - 1] * 50, 0, *[(1 << 32) - 1] * 9]:
        encoder.encode_bypass(value, 32)
        hand.bits(value, 32)
    for one in bernoulli(0.5, 400).tolist():
        encoder.encode(one, 0)
        hand.bin(one, 0)
    data = encoder.finish()
    assert data == hand.finish()
    assert b"\xff" * 20 in data


def test_the_example_of_the_page(oracle):
    page = (pathlib.Path(__file__).parents[2] / "docs/formats/range.md").read_text()
    example = page[page.index("## Example") :].split("\n\n")[1]
    told = bytes.fromhex("".join(line[:19] for line in example.splitlines()))
    calls = [("bins", [1, 1, 0], [0, 0, 1]), ("bits", [5], 3), ("numbers", [0, 3], ([0, 0], 2, 0, False))]
    assert encoded_by_hand(oracle, calls, 2) == told
    encoder = coder.Encoder(2)
    encoder.encode(1, 0)
    encoder.encode(np.array([1, 0], bool), np.array([0, 1], np.int16))
    encoder.encode_bypass([5], 3)
    encoder.encode_exp_golomb(np.array([0, 3], np.int8), 0, span=2)
    assert encoder.finish() == told


# ---- the promise: size -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.5, 0.1, 0.01])
def test_a_bin_of_unchanging_probability_costs_its_entropy(p):
    """Within 1 % and some bytes to learn, at slow rates; a start probability saves what learning costs."""
    count = 400_000
    bins = bernoulli(p, count)
    ones = bins.mean()
    for start, learning in ((None, 250), ([p], 6)):
        encoder = coder.Encoder(1, rates=(10, 10), start=start)
        encoder.encode(bins, 0)
        size = len(encoder.finish())
        least = count * entropy_of(ones) / 8
        assert least * 0.999 <= size <= least * 1.01 + learning


def test_rounding_costs_a_ten_thousandth_over_the_model(oracle):
    bins, ids, _ = mixed(60_000)
    model, cost = oracle.Contexts(64), 0.0
    for one, context in zip(bins.tolist(), ids.tolist(), strict=True):
        p = model.bound(1 << 64, context) / (1 << 64)
        cost -= np.log2(p if one else 1 - p)
        model.follow(context, one)
    size = len(encoded([("bins", bins, ids)], 64))
    assert cost / 8 <= size <= cost / 8 * 1.0001 + 8


def test_two_rates_follow_what_changes():
    """A probability that jumps: (4, 7) beats the slow rates by much, and loses to them where nothing changes."""
    jumps = np.concatenate([bernoulli(p, 300, i) for i, p in enumerate([0.02, 0.9] * 100)])
    stays = bernoulli(0.2, len(jumps))

    def size(bins, rates):
        return len(encoded([("bins", bins, np.zeros(len(bins), int))], 1, rates=rates))

    assert size(jumps, (4, 7)) < 0.8 * size(jumps, (10, 10))
    assert size(jumps, (4, 7)) < size(jumps, (7, 7))
    assert size(stays, (10, 10)) < size(stays, (7, 7)) < size(stays, (4, 7)) < 1.04 * size(stays, (10, 10))


def test_plain_bits_cost_themselves():
    rng = np.random.default_rng(0)
    for width in (1, 7, 16, 32):
        values = rng.integers(0, 1 << width, 50_000)
        encoder = coder.Encoder(1)
        encoder.encode_bypass(values, width)
        assert len(encoder.finish()) <= 50_000 * width / 8 * 1.002 + 8


# ---- the door --------------------------------------------------------------------------------------------------------


def test_arrays_of_any_integers_are_contexts():
    bins, ids, _ = mixed(1000, contexts=100)
    want = encoded([("bins", bins, ids)], 100)
    for dtype in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i4"):
        assert encoded([("bins", bins, ids.astype(dtype))], 100) == want
        decoder = coder.Decoder(np.frombuffer(want, np.uint8), 100)
        np.testing.assert_array_equal(decoder.decode(ids.astype(dtype).reshape(10, 100)), bins.reshape(10, 100))
    encoder = coder.Encoder(100)
    for one, context in zip(bins.tolist(), ids.tolist(), strict=True):
        encoder.encode(one, context)
    assert encoder.finish() == want
    decoder = coder.Decoder(want, 100)
    assert [decoder.decode(context) for context in ids.tolist()] == bins.tolist()


def test_calls_that_cannot_be_meant_are_refused_and_code_nothing():
    encoder = coder.Encoder(4)
    calls = [
        (lambda: encoder.encode([0, 1], [0, 1]), TypeError, "an array is needed"),
        (lambda: encoder.encode(np.array([0.5]), 0), TypeError, "bins of one byte"),
        (lambda: encoder.encode(np.array([2], np.uint8), 0), ValueError, "bins are 0 or 1"),
        (lambda: encoder.encode(2, 0), ValueError, "bin 2"),
        (lambda: encoder.encode(1, -1), ValueError, "context -1"),
        (lambda: encoder.encode(1, 4), ValueError, "context 4 and 0 behind it, 4 are there"),
        (lambda: encoder.encode(np.ones(2, np.uint8), -1), ValueError, "context -1"),
        (lambda: encoder.encode(np.ones(2, np.uint8), np.array([0, -1])), ValueError, "4 are there"),
        (lambda: encoder.encode(np.ones(2, np.uint8), np.array([0, -1], np.int8)), ValueError, "4 are there"),
        (lambda: encoder.encode(np.ones(2, np.uint8), np.array([0])), ValueError, "1 contexts for 2 values"),
        (lambda: encoder.encode(np.ones(2, np.uint8), np.array([0.0, 1.0])), TypeError, "integers are needed"),
        (lambda: encoder.encode_bypass([8], 3), ValueError, "a value of 4 bits, 3 are given"),
        (lambda: encoder.encode_bypass([-1], 3), ValueError, "values from -1"),
        (lambda: encoder.encode_bypass([1], 33), ValueError, "values of 33 bits"),
        (lambda: encoder.encode_bypass([1], 0), ValueError, "values of 0 bits"),
        (lambda: encoder.encode_bypass([1.5], 3), TypeError, "integers are needed"),
        (lambda: encoder.encode_exp_golomb([1 << 32], 0, span=1), ValueError, "values from 4294967296"),
        (lambda: encoder.encode_exp_golomb([1 << 31], 0, span=1, signed=True), ValueError, "values from 2147483648"),
        (lambda: encoder.encode_exp_golomb([1], 0, span=5), ValueError, "context 0 and 4 behind it"),
        (lambda: encoder.encode_exp_golomb([1], 3, span=2), ValueError, "context 3 and 1 behind it"),
        (lambda: encoder.encode_exp_golomb([1], 0, span=0), ValueError, "4 are there"),
        (lambda: encoder.encode_exp_golomb([1], 0, span=1, order=32), ValueError, "order 32"),
    ]
    for call, error, text in calls:
        with pytest.raises(error, match=text):
            call()
    assert encoder.finish() == coder.Encoder(1).finish() == b"\5\1"
    with pytest.raises(ValueError, match="has finished"):
        encoder.encode(1, 0)
    for bad in ({"rates": (1, 7)}, {"rates": (4, 13)}, {"start": [0.5]}, {"start": [0.0, 0.5]}, {"start": [1.0, 0.5]}):
        with pytest.raises(ValueError, match=r"rate of|probabilities"):
            coder.Encoder(2, **bad)
    for contexts in (0, (1 << 24) + 1):
        with pytest.raises(ValueError, match=r"1\.\.2\^24"):
            coder.Encoder(contexts)


def test_a_second_thread_is_turned_away():
    encoder = coder.Encoder(64)
    bins, ids, _ = mixed(2_000_000)
    refused = []

    def code():
        try:
            encoder.encode(bins, ids)
        except ValueError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=code) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("another thread" in text for text in refused)
    size, alone = len(encoder.finish()), len(encoded([("bins", bins, ids)], 64))
    assert abs(size - alone * (4 - len(refused))) < 0.01 * size  # whole calls or none


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_heads_and_ends_are_held_to_the_page(oracle):
    bins, ids, _ = mixed(3000)
    calls = [("bins", bins, ids)]
    data = encoded(calls, 64)
    for bad in (
        b"",
        b"\5",
        b"\6\1" + data[2:],
        b"\5\2" + data[2:],
        b"\5\1" + b"\xff" * 8,
        data + bytes(8),
    ):
        with pytest.raises((oracle.RefusedError, IndexError)):
            decoded_by_hand(oracle, bad, calls, 64)
        with pytest.raises(FormatError, match="range stream"):
            decoded(bad, calls, 64)


def test_damage_is_read_by_both_alike(oracle):
    calls = drawn_calls(17, 9) + drawn_calls(18, 9)
    data = encoded(calls, 9)
    changed = [data[:cut] for cut in range(2, len(data))]
    changed += [data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :] for i in range(2, len(data)) for bit in (0, 7)]
    outcomes = set()
    for bad in changed:
        try:
            want = decoded_by_hand(oracle, bad, calls, 9)
        except oracle.RefusedError:
            outcomes.add("refused")
            with pytest.raises(FormatError):
                decoded(bad, calls, 9)
        else:
            outcomes.add("read")
            for ours, theirs in zip(decoded(bad, calls, 9), want, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert outcomes == {"refused", "read"}


def test_more_than_was_coded_is_refused_in_bounded_work():
    data = encoded([("bits", [7], 3)], 1)
    decoder = coder.Decoder(data, 1)
    with pytest.raises(FormatError, match="more is needed"):
        decoder.decode_bypass(100_000, 32)
    with pytest.raises(FormatError, match="more is needed"):
        decoder.decode(0)


# ---- goldens ---------------------------------------------------------------------------------------------------------


def test_every_golden_is_told_of():
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(GOLDENS)


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_stay_readable(oracle, name):
    told = GOLDENS[name]
    data = (GOLDEN / f"{name}.bin").read_bytes()
    model = {"rates": tuple(told["rates"])}
    start = told["start"]
    exact = {"start": [int(value * 65536) for value in start]} if start else {}
    calls = []
    for kind, count, argument in told["calls"]:
        shaped = argument
        if kind == "bins":
            shaped = np.arange(count) * argument[0] % argument[1]
        elif kind == "numbers":
            shaped = (np.full(count, argument[0]), *argument[1:])
        calls.append((kind, np.zeros(count), shaped))
    for results in (
        decoded(data, calls, told["contexts"], **model, start=start),
        decoded_by_hand(oracle, data, calls, told["contexts"], **model, **exact),
    ):
        numbers = np.concatenate([np.asarray(result, np.int64) for result in results])
        assert hashlib.sha256(numbers.astype("<i8").tobytes()).hexdigest() == told["sha256"]


# ---- speed -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.environ.get("TERSOR_MEASURE"), reason="measures: TERSOR_MEASURE=1 pytest -s -k speed")
def test_speed():
    def best(call):
        times = []
        for _ in range(9):
            begin = time.perf_counter()
            result = call()
            times.append(time.perf_counter() - begin)
        return min(times), result

    count = 1 << 22
    for text, contexts in (("64 contexts at random", 64), ("one context", 1)):
        bins, ids, _ = mixed(count, contexts=contexts)
        ids = ids.astype(np.uint16)
        seconds, data = best(lambda: encoded([("bins", bins, ids)], contexts))  # noqa: B023
        back, _ = best(lambda: coder.Decoder(data, contexts).decode(ids))  # noqa: B023
        print(f"{text}: encode {count / seconds / 1e6:.0f}, decode {count / back / 1e6:.0f} M bins/s")
    for width in (1, 8, 32):
        values = np.random.default_rng(0).integers(0, 1 << width, count).astype(np.uint32)
        seconds, data = best(lambda: encoded([("bits", values, width)], 1))  # noqa: B023
        back, _ = best(lambda: coder.Decoder(data, 1).decode_bypass(count, width))  # noqa: B023
        bits = count * width / 1e6
        print(f"plain, {width} bits a value: encode {bits / seconds:.0f}, decode {bits / back:.0f} M bits/s")
    values = np.rint(np.random.default_rng(0).laplace(0, 4, count)).astype(np.int32)

    def numbers():
        encoder = coder.Encoder(16)
        encoder.encode_exp_golomb(values, 0, span=16, signed=True)
        return encoder.finish()

    seconds, data = best(numbers)
    back, _ = best(lambda: coder.Decoder(data, 16).decode_exp_golomb(count, 0, span=16, signed=True))
    print(f"Exp-Golomb, Laplace of 4: encode {count / seconds / 1e6:.0f}, decode {count / back / 1e6:.0f} M values/s")
    encoder = coder.Encoder(4)
    seconds, _ = best(lambda: [encoder.encode(1, 2) for _ in range(10_000)])
    decoder = coder.Decoder(encoder.finish(), 4)
    back, _ = best(lambda: [decoder.decode(2) for _ in range(10_000)])
    print(f"one bin a call: encode {seconds * 1e5:.0f}, decode {back * 1e5:.0f} ns")
