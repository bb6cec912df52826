"""The measuring harness: verified, interleaved, beside peers and under a ceiling.

`tersor bench entropy|lossless|difference|indexed|gemm` on the command line; `python -m tersor.bench` does the same. A
case names its work, its peers, its ceiling and its check (`harness.Case`, `harness.Codec`); results are JSON of one
shape, {machine, rows}.
"""

from __future__ import annotations

from tersor.bench.command import add_arguments, main, run

__all__ = ["add_arguments", "main", "run"]
