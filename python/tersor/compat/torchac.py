"""torchac's functions (0.9.3) on the indexed stream: same arguments, streams of its own.

import tersor.compat.torchac as torchac  # was: import torchac

Nothing is compiled at import. The bytes are not torchac's: what one has coded the other cannot read; ours know how many
symbols they hold and tell damage, which costs some bytes a stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tersor import _core

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["decode_float_cdf", "decode_int16_normalized_cdf", "encode_float_cdf", "encode_int16_normalized_cdf"]

PRECISION = 16


def encode_float_cdf(
    cdf_float: Tensor, sym: Tensor, needs_normalization: bool = True, check_input_bounds: bool = False
) -> bytes:
    """Code symbols, each by its own cumulative distribution of floats.

    cdf_float: [..., L + 1] float32 on the CPU, from 0 to 1. sym: [...] int16 in 0..L - 1. needs_normalization: make
    room for a slot for each symbol; without it, every symbol that comes must have one already. check_input_bounds:
    raise ValueError for values outside 0..1 and symbols beyond L - 1.
    Floats are rounded to slots here, in float32, as torchac does it and with its result. So both sides need the same
    floats to the last bit: a network that computes them on two kinds of machine does not give them. Integers do:
    encode_int16_normalized_cdf, or tersor.entropy.TableSet with indexes.
    Raises ValueError as encode_int16_normalized_cdf does. Source: Mentzer et al., arXiv:1811.12817 (L3C).
    """
    if check_input_bounds:
        low, high, last = float(cdf_float.min()), float(cdf_float.max()), int(sym.max())
        if low < 0 or high > 1:
            raise ValueError(f"cdf_float goes from {low} to {high}, 0 to 1 is needed")
        if last >= cdf_float.shape[-1] - 1:
            raise ValueError(f"the greatest symbol is {last}, a cdf has {cdf_float.shape[-1] - 1}")
    return encode_int16_normalized_cdf(_to_slots(cdf_float, needs_normalization), sym)


def decode_float_cdf(cdf_float: Tensor, byte_stream: bytes, needs_normalization: bool = True) -> Tensor:
    """Give back what encode_float_cdf was given: [...] int16.

    cdf_float, needs_normalization: as they were given there, to the last bit. Raises as decode_int16_normalized_cdf.
    """
    return decode_int16_normalized_cdf(_to_slots(cdf_float, needs_normalization), byte_stream)


def encode_int16_normalized_cdf(cdf_int: Tensor, sym: Tensor) -> bytes:
    """Code symbols, each by its own cumulative frequencies in 2**16 slots.

    cdf_int: [..., L + 1] int16 on the CPU that holds the bits of uint16: rising from 0; the last value counts as 2**16
    whatever it holds. L is 1..32768. sym: [...] int16 in 0..L - 1. A symbol that has all slots costs nothing.
    Returns the stream, without the cdfs. Raises ValueError (shapes, dtypes, a device that is not the CPU, a symbol
    beyond L - 1 or without a slot).
    """
    _check(cdf_int)
    if sym.device.type != "cpu" or sym.dtype != torch.int16:
        raise ValueError(f"symbols are int16 on the CPU, not {sym.dtype} on {sym.device}")
    if cdf_int.shape[:-1] != sym.shape:
        found = tuple(cdf_int.shape)
        raise ValueError(f"cdf has shape {found}, symbols {tuple(sym.shape)}: all but the last are needed")
    cdfs, symbols = cdf_int.contiguous(), sym.contiguous()
    encoder = _core.IndexedEncoder()
    encoder.write_cdfs(cdfs.data_ptr(), cdfs.shape[-1], symbols.data_ptr(), symbols.numel())
    return encoder.finish(0)


def decode_int16_normalized_cdf(cdf_int: Tensor, byte_stream: bytes) -> Tensor:
    """Give back what encode_int16_normalized_cdf was given: [...] int16.

    cdf_int: as it was given there. Raises ValueError (shapes, dtypes, a cdf that does not rise from 0, a stream of
    another number of symbols), FormatError (a damaged stream, or other cdfs).
    """
    _check(cdf_int)
    cdfs = cdf_int.contiguous()
    symbols = torch.empty(cdfs.shape[:-1], dtype=torch.int16)
    decoder = _core.IndexedDecoder(byte_stream if isinstance(byte_stream, bytes) else bytes(memoryview(byte_stream)))
    if decoder.symbols != symbols.numel():
        raise ValueError(f"the stream holds {decoder.symbols} symbols, the cdfs are {symbols.numel()}")
    decoder.read_cdfs(cdfs.data_ptr(), cdfs.shape[-1], symbols.data_ptr(), symbols.numel())
    return symbols


def _check(cdf: Tensor) -> None:
    if cdf.device.type != "cpu":
        raise ValueError(f"the cdf must be on the CPU, it is on {cdf.device}")
    if cdf.dtype != torch.int16:
        raise ValueError(f"the cdf holds int16, not {cdf.dtype}")
    if cdf.dim() == 0 or cdf.shape[-1] < 2:
        raise ValueError(f"the cdf has shape {tuple(cdf.shape)}, the last dimension is symbols and one more")


def _to_slots(cdf: Tensor, needs_normalization: bool) -> Tensor:
    """Cumulative frequencies as int16. The roundings are torchac's, in its order: a float32 product, the nearest."""
    length = cdf.shape[-1]
    slots = torch.tensor(
        2.0**PRECISION - (length - 1 if needs_normalization else 0), dtype=torch.float32, device=cdf.device
    )
    rounded = cdf.mul(slots).round().to(torch.int16)
    if needs_normalization:  # a slot for each symbol
        rounded.add_(torch.arange(length, dtype=torch.int16, device=cdf.device))
    return rounded
