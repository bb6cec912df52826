"""safetensors.torch's functions over .tsr files, and torch.ops.tersor. Needs torch >= 2.10."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

try:
    import torch
except ImportError as error:
    raise ImportError("tersor.torch needs PyTorch >= 2.10: pip install 'tersor[torch]'") from error

import numpy as np

from tersor import _core, checkpoint, fsspec, lossless
from tersor.torch import operators  # noqa: F401 - registers them
from tersor.torch.low_bit import linear, linear_experts, linear_many, packed_rows, packed_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from tersor.entropy import TableSet

__all__ = [
    "compress",
    "decompress",
    "linear",
    "linear_experts",
    "linear_many",
    "load",
    "load_file",
    "load_model",
    "open_file",
    "packed_rows",
    "packed_tensor",
    "rans_decode_indexed",
    "rans_encode_indexed",
    "save",
    "save_file",
    "save_model",
    "table_tensor",
]

_DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
    "C64": torch.complex64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def rans_encode_indexed(
    symbols: torch.Tensor, indexes: torch.Tensor, tables: torch.Tensor, means: torch.Tensor | None = None
) -> torch.Tensor:
    """Code integers, each by the table that its index names: tersor.entropy.encode_indexed inside torch.compile.

    symbols, indexes: tensors of one shape on the CPU, of any integer dtype, values of 32 bits; symbols may be floats
    that hold whole numbers, as torch.round gives them. tables: uint8 [bytes], what table_tensor makes of a TableSet.
    means: None or integers, see encode_indexed. Returns the stream, uint8 [bytes].
    Raises TypeError (indexes or means that are no integers), RuntimeError (symbols that are not whole, an index without
    a table, counts that differ, tables that are none, over 32 bits).
    `torch.ops.tersor.rans_encode_indexed` takes an empty tensor for no means.
    """
    result: torch.Tensor = torch.ops.tersor.rans_encode_indexed(
        _symbols(symbols), _indexes(indexes), tables, _means(indexes, means)
    )
    return result


def rans_decode_indexed(
    data: torch.Tensor, indexes: torch.Tensor, tables: torch.Tensor, means: torch.Tensor | None = None
) -> torch.Tensor:
    """Give back what rans_encode_indexed was given, int32 in the shape of indexes.

    data: uint8 [bytes]; the others as they were given for encoding. Raises RuntimeError (damaged, or not what the
    stream was coded with).
    """
    result: torch.Tensor = torch.ops.tersor.rans_decode_indexed(data, _indexes(indexes), tables, _means(indexes, means))
    return result


def _symbols(symbols: torch.Tensor) -> torch.Tensor:
    if not symbols.is_floating_point():
        return _integers(symbols, "symbols")
    whole = symbols.to(torch.int64)
    torch._assert_async((whole == symbols).all(), "symbols are whole numbers: round them first")
    return whole.contiguous()


def _integers(tensor: torch.Tensor, what: str) -> torch.Tensor:
    if tensor.is_floating_point() or tensor.is_complex():
        raise TypeError(f"{what} are integers, not {tensor.dtype}")
    return (tensor if tensor.dtype in (torch.int32, torch.int64) else tensor.to(torch.int64)).contiguous()


def _indexes(indexes: torch.Tensor) -> torch.Tensor:
    return indexes.contiguous() if indexes.dtype == torch.uint8 else _integers(indexes, "indexes")


def _means(indexes: torch.Tensor, means: torch.Tensor | None) -> torch.Tensor:
    if means is None:
        return indexes.new_empty(0, dtype=torch.int32)
    if means.numel() != indexes.numel():
        raise ValueError(f"{means.numel()} means for {indexes.numel()} indexes")
    return _integers(means, "means (see TableSet.quantize_means)")


def table_tensor(tables: TableSet) -> torch.Tensor:
    """A TableSet as uint8 [bytes], for the operators: a buffer that a module can register and save."""
    return torch.frombuffer(bytearray(tables.to_bytes()), dtype=torch.uint8)


def save_file(
    tensors: Mapping[str, torch.Tensor],
    filename: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    *,
    level: int | None = None,
    base: checkpoint.Paths = None,
) -> None:
    """Save tensors under their names, exactly, as safetensors.torch.save_file does.

    tensors: name -> dense, contiguous tensor, any device. filename: replaced if it is there, once the new file is
    whole. metadata: text to keep beside them. level: 1 (fastest) to 9 (smallest), None for the default, 4.
    base: what the tensors are coded against where names, dtypes and sizes agree: a .safetensors, a .tsr, a folder of
    them, or several of these. The file holds their content's hash, not their paths; reading it needs them again.
    Raises ValueError (not a tensor; sparse; not contiguous; level), RuntimeError (tensors that share memory: use
    save_model), TypeError (a dtype without a number), OSError.
    """
    with fsspec.local_output(filename) as local:
        checkpoint.save_file(_elements(tensors), local, metadata, base, level, _threads())


def save(
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    level: int | None = None,
    base: checkpoint.Paths = None,
) -> bytes:
    """Return the bytes that `save_file` writes; same arguments, same errors."""
    return checkpoint.save(_elements(tensors), metadata, base, level, _threads())


def load_file(
    filename: str | os.PathLike[str], device: str | int = "cpu", *, base: checkpoint.Paths = None
) -> dict[str, torch.Tensor]:
    """Load every tensor of a .tsr file.

    device: where they go, any device of torch; decoding is done on the CPU. base: what the file was coded against, one
    path or several. Returns name -> fresh tensor, in the order
    of the file. Raises FormatError (not a .tsr file; damaged: says where), OSError.
    """
    with open_file(filename, device, base=base) as reader:
        return reader.get_tensors()


def load(data: Buffer, *, base: checkpoint.Paths = None) -> dict[str, torch.Tensor]:
    """Load every tensor, on the CPU, from the bytes that `save` returned, or of a .tsr file. Raises FormatError."""
    return _reader(checkpoint.open_bytes(data, base), "cpu").get_tensors()


def save_model(
    model: torch.nn.Module,
    filename: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    force_contiguous: bool = True,
    *,
    level: int | None = None,
    base: checkpoint.Paths = None,
) -> None:
    """Save a model's state dict, each shared tensor under one of its names, as safetensors.torch.save_model does.

    The other names go into the metadata, name -> kept name, where the caller's metadata does not use them.
    force_contiguous: save strided tensors in row-major order; False raises ValueError for them.
    Raises RuntimeError (shared tensors none of which covers their memory), and what `save_file` raises.
    """
    state, metadata = model.state_dict(), dict(metadata or {})
    for kept, dropped in _names_to_drop(state).items():
        for name in dropped:
            metadata.setdefault(name, kept)
            del state[name]
    if force_contiguous:
        state = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(state, filename, metadata, level=level, base=base)


def load_model(
    model: torch.nn.Module,
    filename: str | os.PathLike[str],
    strict: bool = True,
    device: str | int = "cpu",
    *,
    base: checkpoint.Paths = None,
) -> tuple[set[str], list[str]]:
    """Load a file into a model, shared tensors included, as safetensors.torch.load_model does.

    Returns (missing, unexpected): names of the model that the file does not give, and names of the file that the model
    does not take. Raises RuntimeError when strict and either is not empty, and what `load_file` raises.
    """
    loaded = load_file(filename, device, base=base)
    aliases = _names_to_drop(model.state_dict(), preferred=loaded.keys())
    absent, unexpected = model.load_state_dict(loaded, strict=False)
    missing = set(absent)
    for name in (name for names in aliases.values() for name in names):
        if name in missing:
            missing.remove(name)  # its memory was filled under the other name
        else:
            unexpected.append(name)
    if strict and (missing or unexpected):
        lines = [f"{type(model).__name__} and {os.fspath(filename)} do not hold the same tensors"]
        lines += [f"missing in the file: {', '.join(sorted(missing))}"] if missing else []
        lines += [f"unexpected in the file: {', '.join(sorted(unexpected))}"] if unexpected else []
        raise RuntimeError("\n    ".join(lines))
    return missing, unexpected


def compress(tensor: torch.Tensor, *, level: int | None = None) -> torch.Tensor:
    """Compress one tensor, exactly: `tersor.compress` with a result that torch can hold.

    tensor: dense, any shape and device. level: 1 (fastest) to 9 (smallest), None for the default, 4.
    Returns a 1-D uint8 tensor on the CPU, the same bytes as `tersor.compress`.
    Raises ValueError (not a tensor; sparse; on device meta; level), TypeError (a dtype without a number).
    """
    _check(tensor)
    data = lossless.compress_elements(_elements_of(tensor.contiguous()), level, _threads())
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())  # bytes are read-only, tensors are not


def decompress(data: torch.Tensor | Buffer, out: torch.Tensor | None = None) -> torch.Tensor:
    """Give back the tensor that `compress` was given.

    data: a uint8 CPU tensor or bytes. out: a contiguous CPU tensor of the same dtype and shape that is filled.
    Returns `out`, or a fresh CPU tensor. Raises FormatError (damaged), TypeError and ValueError (out).
    `torch.ops.tersor.decompress_into(data, out)` does the same inside torch.compile.
    """
    buffer: Any = data.numpy() if isinstance(data, torch.Tensor) else data
    if out is not None:
        return lossless.decompress(buffer, out, threads=_threads())
    file = _core.TensorFile.view(buffer, [])
    entry = lossless.only_tensor(file)
    return _reader(file, "cpu").get_tensor(entry.name)


def open_file(
    filename: str | os.PathLike[str], device: str | int = "cpu", *, base: checkpoint.Paths = None
) -> checkpoint.TensorReader[torch.Tensor]:
    """Open a .tsr file: `tersor.safe_open(filename, "pt", device)`."""
    with fsspec.local_input(filename) as local:
        return _reader(checkpoint.open_file(local, base), device)


def _threads() -> int:
    """Both torch.set_num_threads and tersor.set_num_threads are obeyed."""
    count: int = min(torch.get_num_threads(), _core.get_num_threads())
    return count


def _reader(file: Any, device: str | int) -> checkpoint.TensorReader[torch.Tensor]:
    where = torch.device(device)

    def wrap(bits: NDArray[Any], dtype: str) -> torch.Tensor:
        return torch.from_numpy(bits).view(_DTYPES[dtype]).to(where)  # NumPy has asked for huge pages

    return checkpoint.TensorReader(file, wrap, _threads)


def _elements(tensors: Mapping[str, torch.Tensor]) -> dict[str, lossless.Elements]:
    if not isinstance(tensors, Mapping):
        raise ValueError(f"tensors map names to torch.Tensor, found {type(tensors).__name__}")
    for name, tensor in tensors.items():
        with _named(name):
            _check(tensor)
    if shared := [names for names in _shared_names(tensors) if len(names) > 1]:
        raise RuntimeError(f"these tensors share memory and would come back apart: {shared}; save_model handles them")
    elements = {}
    for name, tensor in tensors.items():
        with _named(name):
            elements[name] = _elements_of(tensor)
    return elements


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Let errors say which of many tensors they are about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"tensor {name!r}: {error}") from None


def _check(tensor: torch.Tensor) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"a torch.Tensor is needed, found {type(tensor).__name__}")
    if tensor.layout != torch.strided:
        raise ValueError(f"a dense tensor is needed (to_dense()), found {tensor.layout}")
    if tensor.device.type == "meta":
        raise ValueError("a tensor with elements is needed, found one on device meta")


def _elements_of(tensor: torch.Tensor) -> lossless.Elements:
    if tensor.dtype not in _NAMES:
        raise TypeError(f"dtype {tensor.dtype} is not one of {', '.join(map(str, _NAMES))}")
    if not tensor.is_contiguous():
        raise ValueError("a contiguous tensor is needed (contiguous()), found a strided one")
    plain = tensor.detach().resolve_conj().resolve_neg().cpu()
    return lossless.Elements(_NAMES[plain.dtype], tuple(plain.shape), plain.data_ptr(), plain.nbytes, plain)


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """First and past-the-end address of the elements."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _shared_names(tensors: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Names by memory: two names are in one group when their elements overlap, directly or through others."""
    spans = sorted(
        (str(tensor.device), *_span(tensor), name)
        for name, tensor in tensors.items()
        if tensor.numel() and tensor.device.type != "meta"
    )
    groups: list[list[str]] = []
    device, reach = "", 0
    for here, start, stop, name in spans:
        if here == device and start < reach:
            groups[-1].append(name)
            reach = max(reach, stop)
        else:
            groups.append([name])
            device, reach = here, stop
    return groups


def _covers_its_memory(tensor: torch.Tensor) -> bool:
    storage = tensor.untyped_storage()
    whole: bool = tensor.data_ptr() == storage.data_ptr() and tensor.nbytes == storage.nbytes()
    return whole


def _names_to_drop(state: Mapping[str, torch.Tensor], preferred: Any = ()) -> dict[str, list[str]]:
    """Kept name -> the other names of its memory. Kept is the first in order that covers it, a preferred one before."""
    drop = {}
    for names in _shared_names(state):
        if len(names) == 1:
            continue
        whole = sorted(name for name in names if _covers_its_memory(state[name]))
        if not whole:
            raise RuntimeError(f"{sorted(names)} share memory and none covers all of it: save clones of them")
        kept = next((name for name in whole if name in preferred), whole[0])
        drop[kept] = sorted(name for name in names if name != kept)
    return drop
