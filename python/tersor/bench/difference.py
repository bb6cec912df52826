"""Cases of tensors that are coded against a base: 32 MiB of seeded bf16 weights and what a step or two leaves of them,
and pairs of safetensors files of one's own.

Ours is what a user calls: `tersor.numpy.save` and `load` with `base=` a .safetensors file, which both of them read and
hash. The peers have the base in memory: xor or subtraction by NumPy, then zstd; a byte shuffle between is blosc2's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tersor.bench import lossless, ours, peers, sources
from tersor.bench.harness import Bytes, Case, Codec, as_bytes
from tersor.bench.selection import CaseFactory, Factory, Selection, choose

NAME = "w"


@dataclass(frozen=True, kw_only=True)
class Pair(Case):
    """A case whose array has a base of the same size and dtype, and the file that holds the base as tensor "w"."""

    base: np.ndarray[Any, Any]
    folder: tempfile.TemporaryDirectory[str]

    @property
    def file(self) -> Path:
        return Path(self.folder.name) / "base.safetensors"


def _stepped(base: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """2 % of the weights moved to a neighbor, up or down."""
    rng, bits = np.random.default_rng(5), base.copy()
    where = rng.random(bits.size, np.float32) < 0.02
    bits[where] += rng.choice(np.array([1, -1]), int(where.sum())).astype(bits.dtype)
    return bits


def _finetuned(base: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Every weight moved by N(0, 1) * 1.5 % of the weights' deviation, and rounded again."""
    weights = (base.astype(np.uint32) << np.uint32(16)).view(np.float32)
    moved = np.random.default_rng(6).standard_normal(base.size, np.float32) * np.float32(0.0003)
    return sources.to_bf16_bits(weights + moved)


