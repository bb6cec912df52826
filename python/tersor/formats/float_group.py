"""Floats of 4, 6 or 8 bits with a scale a group of columns. Page: docs/formats/float_group.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tersor.formats.grid_format import GridFormat

if TYPE_CHECKING:
    from typing_extensions import Self

_BITS = {"e2m1": 4, "e2m3": 6, "e3m2": 6, "e4m3": 8, "e5m2": 8}
_WITH_INTEGERS = ("e2m1", "e2m3")  # whose levels are multiples of one step
_MX = {"mxfp4": "e2m1", "mxfp6": "e2m3", "mxfp6-e3m2": "e3m2", "mxfp8": "e4m3", "mxfp8-e5m2": "e5m2"}
_ALIAS = re.compile(
    r"fp(?P<bits>[468])-(?P<element>e\dm\d)(?:-(?:g(?P<group>16|32|64|128|256)|(?P<scope>channel|tensor)))?"
    r"(?:-(?P<scale>fp16|bf16|e8m0|e4m3))?"
)


@dataclass(frozen=True, kw_only=True)
class FloatGroup(GridFormat):
    """Weights as small floats: w = scale * element in float32.

    element: "e2m1", "e2m3", "e3m2", "e4m3" (no infinities, as OCP has it) or "e5m2". group: columns that share a scale,
    16, 32, 64, 128, 256, "channel" (a row) or "tensor". scale: "fp32", "fp16", "bf16", "e8m0" (a power of two: MX), or
    "e4m3" under one fp32 scale of the tensor (NVFP4).
    activations: "exact" where it is not given and the element's levels are no multiples of one step, else "int8".
    """

    family: ClassVar[str] = "float_group"

    activations: str = ""
    element: str = "e2m1"
    group: int | str = 32
    scale: str = "e8m0"

    def __post_init__(self) -> None:
        if not self.activations:
            object.__setattr__(self, "activations", "int8" if self.element in _WITH_INTEGERS else "exact")
        super().__post_init__()
        if self.activations != "exact" and self.element not in _WITH_INTEGERS:
            raise ValueError(f'activations of {self.element} are "exact", not {self.activations!r}')

    def __str__(self) -> str:
        if self.activations != ("int8" if self.element in _WITH_INTEGERS else "exact"):
            return repr(self)
        if (self.group, self.scale) == (32, "e8m0"):
            return next(alias for alias, element in _MX.items() if element == self.element)
        if (self.element, self.group, self.scale) == ("e2m1", 16, "e4m3"):
            return "nvfp4"
        scope = self.group if isinstance(self.group, str) else f"g{self.group}"
        scale = "" if self.scale == "fp32" else f"-{self.scale}"
        return f"fp{_BITS[self.element]}-{self.element}-{scope}{scale}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The format that "mxfp4", "nvfp4", "fp8-e4m3" or "fp6-e3m2-g64-bf16" names; None for other texts."""
        if text in _MX:
            return cls(element=_MX[text])
        if text == "nvfp4":
            return cls(element="e2m1", group=16, scale="e4m3")
        match = _ALIAS.fullmatch(text)
        if not match or _BITS.get(match["element"]) != int(match["bits"]):
            return None
        return cls(
            element=match["element"],
            group=int(match["group"]) if match["group"] else match["scope"] or "channel",
            scale=match["scale"] or "fp32",
        )


def float_group(
    element: str = "e2m1", group: int | str = 32, scale: str = "e8m0", activations: str | None = None
) -> FloatGroup:
    """Make a FloatGroup, whose docstring says what the numbers are. Raises ValueError."""
    return FloatGroup(element=element, group=group, scale=scale, activations=activations or "")
