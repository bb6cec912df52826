"""Cases of exact tensors: seeded Gaussian weights and MiniLM-L6 as bf16 and fp32, 32 MiB each, and files of one's own:
safetensors, and arrays of any dtype in .npy and .npz.

`decode` is into a fresh result, as the functions of all sides return one; `decode_into` into a buffer that is given.
32 MiB is above the size up to which the C library may recycle freed memory: a fresh result is fresh for all sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tersor.bench import ours, peers, sources
from tersor.bench.harness import Bytes, Case, Codec, as_bytes
from tersor.bench.selection import CaseFactory, Factory, Selection, choose

BYTES = 32 << 20
QUICK_BYTES, QUICK_SLOW_BYTES = 2 << 20, 64 << 10
ROUNDS, QUICK_ROUNDS = 7, 1
LEAST_ARRAY_BYTES = 1000
LEVELS = (1, 2, 6, 9)  # beside the default, to see the hull


def _typed(bits: np.ndarray[Any, Any], element: str) -> np.ndarray[Any, Any]:
    import ml_dtypes

    return bits.view(ml_dtypes.bfloat16) if element == "bf16" else bits


def _gaussian(element: str, most_bytes: int) -> np.ndarray[Any, Any]:
    weights = sources.gaussian_weights(most_bytes // peers.ITEM_BYTES[element])
    return _typed(sources.to_bf16_bits(weights) if element == "bf16" else weights, element)


def _minilm(element: str, most_bytes: int) -> np.ndarray[Any, Any]:
    weights = sources.minilm_weights(most_bytes // peers.ITEM_BYTES[element])
    return _typed(sources.to_bf16_bits(weights) if element == "bf16" else weights, element)


SOURCES: dict[str, tuple[str, str, Callable[[str, int], np.ndarray[Any, Any]]]] = {
    "gbf16": ("bf16", "weights of N(0, 1) * 0.02 in bf16", _gaussian),
    "mlbf16": ("bf16", "MiniLM-L6 rounded to bf16", _minilm),
    "gf32": ("fp32", "weights of N(0, 1) * 0.02 in fp32", _gaussian),
    "mlf32": ("fp32", "MiniLM-L6 as it is, fp32", _minilm),
}


def coder(dtype: np.dtype[Any], level: int, *, threads: int = 1) -> Codec:
    """tersor.compress and tersor.decompress at one level, on flat arrays of one dtype."""
    import tersor

    def decode(coded: bytes, out: Bytes | None) -> Any:
        return tersor.decompress(coded) if out is None else tersor.decompress(coded, out=out.view(dtype))

    return Codec(
        name=coder_name(level, threads=threads),
        encode=lambda array: tersor.compress(array, level=level),
        decode=decode,
        setting=lambda: ours.held(threads=threads),
        ours=True,
        threads=threads,
        options={"level": level, "default": level == default_level(), "isa": ours.isa()},
    )


def coder_name(level: int, *, threads: int = 1) -> str:
    """The name of a row: "tersor -4", "tersor -4, 2 threads"."""
    return f"tersor -{level}" + (f", {threads} threads" if threads != 1 else "")


def default_level() -> int:
    """The level of a call that names none."""
    from tersor import _core

    return int(_core.DEFAULT_LEVEL)


def _ours(dtype: np.dtype[Any], quick: bool) -> dict[str, Factory]:
    default = default_level()
    levels = [level for level in ((1,) if quick else LEVELS) if level != default]
    settings = [(default, 1), (default, 2), *((level, 1) for level in levels)]
    return {coder_name(level, threads=n): partial(coder, dtype, level, threads=n) for level, n in settings}


def _peers(element: str, quick: bool) -> dict[str, Factory]:
    slow_bytes = QUICK_SLOW_BYTES if quick else peers.SLOW_BYTES
    found: dict[str, Factory] = {
        "zipnn": partial(peers.zipnn, element),
        "pcodec -8": partial(peers.pcodec, element),
        "zstd -3": partial(peers.zstd, 3),
        "zstd -19": partial(peers.zstd, 19, limit_bytes=slow_bytes),
        "blosc2 zstd-9 shuffle": partial(peers.blosc2, element, "zstd", 9, "shuffle"),
        "lz4 frame": peers.lz4,
    }
    for codec, level, shuffle in (("zstd", 3, "shuffle"), ("zstd", 3, "bitshuffle"), ("lz4", 5, "bitshuffle")):
        found[f"blosc2 {codec}-{level} {shuffle}"] = partial(peers.blosc2, element, codec, level, shuffle)
    return found


def floor_bits(array: np.ndarray[Any, Any], element: str) -> float | None:
    """Bits a weight of the exponent's order-0 entropy plus the rest raw: what an exponent coder alone can reach."""
    if element not in ("bf16", "fp32"):
        return None
    if element == "bf16":
        exponents = (as_bytes(array).view(np.uint16) >> 7) & 0xFF
        return sources.entropy_bits(exponents.astype(np.uint8)) + 8
    exponents = (as_bytes(array).view(np.uint32) >> 23) & 0xFF
    return sources.entropy_bits(exponents.astype(np.uint8)) + 24


