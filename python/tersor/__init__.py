"""Terse tensors: exact compression of checkpoints and tensors.

`tersor.numpy` and `tersor.torch` have safetensors' functions, `tersor.entropy` codes symbols of 8 bits; the command
`tersor` works on whole files.
NumPy, torch and rich are loaded by the first call that needs them.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, Literal, overload

from tersor import _core
from tersor._core import FormatError, __version__, get_num_threads, set_num_threads

if TYPE_CHECKING:
    from tersor.checkpoint import Paths, TensorReader
    from tersor.formats.quantized import quantize
    from tersor.lossless import compress, decompress
    from tersor.numpy import load_file, save_file

__all__ = [
    "FormatError",
    "__version__",
    "compress",
    "decompress",
    "get_num_threads",
    "linear",
    "load_file",
    "quantize",
    "safe_open",
    "save_file",
    "set_num_threads",
    "show_config",
]

_HOMES = {
    "compress": "tersor.lossless",
    "decompress": "tersor.lossless",
    "load_file": "tersor.numpy",
    "quantize": "tersor.formats.quantized",
    "save_file": "tersor.numpy",
}
_DOORS = (
    "entropy",
    "evaluate",
    "formats",
    "gemm",
    "numpy",
)  # come without an import statement; tersor.torch needs torch and one


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        return importlib.import_module(f"tersor.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'tersor' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_DOORS})


def safe_open(
    filename: str | os.PathLike[str],
    framework: str = "np",
    device: str | int = "cpu",
    *,
    base: Paths = None,
) -> TensorReader[Any]:
    """Open a .tsr file for reading tensor by tensor, as safetensors' function of this name does.

    filename: a .tsr file, here or under a URL of fsspec ("s3://..."), which is fetched whole.
    framework: "np" or "pt". device: where tensors go; "cpu", or with "pt" any torch device.
    base: what the file was coded against, one path or several (.safetensors, .tsr, folders of them).
    Returns a reader with keys(), metadata(), get_tensor(), get_slice(); a context manager, usable from many threads.
    Raises FormatError (not a .tsr file, or a damaged one), ValueError (framework, device), OSError, ImportError ("pt"
    without PyTorch).
    """
    door = {"np": "numpy", "numpy": "numpy", "pt": "torch", "torch": "torch", "pytorch": "torch"}.get(framework)
    if door is None:
        raise ValueError(f'framework is "np" or "pt", not {framework!r}')
    reader: TensorReader[Any] = importlib.import_module(f"tersor.{door}").open_file(filename, device, base=base)
    return reader


def linear(x: Any, weights: Any, bias: Any = None, *, activations: str | None = None) -> Any:
    """Multiply: y = x W^T + bias, W in few bits.

    x: [..., K] of float32, float16 or bfloat16. weights: a QuantizedTensor, which is packed by the first call and keeps
    its packed copy, or a gemm.PackedMatrix. bias: [N] or None. activations: "int8", "int8-g128", "int8-outlier",
    "exact"; None for what the matrix records.
    Returns [..., N] of x's dtype: a tensor for a tensor, through which gradients reach x, else a NumPy array. What is
    read and what is raised: tersor.gemm.linear and tersor.torch.linear, which this calls.
    """
    torch: Any = sys.modules.get("torch")
    door = "torch" if torch is not None and isinstance(x, torch.Tensor) else "gemm"
    return importlib.import_module(f"tersor.{door}").linear(x, weights, bias, activations=activations)


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print what a bug report needs: versions, instruction set level, threads, CUDA, torch operators.

    mode: "stdout" prints and returns None; "dicts" returns it. Imports nothing: torch is named only where it is loaded.
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f'mode is "stdout" or "dicts", not {mode!r}')
    torch: Any = sys.modules.get("torch")
    config = {
        "tersor": __version__,
        "python": sys.version.split()[0],
        "isa": {"active": _core.active_isa(), "machine": _core.machine_isa()},
        "threads": {"active": get_num_threads(), "default": _core.default_threads()},
        "cuda": {"built": _core.have_cuda, "devices": _core.cuda_device_count()},
        "torch": {
            "version": torch and str(torch.__version__),
            "operators": _core.torch_ops_registered(),
        },
    }
    if mode == "dicts":
        return config
    for name, value in config.items():
        facts = ", ".join(f"{key} {fact}" for key, fact in value.items()) if isinstance(value, dict) else value
        print(f"{name:8}{facts}")
    return None
