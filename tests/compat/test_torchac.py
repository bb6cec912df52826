"""torchac's functions on ours: round trips, cdfs of every kind, errors; beside torchac where it compiles."""

import numpy as np
import pytest
import torch

import tersor
from tersor.compat import torchac


def floats(shape, length, seed=0):
    """Cumulative distributions [*shape, length] and symbols that come from them."""
    generator = torch.Generator().manual_seed(seed)
    mass = torch.rand((*shape, length - 1), generator=generator) ** 4 + 1e-9
    cdf = torch.cat([torch.zeros(*shape, 1), (mass / mass.sum(-1, keepdim=True)).cumsum(-1)], -1).clamp(0, 1)
    cdf[..., -1] = 1
    at = torch.rand((*shape, 1), generator=generator)
    return cdf, ((cdf[..., 1:-1] <= at).sum(-1)).to(torch.int16)


SHAPES = [((), 4), ((1,), 2), ((0, 3), 5), ((7,), 3), ((2, 3, 5, 7), 26), ((300, 70), 257), ((40,), 4097)]


@pytest.mark.parametrize(("shape", "length"), SHAPES)
def test_floats(shape, length):
    cdf, symbols = floats(shape, length)
    stream = torchac.encode_float_cdf(cdf, symbols, check_input_bounds=symbols.numel() > 0)
    assert isinstance(stream, bytes)
    back = torchac.decode_float_cdf(cdf, stream)
    assert back.dtype == torch.int16
    assert torch.equal(back, symbols)


def test_cost():
    """A symbol costs its information: what remains are the head and the states at the end."""
    cdf, symbols = floats((200, 100), 40)
    slots = torchac._to_slots(cdf, True).to(torch.int64) & 0xFFFF
    slots[..., -1] = 65536
    at = symbols.to(torch.int64).unsqueeze(-1)
    share = (slots.gather(-1, at + 1) - slots.gather(-1, at)).double() / 65536
    ideal = -share.log2().sum().item() / 8
    assert ideal < len(torchac.encode_float_cdf(cdf, symbols)) < ideal + 80


def test_integers_rise_as_unsigned_ones():
    cdf = torch.tensor([[0, 30000, -30000, 0]] * 3, dtype=torch.int16)  # 0, 30000, 35536, 65536
    symbols = torch.tensor([2, 0, 1], dtype=torch.int16)
    assert torch.equal(torchac.decode_int16_normalized_cdf(cdf, torchac.encode_int16_normalized_cdf(cdf, symbols)), symbols)


def test_strides():
    cdf, symbols = floats((6, 5, 4), 9)
    turned, turned_symbols = cdf.permute(2, 0, 1, 3), symbols.permute(2, 0, 1)
    stream = torchac.encode_float_cdf(turned, turned_symbols)
    assert torch.equal(torchac.decode_float_cdf(turned, stream), turned_symbols)
    ints = torchac._to_slots(cdf, True)
    wide = torch.cat([ints, ints], -1)[..., :9]
    assert torchac.encode_int16_normalized_cdf(wide, symbols) == torchac.encode_int16_normalized_cdf(ints, symbols)


def test_a_symbol_with_all_slots():
    only = torch.zeros(50_000, 2, dtype=torch.int16)
    none = torch.zeros(50_000, dtype=torch.int16)
    stream = torchac.encode_int16_normalized_cdf(only, none)
    assert len(stream) < 16
    assert torch.equal(torchac.decode_int16_normalized_cdf(only, stream), none)
    mixed = torch.tensor([[0, 0, 0], [0, 20000, 0], [0, 1, 0], [0, -1, 0]], dtype=torch.int16)
    for symbols in ([1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 1]):
        sym = torch.tensor(symbols, dtype=torch.int16)
        assert torch.equal(torchac.decode_int16_normalized_cdf(mixed, torchac.encode_int16_normalized_cdf(mixed, sym)), sym)
    with pytest.raises(ValueError, match="symbol 0 is 0, which has no slot"):
        torchac.encode_int16_normalized_cdf(mixed, torch.zeros(4, dtype=torch.int16))