def _unrelated(base: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Other weights of the same law."""
    weights = np.random.default_rng(7).standard_normal(base.size, np.float32) * np.float32(0.02)
    return sources.to_bf16_bits(weights)


SOURCES: dict[str, tuple[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]]] = {
    "step2": ("2 % of Gaussian bf16 weights moved by one step", _stepped),
    "tuned": ("Gaussian bf16 weights, all moved by 1.5 % of their deviation", _finetuned),
    "other": ("Gaussian bf16 weights against unrelated ones", _unrelated),
}


def floor_bits(array: np.ndarray[Any, Any], base: np.ndarray[Any, Any]) -> float:
    """Bits a weight of the order-0 entropy of the differences of bit patterns. array, base: unsigned integers."""
    _, counts = np.unique(array - base, return_counts=True)
    p = counts / array.size
    return float(-(p * np.log2(p)).sum())


def _pair(name: str, about: str, base: np.ndarray[Any, Any], array: np.ndarray[Any, Any], *, floor: bool) -> Pair:
    """array, base: bit patterns, [n] uint16 of bf16 or uint32 of fp32."""
    import ml_dtypes
    from safetensors.numpy import save_file

    dtype = np.dtype(ml_dtypes.bfloat16 if array.itemsize == 2 else np.float32)
    folder = tempfile.TemporaryDirectory()
    pair = Pair(
        name=name,
        data=array.view(dtype),
        about=f"{array.nbytes / 1e6:.1f} MB, {about}",
        floor_bits=floor_bits(array, base) if floor else None,
        policies=("fresh",),
        base=base.view(dtype),
        folder=folder,
    )
    save_file({NAME: pair.base}, pair.file)
    return pair


def _case(name: str, most_bytes: int) -> Pair:
    about, change = SOURCES[name]
    base = sources.to_bf16_bits(sources.gaussian_weights(most_bytes // 2))
    return _pair(name, about, base, change(base), floor=name != "other")


def _file_case(name: str, path: Path, base: Path, stored: str, most_bytes: int) -> Pair:
    bits = np.uint16 if stored == "BF16" else np.uint32
    new, old = sources.named_tensors(path, stored), sources.named_tensors(base, stored)
    array, before = (
        np.concatenate([side[key] for key in new])[: most_bytes // 4 * 4].view(bits) for side in (new, old)
    )
    return _pair(name, f"all {stored} of {path.name} against {base.name}", before, array, floor=True)


def _sizes(path: Path, stored: str) -> dict[str, int]:
    return {name: raw.size for name, raw in sources.named_tensors(path, stored).items()}


def _files(folder: str | None, most_bytes: int) -> dict[str, CaseFactory]:
    """One case a file and type whose tensors another, larger file of the folder has, too: the base."""
    paths = sorted(Path(folder).rglob("*.safetensors")) if folder else []
    found: dict[str, CaseFactory] = {}
    for path in paths:
        for stored in ("BF16", "F32"):
            mine = _sizes(path, stored)
            bases = [one for one in paths if mine and mine.items() < _sizes(one, stored).items()]
            if bases:
                name = f"{path.parent.name}/{path.stem}:{stored.lower()}"
                base = max(bases, key=lambda one: one.stat().st_size)
                found[name] = partial(_file_case, name, path, base, stored, most_bytes)
    return found


def coder(pair: Pair, *, threads: int = 1, base: bool = True) -> Codec:
    """tersor.numpy.save and load at the default level."""
    import tersor.numpy

    file = pair.file if base else None
    name = lossless.coder_name(lossless.default_level(), threads=threads)
    return Codec(
        name=name if base else f"{name}, no base",
        encode=lambda array: tersor.numpy.save({NAME: array}, base=file),
        decode=lambda coded, out: tersor.numpy.load(coded, base=file)[NAME],
        setting=lambda: ours.held(threads=threads),
        ours=True,
        threads=threads,
        options={"level": lossless.default_level(), "base": base, "isa": ours.isa()},
    )


def _bits(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return as_bytes(array).view(f"u{array.itemsize}")


def peer(pair: Pair, operation: str, inner: Callable[[], Codec]) -> Codec:
    """A coder of bytes behind xor with the base, or subtraction of it, by NumPy."""
    codec, base = inner(), _bits(pair.base)
    apply, undo = {"xor": (np.bitwise_xor, np.bitwise_xor), "sub": (np.subtract, np.add)}[operation]

    def decode(coded: bytes, out: Bytes | None) -> Any:
        change = as_bytes(codec.decode(coded, None)).view(base.dtype)
        return undo(change, base)

    return Codec(
        name=f"{operation} + {codec.name}",
        encode=lambda array: codec.encode(apply(_bits(array), base)),
        decode=decode,
        options=codec.options,
    )


def _coders(pair: Case, *, others: bool) -> dict[str, Factory]:
    assert isinstance(pair, Pair)
    name = lossless.coder_name(lossless.default_level())
    found: dict[str, Factory] = {
        name: partial(coder, pair),
        f"{name}, 2 threads": partial(coder, pair, threads=2),
        f"{name}, no base": partial(coder, pair, base=False),
    }
    if others:
        element = "bf16" if pair.data.itemsize == 2 else "fp32"
        shuffled = partial(peers.blosc2, element, "zstd", 3, "shuffle")
        found["xor + zstd -3"] = partial(peer, pair, "xor", partial(peers.zstd, 3))
        found["xor + blosc2 zstd-3 shuffle"] = partial(peer, pair, "xor", shuffled)
        found["sub + zstd -3"] = partial(peer, pair, "sub", partial(peers.zstd, 3))
    return found


def plan(
    *,
    peers: bool,
    quick: bool,
    rounds: int | None = None,
    cases: Sequence[str] | None = None,
    impls: Sequence[str] | None = None,
    data: str | None = None,
) -> Selection:
    """The cases and coders that the options leave, and why others are skipped. data: a folder of safetensors files."""
    most = lossless.QUICK_BYTES if quick else lossless.BYTES
    return choose(
        {**{name: partial(_case, name, most) for name in SOURCES}, **_files(data, most)},
        partial(_coders, others=peers),
        rounds=rounds or (lossless.QUICK_ROUNDS if quick else lossless.ROUNDS),
        only=cases,
        impls=impls,
    )
