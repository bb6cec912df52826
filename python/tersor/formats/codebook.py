"""Weights as entries of a codebook: scalars, NF4 among them, and vectors in stages. Page: docs/formats/codebook.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tersor import _core
from tersor.formats.format import Format, Part, Parts, Shape, rows_of
from tersor.formats.grid_format import GridFormat, importance_of
from tersor.lossless import NUMPY_DTYPES, elements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

_SCALAR = re.compile(
    r"codebook(?P<levels>\d+)(?:-(?P<scope>tensor|channel|group))?(?:-g(?P<group>\d+))?"
    r"(?:-(?P<scale>bf16|fp32|none))?(?P<exact>-exact)?"
)
_VECTOR = re.compile(r"vq-d(?P<dimension>\d)-k(?P<entries>\d+)(?:-s(?P<stages>\d))?(?P<exact>-exact)?")


def _fitted(
    fmt: Format, weight: NDArray[Any], clip: str, seed: int, threads: int, codebook: object,
    importance: NDArray[np.float32] | None = None,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    rows, columns = weight.shape
    weighing = importance_of(importance, columns)
    found = elements_of(weight)
    parts = {name: np.zeros(part.shape, NUMPY_DTYPES[part.dtype]) for name, part in fmt.parts(rows, columns).items()}
    if codebook is not None:
        needed = parts.get("codebook")
        given = np.asarray(codebook, order="C")
        if needed is None or given.dtype != needed.dtype or given.shape != needed.shape:
            wanted = "none" if needed is None else f"{needed.dtype} {list(needed.shape)}"
            raise ValueError(f"the codebook is {given.dtype} {list(given.shape)}, {wanted} is needed")
        if not np.isfinite(given).all():
            raise ValueError("the codebook has entries that are not finite")
        parts["codebook"] = given
    _core.codebook_fit(
        fmt.to_dict(), found.dtype, rows, columns, found.address, found.nbytes, clip == "mse",
        0 if weighing is None else weighing.ctypes.data, codebook is not None, seed % 2**64, rows_of(parts), threads,
    )  # fmt: skip
    return parts


@dataclass(frozen=True, kw_only=True)
class ScalarCodebook(GridFormat):
    """A level a weight, from a table: w = scale * level[code] in float32.

    levels: 4..256. scope: "nf4" (the 16 levels of QLoRA, Dettmers et al., NeurIPS 2023; no table is stored), or a table
    that is learned and stored, one a "tensor", a "channel" (row) or a "group". group: columns that share a scale, and a
    table where the scope is "group": 16, 32, 64, 128, 256, "channel" or "tensor". scale: "fp32", "fp16", "bf16", or
    "none". storage: "fp16" or "fp32", of the table.
    """

    family: ClassVar[str] = "codebook"
    shareable: ClassVar[tuple[str, ...]] = ("codebook",)

    levels: int = 16
    scope: str = "tensor"
    group: int | str = "channel"
    scale: str = "fp16"
    storage: str = "fp16"

    def __str__(self) -> str:
        if self == type(self)(scope="nf4", group=64, scale="fp32", activations=self.activations):
            return {"int8": "nf4", "exact": "nf4-exact"}.get(self.activations, repr(self))
        group = {"channel": "", "tensor": None}.get(str(self.group), f"-g{self.group}")
        scale = "" if self.scale == "fp16" else f"-{self.scale}"
        if self.scope == "nf4" or self.storage != "fp16" or group is None or self.activations not in ("int8", "exact"):
            return repr(self)
        return f"codebook{self.levels}-{self.scope}{group}{scale}{'-exact' * (self.activations == 'exact')}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The format that "nf4" or "codebook16-channel-g64" names; None for other texts."""
        if text.lower() in ("nf4", "nf4-exact"):
            exact = text.lower().endswith("exact")
            return cls(scope="nf4", group=64, scale="fp32", activations="exact" if exact else "int8")
        if not (match := _SCALAR.fullmatch(text)):
            return None
        return cls(
            levels=int(match["levels"]),
            scope=match["scope"] or "tensor",
            group=int(match["group"]) if match["group"] else "channel",
            scale=match["scale"] or "fp16",
            activations="exact" if match["exact"] else "int8",
        )

    def encode(
        self, weight: NDArray[Any], *, clip: str, seed: int, threads: int,
        importance: NDArray[np.float32] | None = None, codebook: object = None,
    ) -> dict[str, NDArray[Any]]:  # fmt: skip
        """Learn the table (seeded), or take `codebook`, the part of another tensor, and round to the nearest level.

        Scales are the largest magnitudes; clip "mse" takes smaller ones where they leave less error, columns
        weighing as `importance` says. Raises ValueError.
        """
        return _fitted(self, weight, clip, seed, threads, codebook, importance)


