"""What a storage format is: frozen numbers, named parts, and the table of families. Page: docs/formats/quantized.md."""

from __future__ import annotations

import abc
import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

from tersor.lossless import elements_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

Shape: TypeAlias = "tuple[int, int]"  # rows N, columns K
Parts: TypeAlias = "Mapping[str, NDArray[Any]]"

ACTIVATIONS = ("int8", "int8-g128", "int8-outlier", "exact")

# A family is a class of a module: one row. It is imported when a format of it is first asked for.
FAMILIES = {
    "int_group": "tersor.formats.int_group:IntGroup",
    "float_group": "tersor.formats.float_group:FloatGroup",
    "codebook": "tersor.formats.codebook:ScalarCodebook",
    "vector_codebook": "tersor.formats.codebook:VectorCodebook",
    "sparse": "tersor.formats.sparse:Sparse",
}


class Part(NamedTuple):
    """What a part of a quantized matrix must be: a dtype by safetensors' name, and a shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Format(abc.ABC):
    """A storage format: numbers that say how parts are laid out and dequantized.

    activations: how `tersor.linear` reads x against it unless told otherwise: "int8" (8-bit integers, a scale a row of
    x), "int8-g128", "int8-outlier" or "exact" (weights decoded to floats).
    A family gives: `family`, `parts`, `encode`, `check`, `decode`, `parse`, and `symbols` with `packed` where its codes
    lie packed. Raises ValueError for numbers that it does not know.
    """

    family: ClassVar[str]
    shareable: ClassVar[tuple[str, ...]] = ()  # parts that a file holds once where several tensors have the same

    activations: str = "int8"

    def __post_init__(self) -> None:
        if self.activations not in ACTIVATIONS:
            raise ValueError(f"activations are {', '.join(ACTIVATIONS)}, not {self.activations!r}")

    @classmethod
    @abc.abstractmethod
    def parse(cls, text: str) -> Self | None:
        """The format that an alias names; None for an alias of another family."""

    @abc.abstractmethod
    def parts(self, rows: int, columns: int) -> dict[str, Part]:
        """What the parts of a matrix [rows, columns] are, by name."""

    @abc.abstractmethod
    def encode(self, weight: NDArray[Any], *, clip: str, seed: int, threads: int) -> dict[str, NDArray[Any]]:
        """Choose the parts of weight: [N, K], fp32, fp16 or bf16, row-major. clip: "none" or "mse"."""

    @abc.abstractmethod
    def check(self, parts: Parts, shape: Shape, *, threads: int = 0) -> None:
        """Raise FormatError unless the parts' dtypes, shapes and values are those of a matrix of this shape."""

    @abc.abstractmethod
    def decode(self, parts: Parts, shape: Shape, out: NDArray[Any], *, first: int = 0, threads: int = 0) -> None:
        """Dequantize rows first, first + 1, ... into out: [any number of rows, K] float32, row-major."""

    def symbols(self, parts: Parts, shape: Shape, *, threads: int = 0) -> dict[str, NDArray[Any]]:
        """The parts as .tsr stores them: codes a byte each, which its coder then makes small."""
        return dict(parts)

    def packed(self, parts: Parts, shape: Shape, *, threads: int = 0) -> dict[str, NDArray[Any]]:
        """What `symbols` was given. Raises FormatError."""
        return dict(parts)

    def to_dict(self) -> dict[str, Any]:
        """The family and every number, fit for JSON."""
        return {"family": self.family, **dataclasses.asdict(self)}


def family_of(name: str) -> type[Format]:
    """The class of a family. Raises ValueError."""
    if name not in FAMILIES:
        raise ValueError(f"families are {', '.join(FAMILIES)}, not {name!r}")
    module, _, attribute = FAMILIES[name].partition(":")
    found: type[Format] = getattr(importlib.import_module(module), attribute)
    return found


def from_dict(numbers: Mapping[str, Any]) -> Format:
    """The format of which to_dict returned `numbers`. Raises ValueError."""
    if not isinstance(numbers, Mapping) or not isinstance(numbers.get("family"), str):
        raise ValueError(f"a format is a mapping that names its family, not {numbers!r}")
    family = family_of(numbers["family"])
    fields = {field.name for field in dataclasses.fields(family)}
    if set(numbers) - {"family"} != fields:
        raise ValueError(f"the numbers of {family.family} are {sorted(fields)}, not {sorted(numbers)}")
    try:
        return family(**{name: numbers[name] for name in fields})
    except TypeError as error:  # a member that is no number or text at all
        raise ValueError(f"{family.family}: {error}") from None


def parse(text: str | Format) -> Format:
    """The format that an alias names, "int4-g128" for example; a Format is returned as it is. Raises ValueError."""
    if isinstance(text, Format):
        return text
    if not isinstance(text, str):
        raise TypeError(f"a Format or its alias is needed, found {type(text).__name__}")
    for name in FAMILIES:
        if found := family_of(name).parse(text):
            return found
    raise ValueError(
        f'no format is named {text!r}: aliases are as "int4-g128", "int8", "ternary", "W4A16", "mxfp4", "nvfp4", '
        '"fp8-e4m3", "nf4", "vq-d8-k256-s2", "bitmap-50-int8", "2:4"'
    )


def rows_of(parts: Parts) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """Parts as the core takes them; they must outlive the call. Raises TypeError (no array), ValueError (strided)."""
    rows = []
    for name, array in parts.items():
        found = elements_of(array)
        if found.owner is not array:  # a copy, which dies here
            raise ValueError(f"part {name} is not row-major and of this machine's byte order")
        rows.append((name, found.dtype, found.shape, found.address, found.nbytes))
    return rows
