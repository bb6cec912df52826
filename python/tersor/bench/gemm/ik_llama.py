"""ik_llama.cpp as a peer, through the C interface of ggml in the library that ik-llama-cpp-python carries.

The wheel on the index is built for AVX2; one built from source on the machine has more. `facts` says which it was.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tersor.bench.gemm.weights import Matrix, Way
from tersor.bench.harness import AbsentError

_KINDS = 512  # more than any number of a type
_FLOAT = 0
_ROOM = 64 << 20  # for what a context keeps beside its tensors
_LEVELS = ("avx2", "avx512", "avx512_vnni", "avx512_bf16")


class _Parameters(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_size_t), ("memory", ctypes.c_void_p), ("no_data", ctypes.c_bool))


@cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("ik_llama_cpp")
    for folder in (spec and spec.submodule_search_locations) or []:
        path = Path(folder) / "lib" / "libggml.so"
        if path.exists():
            found = ctypes.CDLL(str(path))
            found.ggml_type_name.restype = ctypes.c_char_p
            found.ggml_row_size.restype = found.ggml_quantize_chunk.restype = ctypes.c_size_t
            for name in ("init", "new_tensor_2d", "mul_mat", "new_graph", "get_data", "backend_cpu_init"):
                getattr(found, f"ggml_{name}").restype = ctypes.c_void_p
            return found
    raise AbsentError("no ik_llama_cpp here: pip install ik-llama-cpp-python")


def facts() -> dict[str, Any] | None:
    """What instructions the library was built for; None without it."""
    try:
        library = _library()
    except (AbsentError, OSError):
        return None
    return {name: bool(getattr(library, f"ggml_cpu_has_{name}")()) for name in _LEVELS}


def _number(kind: str) -> int:
    for number in range(_KINDS):
        if _library().ggml_type_name(number) == kind.encode():
            return number
    raise AbsentError(f"this ik_llama_cpp has no {kind}")


class _Context:
    """Memory of ggml's: tensors and graphs in it live as long as it does."""

    def __init__(self, nbytes: int) -> None:
        self._ggml = _library()
        made = self._ggml.ggml_init(_Parameters(nbytes + _ROOM, None, False))
        if not made:
            raise AbsentError(f"ggml has no {nbytes} bytes")
        self.at = ctypes.c_void_p(made)

    def __del__(self) -> None:
        if hasattr(self, "at"):
            self._ggml.ggml_free(self.at)

    def tensor(self, kind: int, columns: int, rows: int) -> tuple[ctypes.c_void_p, int]:
        """A tensor and where its data are."""
        made = self._ggml.ggml_new_tensor_2d(self.at, kind, ctypes.c_int64(columns), ctypes.c_int64(rows))
        return ctypes.c_void_p(made), self._ggml.ggml_get_data(ctypes.c_void_p(made))


def _blob(kind: int, matrix: Matrix) -> bytes:
    """The block of `matrix`, as ggml rounds it."""
    library = _library()
    size = library.ggml_row_size(kind, ctypes.c_int64(matrix.columns)) * matrix.block_rows
    out = ctypes.create_string_buffer(size)
    importance = np.ones(matrix.columns, np.float32)
    library.ggml_quantize_chunk(
        kind, ctypes.c_void_p(matrix.block.ctypes.data), out, ctypes.c_int64(0), ctypes.c_int64(matrix.block_rows),
        ctypes.c_int64(matrix.columns), ctypes.c_void_p(importance.ctypes.data),
    )  # fmt: skip
    return out.raw


def load(kind: str, matrix: Matrix) -> Callable[[Any, int], Way]:
    """ggml_mul_mat of a type, "q4_0_r8" for example; x in float32, rounded to 8 bits inside."""
    library, number = _library(), _number(kind)
    if matrix.columns % 256 or matrix.block_rows % 8:
        raise AbsentError(f"its blocks are of 256 columns and 8 rows, there are {matrix.columns} and {matrix.rows}")
    blob = _blob(number, matrix)
    nbytes = len(blob) * (matrix.rows // matrix.block_rows)
    count = matrix.copies(nbytes)
    held = _Context(count * nbytes)
    weights = []
    for _ in range(count):
        tensor, data = held.tensor(number, matrix.columns, matrix.rows)
        for at in range(0, nbytes, len(blob)):
            ctypes.memmove(data + at, blob, len(blob))
        weights.append(tensor)
    backend = ctypes.c_void_p(library.ggml_backend_cpu_init())

    def loaded(x: Any, threads: int) -> Way:
        library.ggml_backend_cpu_set_n_threads(backend, threads)
        context = _Context(x.nbytes + count * (4 * len(x) * matrix.rows + (1 << 20)))
        given, data = context.tensor(_FLOAT, matrix.columns, len(x))
        ctypes.memmove(data, x.ctypes.data, x.nbytes)
        graphs, results = [], []
        for weight in weights:
            result = ctypes.c_void_p(library.ggml_mul_mat(context.at, weight, given))
            graph = ctypes.c_void_p(library.ggml_new_graph(context.at))
            library.ggml_build_forward_expand(graph, result)
            graphs.append(graph)
            results.append(result)

        def multiply(call: int, *, living: tuple[_Context, _Context] = (held, context)) -> None:
            library.ggml_backend_graph_compute(backend, graphs[call % count])

        def first() -> Any:
            multiply(0)
            raw = ctypes.string_at(library.ggml_get_data(results[0]), 4 * len(x) * matrix.rows)
            return np.frombuffer(raw, np.float32).reshape(len(x), matrix.rows)

        return Way(name=f"ik_llama {kind}", multiply=multiply, first=first, nbytes=nbytes, worst=0.6)

    return loaded