def _element(case: Case) -> str:
    name = str(case.data.dtype.name)
    return {"float32": "fp32", "bfloat16": "bf16"}.get(name, name)


def _case(name: str, most_bytes: int) -> Case:
    element, about, source = SOURCES[name]
    array = source(element, most_bytes)
    about = f"{array.nbytes / 1e6:.1f} MB, {about}"
    return Case(name=name, data=array, about=about, floor_bits=floor_bits(array, element))


def _file_case(name: str, path: Path, stored: str, element: str, most_bytes: int) -> Case:
    raw = np.concatenate(sources.stored_tensors(path, stored))[: most_bytes // 4 * 4]
    array = _typed(raw.view(np.uint16 if element == "bf16" else np.float32), element)
    return Case(name=name, data=array, about=f"all {stored} of {path.name}", floor_bits=floor_bits(array, element))


def _array_case(name: str, path: Path, key: str, most_bytes: int) -> Case:
    array = sources.stored_arrays(path)[key].reshape(-1)
    array = array[: most_bytes // array.itemsize]
    return Case(name=name, data=array, about=f"{array.dtype} {key or 'array'} of {path.name}")


def _arrays(folder: str | None, most_bytes: int) -> dict[str, CaseFactory]:
    """One case an array of numbers in .npy and .npz files; what is below 1,000 bytes is left out."""
    found: dict[str, CaseFactory] = {}
    paths = sorted(p for p in Path(folder).rglob("*.np[yz]")) if folder else []
    for path in paths:
        for key, array in sources.stored_arrays(path).items():
            if array.nbytes >= LEAST_ARRAY_BYTES and array.dtype.kind in "biuf":
                name = f"{path.parent.name}/{path.stem}" + (f":{key}" if key else "")
                found[name] = partial(_array_case, name, path, key, most_bytes)
    return found


def _files(folder: str | None, most_bytes: int) -> dict[str, CaseFactory]:
    """One case a file and type: all its bf16, or all its fp32, end to end."""
    found: dict[str, CaseFactory] = {}
    for path in sorted(Path(folder).rglob("*.safetensors")) if folder else ():
        for stored, element in (("BF16", "bf16"), ("F32", "fp32")):
            if sources.stored_tensors(path, stored):
                name = f"{path.parent.name}/{path.stem}:{element}"
                found[name] = partial(_file_case, name, path, stored, element, most_bytes)
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
    """The cases and coders that the options leave, and why others are skipped. data: a folder of safetensors, .npy and
    .npz files."""
    most = QUICK_BYTES if quick else BYTES
    return choose(
        {**{name: partial(_case, name, most) for name in SOURCES}, **_files(data, most), **_arrays(data, most)},
        lambda case: {**_ours(case.data.dtype, quick), **(_peers(_element(case), quick) if peers else {})},
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        only=cases,
        impls=impls,
    )
