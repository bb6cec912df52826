"""Integers of a few bits with a scale a group of columns. Page: docs/formats/int_group.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tersor.formats.grid_format import GridFormat

if TYPE_CHECKING:
    from typing_extensions import Self

_NAMES: dict[str, tuple[int, int | str, str, str, str]] = {  # of other systems: bits, group, mode, scale, activations
    "q4_0": (4, 32, "symmetric", "fp16", "int8"),
    "q4_1": (4, 32, "minimum", "fp16", "int8"),
    "q8_0": (8, 32, "symmetric", "fp16", "int8"),
    "q4_k": (4, 32, "minimum", "super6", "int8"),
    "q5_k": (5, 32, "minimum", "super6", "int8"),
    "w4a16": (4, 128, "symmetric", "fp16", "exact"),
    "w8a16": (8, "channel", "symmetric", "fp16", "exact"),
}
_ALIAS = re.compile(
    r"(?:int(?P<bits>[1234568])|(?P<ternary>ternary))"
    r"(?:-(?:g(?P<group>16|32|64|128|256)|(?P<scope>channel|tensor)))?"
    r"(?:-(?P<mode>zero|minimum))?(?:-(?P<scale>bf16|fp32|super[678]))?(?P<exact>-exact)?"
)


@dataclass(frozen=True, kw_only=True)
class IntGroup(GridFormat):
    """Weights as integers: w = scale * (code - zero) + minimum in float32.

    bits: 1 (signs), 2, 3, 4, 5, 6, 8, or "ternary" (-1, 0, 1; five a byte). group: columns that share a scale, 16, 32,
    64, 128, 256, "channel" (a row) or "tensor". mode: "symmetric" (levels around 0), "zero" (a zero point a group),
    "minimum" (a least weight a group). scale: "fp16", "bf16", "fp32", or "super6" to "super8", integers under an fp16
    scale a 256 columns, as k-quants have them (group 16 or 32).
    """

    family: ClassVar[str] = "int_group"

    bits: int | str = 4
    group: int | str = 128
    mode: str = "symmetric"
    scale: str = "fp16"

    def __str__(self) -> str:
        name = self.bits if self.bits == "ternary" else f"int{self.bits}"
        scope = self.group if isinstance(self.group, str) else f"g{self.group}"
        mode = "" if self.mode == "symmetric" else f"-{self.mode}"
        scale = "" if self.scale == "fp16" else f"-{self.scale}"
        alias = f"{name}-{scope}{mode}{scale}"
        return {"int8": alias, "exact": f"{alias}-exact"}.get(self.activations, repr(self))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The format that "int4-g128", "int3-g64-zero", "ternary", "W4A16" or "q4_k" names; None for other texts."""
        if text.lower() in _NAMES:
            bits, group, mode, scale, activations = _NAMES[text.lower()]
            return cls(bits=bits, group=group, mode=mode, scale=scale, activations=activations)
        if not (match := _ALIAS.fullmatch(text)):
            return None
        whole = "tensor" if match["ternary"] else "channel" if match["bits"] in ("1", "8") else 128
        return cls(
            bits=match["ternary"] or int(match["bits"]),
            group=int(match["group"]) if match["group"] else match["scope"] or whole,
            mode=match["mode"] or "symmetric",
            scale=match["scale"] or "fp16",
            activations="exact" if match["exact"] else "int8",
        )


def int_group(
    bits: int | str = 4,
    group: int | str = 128,
    mode: str = "symmetric",
    scale: str = "fp16",
    activations: str = "int8",
) -> IntGroup:
    """Make an IntGroup, whose docstring says what the numbers are. Raises ValueError."""
    return IntGroup(bits=bits, group=group, mode=mode, scale=scale, activations=activations)
