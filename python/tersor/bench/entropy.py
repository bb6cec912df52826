"""Cases of the entropy coder: 2 Mi symbols of 8 bits, tables built and read in the timing, into a given buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from tersor.bench import native, ours, sources
from tersor.bench.harness import AbsentError, Bytes, Case, Codec
from tersor.bench.selection import Factory, Selection, choose

SYMBOLS = 2 << 20
QUICK_SYMBOLS = 256 << 10
ROUNDS, QUICK_ROUNDS = 21, 3

SOURCES: dict[str, tuple[str, Callable[[int], Any]]] = {
    "geo": ("geometric(0.385), about 30 symbols", sources.geometric),
    "bexp": ("exponent byte of bf16 weights N(0, 0.02)", sources.bf16_exponents),
    "near": ("rounded Gaussian, sigma 44, 256 symbols", sources.rounded_gaussian),
}

PEERS: dict[str, Factory] = {
    "huff0": native.huff0,
    "htscodecs rANS 32x16 AVX2": lambda: native.htscodecs("AVX2"),
    "htscodecs rANS 32x16 AVX-512": lambda: native.htscodecs("AVX-512"),
}


def coder(mode: Literal["alias", "contiguous", "huffman"], *, threads: int = 1, isa: str | None = None) -> Codec:
    """tersor.entropy in one mode of rans8, or its huffman. isa: the level held, None for the machine's own.

    Raises AbsentError where the machine has no such level.
    """
    import tersor.entropy

    if isa is not None and not ours.runs(isa):
        raise AbsentError(f"this machine, or TERSOR_ISA, has no {isa}")

    def encode(symbols: Any) -> Any:
        if mode == "huffman":
            return tersor.entropy.huffman.encode(symbols)
        return tersor.entropy.encode(symbols, mode=mode)

    def decode(coded: Any, out: Bytes | None) -> Any:
        if mode == "huffman":
            return tersor.entropy.huffman.decode(coded, out)
        return tersor.entropy.decode(coded, out=out)

    return Codec(
        name=coder_name(mode, threads=threads, isa=isa),
        encode=encode,
        decode=decode,
        setting=lambda: ours.held(threads=threads, isa=isa),
        policies=("given",),
        ours=True,
        threads=threads,
        held=isa,
        options={"mode": mode, "isa": isa or ours.isa()},
    )


def coder_name(mode: str, *, threads: int = 1, isa: str | None = None) -> str:
    """The name of a row: "tersor alias", "tersor contiguous, scalar, 2 threads"."""
    return ours.row_name(f"tersor {mode}", isa, threads=threads)


def _ours() -> dict[str, Factory]:
    found: dict[str, Factory] = {}
    for isa, threads in ((None, 1), (None, 2), ("avx2", 1), ("scalar", 1)):
        for mode in ("alias", "contiguous"):
            found[coder_name(mode, threads=threads, isa=isa)] = partial(coder, mode, threads=threads, isa=isa)
    for threads in (1, 2):
        found[coder_name("huffman", threads=threads)] = partial(coder, "huffman", threads=threads)
    return found


def _case(name: str, symbols_wanted: int) -> Case:
    about, source = SOURCES[name]
    symbols = source(symbols_wanted)
    return Case(
        name=name,
        data=symbols,
        about=f"{symbols.size} symbols, {about}",
        floor_bits=sources.entropy_bits(symbols),
        policies=("given",),
    )


def plan(
    *,
    peers: bool,
    quick: bool,
    rounds: int | None = None,
    cases: Sequence[str] | None = None,
    impls: Sequence[str] | None = None,
    data: str | None = None,
) -> Selection:
    """The cases and coders that the options leave, and why others are skipped. `data` has no use here."""
    factories = {**_ours(), **(PEERS if peers else {})}
    return choose(
        {name: partial(_case, name, QUICK_SYMBOLS if quick else SYMBOLS) for name in SOURCES},
        lambda case: factories,
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        only=cases,
        impls=impls,
    )