def test_without_normalization():
    cdf, symbols = floats((3000,), 5)
    exact = (cdf * 256).round() / 256 * (1 - 5 / 256) + torch.arange(5) / 256  # multiples of a slot, all rising
    exact[:, -1] = 1
    stream = torchac.encode_float_cdf(exact, symbols, needs_normalization=False)
    assert torch.equal(torchac.decode_float_cdf(exact, stream, needs_normalization=False), symbols)


CDF, SYMBOLS = floats((4, 3), 6)
INTS = torchac._to_slots(CDF, True)


@pytest.mark.parametrize(
    ("cdf", "symbols", "says"),
    [
        (INTS, SYMBOLS[:3], r"cdf has shape \(4, 3, 6\), symbols \(3, 3\)"),
        (INTS, SYMBOLS.reshape(-1), "cdf has shape"),
        (INTS.int(), SYMBOLS, "int16, not torch.int32"),
        (INTS, SYMBOLS.int(), "symbols are int16"),
        (INTS, SYMBOLS + 9, "its cdf has 5"),
        (INTS, SYMBOLS - 9, "its cdf has 5"),
        (INTS[..., :1], SYMBOLS, "the last dimension is symbols and one more"),
        (torch.empty(4, 3, 6, dtype=torch.int16, device="meta"), SYMBOLS, "on the CPU"),
        (torch.zeros(1, 40_000, dtype=torch.int16), torch.zeros(1, dtype=torch.int16), "cdfs of 40000"),
    ],
)
def test_bad_arguments(cdf, symbols, says):
    with pytest.raises(ValueError, match=says):
        torchac.encode_int16_normalized_cdf(cdf, symbols)


def test_bounds_are_checked_when_asked():
    for bad, symbols, says in ((CDF - 0.1, SYMBOLS, "goes from -0.1"), (CDF + 0.1, SYMBOLS, "to 1.1"), (CDF, SYMBOLS + 9, "has 5")):
        with pytest.raises(ValueError, match=says):
            torchac.encode_float_cdf(bad, symbols, check_input_bounds=True)


def test_bad_streams():
    stream = torchac.encode_int16_normalized_cdf(INTS, SYMBOLS)
    for end in range(len(stream)):
        with pytest.raises(tersor.FormatError):
            torchac.decode_int16_normalized_cdf(INTS, stream[:end])
    for byte in range(len(stream)):
        for bit in range(8):
            bad = bytearray(stream)
            bad[byte] ^= 1 << bit
            try:
                assert torchac.decode_int16_normalized_cdf(INTS, bytes(bad)).shape == SYMBOLS.shape
            except (tersor.FormatError, ValueError):
                continue
    with pytest.raises(ValueError, match="holds 12 symbols, the cdfs are 9"):
        torchac.decode_int16_normalized_cdf(INTS[:3], stream)
    falling = torch.tensor([0, 9, 4, 3, 2, 0], dtype=torch.int16).expand(4, 3, 6)
    with pytest.raises(ValueError, match="rise|begins with|ends? "):
        torchac.decode_int16_normalized_cdf(falling, stream)
    with pytest.raises(TypeError):
        torchac.decode_int16_normalized_cdf(INTS, 5)


@pytest.mark.parametrize(("shape", "length"), SHAPES[3:])
def test_the_same_as_torchac(theirs_torchac, shape, length):
    cdf, symbols = floats(shape, length, seed=1)
    for needs in (True, False):
        assert torch.equal(torchac._to_slots(cdf, needs), theirs_torchac._convert_to_int_and_normalize(cdf, needs))
    want = theirs_torchac.decode_float_cdf(cdf, theirs_torchac.encode_float_cdf(cdf, symbols))
    got = torchac.decode_float_cdf(cdf, torchac.encode_float_cdf(cdf, symbols))
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert torch.equal(got, want)
    assert torch.equal(want, symbols)


def test_a_symbol_with_all_slots_is_what_torchac_takes(theirs_torchac):
    cdf, symbols = torch.tensor([[0.0, 1.0]] * 9), torch.zeros(9, dtype=torch.int16)
    assert torch.equal(theirs_torchac.decode_float_cdf(cdf, theirs_torchac.encode_float_cdf(cdf, symbols)), symbols)
    assert torch.equal(torchac.decode_float_cdf(cdf, torchac.encode_float_cdf(cdf, symbols)), symbols)
    assert np.array_equal(torchac._to_slots(cdf, True), np.zeros((9, 2)))
