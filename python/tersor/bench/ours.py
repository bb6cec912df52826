"""How our own rows hold threads and instruction sets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

LEVELS = ("scalar", "avx2", "avx512", "avx512vbmi", "avx512bf16")  # csrc/core/isa.h; each includes those before it


def runs(isa: str) -> bool:
    """Whether this machine, as TERSOR_ISA has it, runs a level."""
    from tersor import _core

    return LEVELS.index(isa) <= LEVELS.index(str(_core.active_isa()))


def isa() -> str:
    """The instruction set level in use: scalar, avx2, avx512, avx512vbmi or avx512bf16."""
    from tersor import _core

    return str(_core.active_isa())


def row_name(what: str, *options: str | None, threads: int = 1) -> str:
    """What is measured, options that are set, several threads: "tersor alias, scalar, 2 threads"."""
    named = [what, *(option for option in options if option is not None)]
    return ", ".join([*named, *([f"{threads} threads"] if threads != 1 else [])])


@contextlib.contextmanager
def held(*, threads: int, isa: str | None = None) -> Iterator[None]:
    """Run with so many threads and at most this level, and put both back."""
    import tersor
    from tersor import _core

    threads_before = tersor.get_num_threads()
    isa_before = str(_core.active_isa())
    tersor.set_num_threads(threads)
    if isa is not None:
        _core.hold_isa(isa)
    try:
        yield
    finally:
        tersor.set_num_threads(threads_before)
        if isa is not None:
            _core.hold_isa(isa_before)
