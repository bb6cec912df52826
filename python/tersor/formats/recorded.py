"""Transforms and side terms that are stored with a quantized matrix: their protocol and their kinds."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A kind is a class of a module: one row.
TRANSFORMS = {
    "hadamard": "tersor.formats.transforms:Hadamard",
    "channel_scales": "tersor.formats.transforms:ChannelScales",
    "permutation": "tersor.formats.transforms:Permutation",
}
SIDE_TERMS = {
    "outliers": "tersor.formats.side_terms:Outliers",
    "low_rank": "tersor.formats.side_terms:LowRank",
}


class Recorded(Protocol):
    """What transforms and side terms are alike in: plain arrays and numbers, and work on float32 [N, K].

    A transform's apply gives the matrix that is stored and undo the one that was given; a side term's undo takes the
    term away and apply adds it. Both may work in place, and return the matrix. to_dict gives numbers fit for JSON, but
    neither "kind" nor "parts"; from_dict takes them with the parts and raises ValueError or FormatError unless they are
    those of a matrix of this shape.
    """

    kind: ClassVar[str]

    def to_dict(self) -> dict[str, Any]: ...
    def parts(self) -> dict[str, NDArray[Any]]: ...
    def apply(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def undo(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]: ...
    @classmethod
    def from_dict(
        cls, numbers: Mapping[str, Any], parts: Mapping[str, NDArray[Any]], shape: tuple[int, int]
    ) -> Recorded: ...


def recorded_from_dict(
    row: Mapping[str, Any], parts: Mapping[str, NDArray[Any]], shape: tuple[int, int], kinds: Mapping[str, str]
) -> Recorded:
    """The transform or side term of a file's row. Raises ValueError (an unknown kind, and what its class raises)."""
    kind = row["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"kinds are {', '.join(kinds) or 'none yet'}, not {kind!r}")
    module, _, attribute = kinds[kind].partition(":")
    made: Recorded = getattr(importlib.import_module(module), attribute).from_dict(
        {name: number for name, number in row.items() if name not in ("kind", "parts")}, parts, shape
    )
    return made