@dataclass(frozen=True, kw_only=True)
class VectorCodebook(Format):
    """A code for every few neighboring columns: w = scale(n) * the sum of the stages' codewords in float32.

    dimension: columns of a vector, 2..8. entries: of a stage's codebook, 2..4096. stages: 1..4; each codes what those
    before it have left. The codebook is fp16 [stages, entries, dimension], and tensors may share one; scales are fp16,
    one a row.
    """

    family: ClassVar[str] = "vector_codebook"
    shareable: ClassVar[tuple[str, ...]] = ("codebook",)

    dimension: int = 8
    entries: int = 256
    stages: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.parts(1, 1)  # the core knows the ranges

    def __str__(self) -> str:
        if self.activations not in ("int8", "exact"):
            return repr(self)
        exact = "-exact" * (self.activations == "exact")
        return f"vq-d{self.dimension}-k{self.entries}-s{self.stages}{exact}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The format that "vq-d8-k256-s2" names; None for other texts."""
        if not (match := _VECTOR.fullmatch(text)):
            return None
        return cls(
            dimension=int(match["dimension"]),
            entries=int(match["entries"]),
            stages=int(match["stages"] or 1),
            activations="exact" if match["exact"] else "int8",
        )

    @property
    def bits(self) -> int:
        """Of a code."""
        return (self.entries - 1).bit_length()

    def parts(self, rows: int, columns: int) -> dict[str, Part]:
        """What the parts of a matrix [rows, columns] are, by name. Raises ValueError (a size of 0)."""
        needs = _core.stored_parts(self.to_dict(), rows, columns, 0)
        return {name: Part(dtype, tuple(shape)) for name, dtype, shape in needs}

    def encode(
        self, weight: NDArray[Any], *, clip: str, seed: int, threads: int, codebook: object = None
    ) -> dict[str, NDArray[Any]]:
        """Learn a codebook a stage (seeded), or take `codebook`, another tensor's part, and find the nearest entries.

        Scales are the rows' root mean squares; clip "mse" refits them to the chosen entries. Raises ValueError.
        """
        return _fitted(self, weight, clip, seed, threads, codebook)

    def check(self, parts: Parts, shape: Shape, *, threads: int = 0) -> None:
        """Raise FormatError unless the parts' dtypes, shapes and values are those of a matrix of this shape."""
        _core.stored_dequantize(self.to_dict(), *shape, rows_of(parts), 0, 0, 0, threads)

    def decode(self, parts: Parts, shape: Shape, out: NDArray[Any], *, first: int = 0, threads: int = 0) -> None:
        """Dequantize rows from `first` on into out: [rows, K] float32, row-major."""
        decode_stored(self, parts, shape, out, first, threads)

    def symbols(self, parts: Parts, shape: Shape, *, threads: int = 0) -> dict[str, NDArray[Any]]:
        """The parts with a code an element: [stages, N, vectors] of uint8, or uint16 where codes have over 8 bits."""
        codes = unpack_wide(parts["codes"], self.bits, self._codes_shape(shape), threads)
        return {**parts, "codes": codes}

    def packed(self, parts: Parts, shape: Shape, *, threads: int = 0) -> dict[str, NDArray[Any]]:
        """The parts with their codes packed again. Raises FormatError (codes out of range or of another shape)."""
        codes = pack_wide(parts["codes"], self.bits, self.entries, self._codes_shape(shape), threads)
        return {**parts, "codes": codes}

    def _codes_shape(self, shape: Shape) -> tuple[int, int, int]:
        return self.stages, shape[0], -(-shape[1] // self.dimension)


def decode_stored(fmt: Format, parts: Parts, shape: Shape, out: NDArray[Any], first: int, threads: int) -> None:
    """Rows from `first` on of a format that is no grid into out: [rows, K] float32, row-major. Raises ValueError."""
    target = elements_of(out, writable=True)
    if target.dtype != "F32" or len(target.shape) != 2 or target.shape[1] != shape[1]:
        raise ValueError(f"out is {target.dtype} {list(target.shape)}, F32 [rows, {shape[1]}] is needed")
    _core.stored_dequantize(fmt.to_dict(), *shape, rows_of(parts), first, target.shape[0], target.address, threads)


def unpack_wide(packed: NDArray[Any], bits: int, shape: tuple[int, ...], threads: int) -> NDArray[Any]:
    """Rows of packed codes, [..., row bytes] uint8, as an element a code: uint8 up to 8 bits, else uint16."""
    out = np.empty(shape, np.uint16)
    source = elements_of(packed)
    _core.wide_rows_unpack(
        source.address, source.nbytes, bits, out.size // shape[-1], shape[-1], out.ctypes.data, threads
    )
    return out.astype(np.uint8) if bits <= 8 else out


def pack_wide(codes: NDArray[Any], bits: int, limit: int, shape: tuple[int, ...], threads: int) -> NDArray[np.uint8]:
    """What unpack_wide was given. Raises FormatError (another dtype or shape, a code that is not below limit)."""
    found, wanted = elements_of(codes), "U8" if bits <= 8 else "U16"
    if found.dtype != wanted or found.shape != tuple(shape):
        raise _core.FormatError(f"codes are {found.dtype} {list(found.shape)}, {wanted} {list(shape)} is needed")
    wide = np.ascontiguousarray(codes, np.uint16)
    packed = np.empty((*shape[:-1], -(-shape[-1] * bits // 8)), np.uint8)
    _core.wide_rows_pack(
        wide.ctypes.data, bits, limit, wide.size // shape[-1], shape[-1], packed.ctypes.data, packed.nbytes, threads
    )
    return packed


def codebook(
    levels: int = 16,
    scope: str = "tensor",
    group: int | str = "channel",
    scale: str = "fp16",
    storage: str = "fp16",
    activations: str = "int8",
) -> ScalarCodebook:
    """Make a ScalarCodebook, whose docstring says what the numbers are. Raises ValueError."""
    return ScalarCodebook(
        levels=levels, scope=scope, group=group, scale=scale, storage=storage, activations=activations
    )


def vector_codebook(
    dimension: int = 8, entries: int = 256, stages: int = 1, activations: str = "int8"
) -> VectorCodebook:
    """Make a VectorCodebook, whose docstring says what the numbers are. Raises ValueError."""
    return VectorCodebook(dimension=dimension, entries=entries, stages=stages, activations=activations)
