"""Which points are measured: those of the goals unless the options name others. Imports nothing heavy."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

FORMATS = (
    "int4-g128", "int4-g32", "mxfp4", "nvfp4", "nf4", "int8", "int8-g128", "int2-g128", "int3-g128", "int5-g128",
    "int6-g128", "fp8-e4m3", "ternary", "vq-d8-k256-s2", "bitmap-50-int4", "bitmap-50-int8",
)  # fmt: skip
SHAPES = ((4096, 4096), (11008, 4096), (4096, 11008), (14336, 4096))
TOKENS = (1, 2, 4, 8, 16, 64, 128, 512)
THREADS = (1, 2)
QUICK_SHAPE = (64, 256)

Shape = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Point:
    """y [tokens, rows] = x [tokens, columns] W^T on so many threads."""

    format: str
    activations: str
    rows: int
    columns: int
    tokens: int
    threads: int

    @property
    def case(self) -> str:
        """The point without its threads: "int4-g128 int8 4096x4096 M=1"."""
        return f"{self.format} {self.activations} {self.rows}x{self.columns} M={self.tokens}"

    @property
    def operations(self) -> int:
        """Products and sums, each one operation."""
        return 2 * self.tokens * self.rows * self.columns

    @property
    def unit(self) -> str:
        """The roof of its multipliers, as `roofs.NAMES` has it."""
        return "bf16" if self.activations == "exact" else "vnni"


def _usual() -> list[tuple[str, str, Shape, int]]:
    """Format, activations, shape, tokens of every row of the goals. A format's stand together: it is packed once."""
    square = SHAPES[0]
    found = [("int4-g128", "int8", shape, 1) for shape in SHAPES[1:]]
    found += [("int4-g128", "int8", square, tokens) for tokens in (1, 4, 16, 64, 128, 512)]
    found += [("int4-g128", "int8-g128", square, tokens) for tokens in (1, 128)]
    found += [("int4-g128", "exact", square, tokens) for tokens in (1, 64, 512)]
    found += [(name, "int8", square, tokens) for name in ("int4-g32", "mxfp4", "nvfp4", "nf4") for tokens in (1, 128)]
    found += [(name, "int8", square, tokens) for name in ("int8", "int8-g128") for tokens in (1, 4, 128)]
    found += [(name, "int8", square, tokens) for name in ("int2-g128", "int3-g128", "ternary") for tokens in (1, 128)]
    found += [(name, "int8", square, 128) for name in ("int5-g128", "int6-g128")]
    found += [("fp8-e4m3", "exact", square, tokens) for tokens in (1, 128)]
    found += [("vq-d8-k256-s2", "int8", square, tokens) for tokens in (1, 128)]
    found += [(name, "int8", square, 1) for name in ("bitmap-50-int4", "bitmap-50-int8")]
    return found


def points(
    *,
    quick: bool,
    formats: Sequence[str] | None = None,
    shapes: Sequence[Shape] | None = None,
    tokens: Sequence[int] | None = None,
    activations: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    cases: Sequence[str] | None = None,
) -> list[Point]:
    """The points to measure, those of one shape and format together.

    Nothing named: the goals' points; formats alone: those of them with these formats. Else the product of all that is
    named, where what is not is every format, 4096x4096, every number of tokens and "int8" ("exact" for fp8). threads
    and cases (as `Point.case`) only choose among them. quick: one small shape and few tokens unless they are named.
    """
    if quick:
        shapes, tokens = shapes or (QUICK_SHAPE,), tokens or (1, 5)
    if shapes or tokens or activations:
        product = itertools.product(shapes or SHAPES[:1], formats or FORMATS, activations or [""], tokens or TOKENS)
        rows = [(name, read or _usual_activations(name), shape, number) for shape, name, read, number in product]
    else:
        rows = [row for row in _usual() if not formats or row[0] in formats]
        rows += [
            (name, _usual_activations(name), SHAPES[0], number)
            for name in formats or ()
            if name not in FORMATS
            for number in TOKENS
        ]
    found = [
        Point(format=name, activations=read, rows=shape[0], columns=shape[1], tokens=number, threads=used)
        for name, read, shape, number in rows
        for used in threads or THREADS
    ]
    return [point for point in found if not cases or point.case in cases]


def _usual_activations(name: str) -> str:
    return "exact" if name.startswith("fp8") else "int8"


def _shape(text: str) -> Shape:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"a shape is NxK, 4096x4096 for example, not {text!r}")
    return int(found[1]), int(found[2])


def _positive(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"a number above 0 is needed, not {text!r}")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this suite alone; each may be repeated."""
    options = parser.add_argument_group("gemm", "what is measured instead of the points of the goals; may be repeated")
    options.add_argument("--format", action="append", metavar="NAME", help='a format, "int4-g128" for example')
    options.add_argument("--shape", action="append", metavar="NxK", type=_shape, help="rows and columns of the matrix")
    options.add_argument("--tokens", action="append", metavar="M", type=_positive, help="rows of x")
    options.add_argument("--activations", action="append", metavar="HOW", help="int8, int8-g128, int8-outlier, exact")
    options.add_argument(
        "--threads", action="append", metavar="T", type=_positive, help="threads (1 and 2 if not given)"
    )
