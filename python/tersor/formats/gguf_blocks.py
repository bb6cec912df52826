"""Blocks of GGUF files to quantized matrices and back, bit for bit. Page: docs/formats/int_group.md, section GGUF.

q = gguf_blocks.from_blocks(blocks, "Q4_K")               # blocks: [N, bytes of a row] uint8
assert (gguf_blocks.to_blocks(q) == blocks).all()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tersor.formats.format import parse
from tersor.formats.int_group import IntGroup
from tersor.formats.quantized import QuantizedTensor
from tersor.lossless import elements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

_SUPERS = 8  # groups of a Q4_K or Q5_K block


class _Type(NamedTuple):
    alias: str
    weights: int  # of a block
    nbytes: int


_TYPES = {
    "Q4_0": _Type("q4_0", 32, 18),
    "Q4_1": _Type("q4_1", 32, 20),
    "Q8_0": _Type("q8_0", 32, 34),
    "Q4_K": _Type("q4_k", 256, 144),
    "Q5_0": _Type("int5-g32", 32, 22),
    "Q5_1": _Type("int5-g32-minimum", 32, 24),
    "Q5_K": _Type("q5_k", 256, 176),
    "Q6_K": _Type("int6-g16-fp32", 256, 210),  # its scales, int8 times fp16, multiplied out
}
KINDS = tuple(_TYPES)
_WRITTEN = ("Q4_0", "Q4_1", "Q8_0", "Q4_K")


def from_blocks(blocks: object, kind: str, *, dtype: str = "F32") -> QuantizedTensor:
    """Take the blocks of a matrix apart.

    blocks: uint8 [N, blocks a row * bytes a block], as the gguf package has them. kind: one of KINDS. dtype: of the
    value, "F32", "F16" or "BF16". What is dequantized equals what ggml computes, bit for bit.
    Raises ValueError (kind, shape), TypeError (no uint8), FormatError (a scale that is not finite).
    """
    chosen = _type_of(kind)
    found = elements_of(blocks)
    if found.dtype != "U8":
        raise TypeError(f"blocks are U8, not {found.dtype}")
    if len(found.shape) != 2 or 0 in found.shape or found.shape[1] % chosen.nbytes:
        raise ValueError(f"blocks of {kind} are [N, a multiple of {chosen.nbytes}] bytes, not {list(found.shape)}")
    rows, count = found.shape[0], found.shape[1] // chosen.nbytes
    array: Bytes = np.asarray(blocks, np.uint8).reshape(rows, count, chosen.nbytes)
    parts: dict[str, NDArray[Any]] = {}
    if kind == "Q4_K":
        scales, minimums = _six_bits(array[..., 4:16])
        parts = {
            "codes": _nibbles_in_order(array[..., 16:], 32),
            "scales": scales.reshape(rows, -1),
            "super_scales": _halves(array[..., :2]),
            "minimums": minimums.reshape(rows, -1),
            "super_minimums": _negated(_halves(array[..., 2:4])),  # ggml subtracts them
        }
    elif kind in ("Q5_0", "Q5_1", "Q5_K", "Q6_K"):
        return _from_wide(array, kind, dtype)
    elif kind == "Q8_0":
        parts = {"codes": (array[..., 2:] ^ 0x80).reshape(rows, -1), "scales": _halves(array[..., :2])}
    else:
        at = 2 if kind == "Q4_0" else 4
        parts = {"codes": _nibbles_in_order(array[..., at:], 16), "scales": _halves(array[..., :2])}
        if kind == "Q4_1":
            parts["minimums"] = _halves(array[..., 2:4])
    return QuantizedTensor(format=parse(chosen.alias), shape=(rows, count * chosen.weights), dtype=dtype, parts=parts)


def to_blocks(tensor: QuantizedTensor) -> Bytes:
    """Put a matrix into blocks: uint8 [N, blocks a row * bytes a block], which the gguf package writes and reads.

    tensor: in the format "q4_0", "q4_1", "q8_0" or "q4_k", K a multiple of the block (32, for Q4_K 256), without
    transforms and side terms. Raises ValueError for others.
    """
    kind = kind_of(tensor)
    chosen = _TYPES[kind]
    rows, columns = tensor.shape
    if columns % chosen.weights:
        raise ValueError(f"a row of {kind} is a multiple of {chosen.weights} weights, not {columns}")
    if tensor.transforms or tensor.side_terms:
        raise ValueError("GGUF has no place for transforms and side terms")
    parts, count = tensor.parts, columns // chosen.weights
    scales = _bytes_of(parts["super_scales" if kind == "Q4_K" else "scales"])
    pieces = [scales]
    if kind == "Q4_K":
        small = [parts[name].reshape(rows, count, _SUPERS) for name in ("scales", "minimums")]
        nibbles = _nibbles_apart(parts["codes"], count * 4, 32).reshape(rows, count, -1)
        pieces += [_bytes_of(_negated(parts["super_minimums"])), _packed_six_bits(*small), nibbles]
    elif kind == "Q8_0":
        pieces.append(parts["codes"].reshape(rows, count, -1) ^ np.uint8(0x80))
    else:
        pieces += [_bytes_of(parts["minimums"])] if kind == "Q4_1" else []
        pieces.append(_nibbles_apart(parts["codes"], count, 16))
    return np.concatenate(pieces, axis=-1).reshape(rows, -1)


def kind_of(tensor: QuantizedTensor) -> str:
    """The GGUF type that holds such a matrix. Raises ValueError."""
    for kind in _WRITTEN:
        one = parse(_TYPES[kind].alias)
        if isinstance(tensor.format, IntGroup) and isinstance(one, IntGroup):
            mine, theirs = ((fmt.bits, fmt.group, fmt.mode, fmt.scale) for fmt in (tensor.format, one))
            if mine == theirs:
                return kind
    raise ValueError(f"no GGUF type that is known here holds {tensor.format}")


def _from_wide(array: Bytes, kind: str, dtype: str) -> QuantizedTensor:
    """Blocks of 5 and 6 bits, whose upper bits stand apart: [N, blocks, bytes of a block]."""
    rows, count, _ = array.shape
    chosen = _TYPES[kind]
    codes: NDArray[Any]
    if kind == "Q6_K":
        low = array[..., :128].reshape(rows, count, 2, 2, 32)
        high = array[..., 128:192].reshape(rows, count, 2, 1, 32)
        quarters = [(low[..., i % 2, :] >> (i // 2 * 4) & 15) | (high[..., 0, :] >> 2 * i & 3) << 4 for i in range(4)]
        codes = np.stack(quarters, axis=-2)
        factors = array[..., 192:208].view(np.int8).astype(np.float32)
        parts: dict[str, NDArray[Any]] = {
            "scales": (_halves(array[..., 208:])[..., None].astype(np.float32) * factors).reshape(rows, -1)
        }
    elif kind == "Q5_K":
        scales, minimums = _six_bits(array[..., 4:16])
        pairs = array[..., 48:].reshape(rows, count, 4, 1, 32)
        fifth = array[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
        codes = np.concatenate([pairs & 15, pairs >> 4], axis=-2) | fifth.reshape(rows, count, 4, 2, 32) << 4
        parts = {
            "scales": scales.reshape(rows, -1),
            "super_scales": _halves(array[..., :2]),
            "minimums": minimums.reshape(rows, -1),
            "super_minimums": _negated(_halves(array[..., 2:4])),
        }
    else:
        at = 2 if kind == "Q5_0" else 4
        bits = np.unpackbits(array[..., at : at + 4], axis=-1, bitorder="little")
        pairs = array[..., at + 4 :]
        codes = np.concatenate([pairs & 15, pairs >> 4], axis=-1) | bits << 4
        parts = {"scales": _halves(array[..., :2])}
        if kind == "Q5_1":
            parts["minimums"] = _halves(array[..., 2:4])
    fmt, shape = parse(chosen.alias), (rows, count * chosen.weights)
    parts = fmt.packed({**parts, "codes": np.ascontiguousarray(codes.reshape(shape))}, shape)
    return QuantizedTensor(format=fmt, shape=shape, dtype=dtype, parts=parts)


def _type_of(kind: str) -> _Type:
    if kind not in _TYPES:
        raise ValueError(f"types of GGUF are {', '.join(_TYPES)} here, not {kind!r}")
    return _TYPES[kind]


def _halves(array: Bytes) -> NDArray[np.float16]:
    """[N, blocks, 2] bytes -> [N, blocks]."""
    return np.ascontiguousarray(array).view(np.float16)[..., 0]


def _bytes_of(numbers: NDArray[Any]) -> Bytes:
    """[N, blocks] halves -> [N, blocks, 2]."""
    return np.ascontiguousarray(numbers).view(np.uint8).reshape(*numbers.shape, 2)


def _negated(numbers: NDArray[np.float16]) -> NDArray[np.float16]:
    return (np.ascontiguousarray(numbers).view(np.uint16) ^ np.uint16(0x8000)).view(np.float16)


def _nibbles_in_order(array: Bytes, run: int) -> Bytes:
    """ggml has weights i and i + run of 2 * run in a byte; ours has neighbors. [N, blocks, bytes] -> [N, bytes]."""
    pairs = array.reshape(len(array), -1, run)
    codes = np.stack([pairs & 15, pairs >> 4], axis=-2).reshape(len(array), -1, 2)
    packed: Bytes = codes[..., 0] | codes[..., 1] << 4
    return packed


def _nibbles_apart(codes: Bytes, runs: int, run: int) -> Bytes:
    """The inverse: [N, bytes] -> [N, runs, run]."""
    apart = np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(codes), runs, 2, run)
    packed: Bytes = apart[..., 0, :] | apart[..., 1, :] << 4
    return packed


def _six_bits(array: Bytes) -> tuple[Bytes, Bytes]:
    """Scales and minimums of 6 bits: [N, blocks, 12] -> twice [N, blocks, 8].

    Bytes 0..3 and 4..7 hold the first four of each in their low six bits; 8..11 the low four bits of the others, whose
    top two bits stand on top of the former.
    """
    first, second, low = array[..., :4], array[..., 4:8], array[..., 8:]
    scales = np.concatenate([first & 63, low & 15 | first >> 2 & 48], axis=-1)
    minimums = np.concatenate([second & 63, low >> 4 | second >> 2 & 48], axis=-1)
    return scales, minimums


def _packed_six_bits(scales: Bytes, minimums: Bytes) -> Bytes:
    top = np.uint8(48)
    return np.concatenate(
        [
            scales[..., :4] | (scales[..., 4:] & top) << 2,
            minimums[..., :4] | (minimums[..., 4:] & top) << 2,
            scales[..., 4:] & 15 | (minimums[..., 4:] & 15) << 4,
        ],
        axis=-1,
    )
