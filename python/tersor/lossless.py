"""Exact arrays: any array to bytes and back, bit for bit. The typed door to `csrc/lossless`; pages: docs/formats/."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, overload

import ml_dtypes
import numpy as np

from tersor import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    class DLPack(Protocol):
        """An array of another library, torch's among them."""

        def __dlpack__(self, **options: Any) -> Any: ...
        def __dlpack_device__(self) -> tuple[int, int]: ...


# safetensors' names, which are also the container's.
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(scalar)
    for name, scalar in {
        "BOOL": np.bool_,
        "U8": np.uint8,
        "I8": np.int8,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
        "I16": np.int16,
        "U16": np.uint16,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "I32": np.int32,
        "U32": np.uint32,
        "F32": np.float32,
        "F64": np.float64,
        "I64": np.int64,
        "U64": np.uint64,
        "C64": np.complex64,
    }.items()
}
_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}
# ml_dtypes' elements have no buffer format; the unsigned integers of the same bits have one.
_BITS = {
    name: np.dtype(f"u{dtype.itemsize}") for name, dtype in NUMPY_DTYPES.items() if dtype.type.__module__ != "numpy"
}
_CPU_DEVICES = (1, 3, 11)  # DLPack's kDLCPU, kDLCUDAHost, kDLROCMHost: memory that the CPU reads

Out = TypeVar("Out")


class Elements(NamedTuple):
    """An array's elements where they lie: row-major, no gaps, little-endian."""

    dtype: str
    shape: tuple[int, ...]
    address: int
    nbytes: int
    owner: object  # keeps the memory alive


def elements_of(array: object, *, writable: bool = False) -> Elements:
    """Find an array's elements without copying them; only strided and big-endian arrays are copied into order.

    array: NumPy, torch on the CPU, anything with __dlpack__, or a buffer (bytes are a 1-d U8 array).
    writable: a result goes there, so nothing may be copied.
    Raises TypeError (no array; a dtype that .tsr has no number for), ValueError (not in the CPU's memory; writable, and
    the array is read-only, strided or big-endian).
    """
    if type(array) is np.ndarray:
        return _of_numpy(array, writable)
    if type(array) is bytes and not writable:
        return Elements("U8", (len(array),), _core.Foreign(array, False).address, len(array), array)
    if isinstance(array, (np.ndarray, np.generic)):
        plain = np.asarray(array)
        if isinstance(array, np.generic):
            plain.flags.writeable = False  # a copy of the scalar: nobody would see what is written there
        return _of_numpy(plain, writable)
    if hasattr(array, "__dlpack__"):
        return _of_foreign(array, writable)
    try:
        view = memoryview(array)  # type: ignore[arg-type]
    except TypeError:
        found = type(array).__name__
        raise TypeError(f"an array is needed (NumPy, torch, DLPack or a buffer), found {found}") from None
    return _of_numpy(np.asarray(view), writable)


def _of_numpy(array: NDArray[Any], writable: bool) -> Elements:
    name, flags = _NAMES.get(array.dtype), array.flags
    if name is None or not flags.c_contiguous or (writable and not flags.writeable):
        array = _in_order(array, writable)
        name = _NAMES[array.dtype]
    buffer = array.view(_BITS[name]) if name in _BITS else array
    # A buffer tells its address in a fifth of the time that NumPy's own ways take.
    return Elements(name, array.shape, _core.Foreign(buffer, False).address, array.nbytes, array)


def _in_order(array: NDArray[Any], writable: bool) -> NDArray[Any]:
    native = array.dtype.newbyteorder("=")
    if native not in _NAMES:
        raise TypeError(f"dtype {array.dtype} is not one of {', '.join(str(dtype) for dtype in _NAMES)}")
    if writable:
        raise ValueError(
            "a writable array, row-major without gaps and of this machine's byte order is needed, found "
            f"writeable={array.flags.writeable}, c_contiguous={array.flags.c_contiguous}, dtype={array.dtype.str}"
        )
    return np.asarray(array, dtype=native, order="C")


def _of_foreign(array: Any, writable: bool) -> Elements:
    if hasattr(array, "detach"):  # torch exports no tensor that takes part in autograd
        array = array.detach()
    device = array.__dlpack_device__()
    if device[0] not in _CPU_DEVICES:
        raise ValueError(f"an array in the CPU's memory is needed, found one on DLPack device {int(device[0])}")
    foreign = _core.Foreign(array, writable)
    if not foreign.dtype:
        raise TypeError(f"dtype {getattr(array, 'dtype', 'unknown')} is not one of {', '.join(NUMPY_DTYPES)}")
    if not foreign.contiguous:
        if writable:
            raise ValueError("a row-major array without gaps is needed, found a strided one")
        if hasattr(array, "contiguous"):  # torch's, which has bf16 and fp8; NumPy takes neither through DLPack
            return _of_foreign(array.contiguous(), False)
        return _of_numpy(np.from_dlpack(array), False)
    return Elements(foreign.dtype, tuple(foreign.shape), foreign.address, foreign.nbytes, foreign)


def compress(array: object, *, level: int | None = None) -> bytes:
    """Compress one array, exactly.

    array: NumPy, torch on the CPU, anything with __dlpack__, or a buffer (bytes are a 1-d uint8 array); any shape.
    Strided and big-endian arrays are copied into order first. level: 1 (fastest) to 9 (smallest), None for the
    default, 4.
    Returns a .tsr container with one unnamed tensor; the same array and level give the same bytes.
    Raises TypeError (no array; a dtype that .tsr has no number for), ValueError (level; not in the CPU's memory).
    """
    return compress_elements(elements_of(array), level, 0)


def compress_elements(elements: Elements, level: int | None, threads: int) -> bytes:
    """Do as `compress`, with elements that a door has found. threads: 0 for get_num_threads()."""
    chosen = _core.DEFAULT_LEVEL if level is None else level
    return _core.compress_array(elements.dtype, elements.shape, elements.address, elements.nbytes, chosen, threads)


@overload
def decompress(data: Buffer, out: None = None, *, threads: int = 0) -> NDArray[Any]: ...
@overload
def decompress(data: Buffer, out: Out, *, threads: int = 0) -> Out: ...
def decompress(data: Buffer, out: Any = None, *, threads: int = 0) -> Any:
    """Give back the array that `compress` was given.

    data: what `compress` returned, in any buffer. out: a writable array of the same dtype and shape, row-major, that is
    filled. threads: 0 for get_num_threads().
    Returns `out`, or a fresh NumPy array; bf16 and fp8 have ml_dtypes' dtypes.
    Raises FormatError (damaged; a .tsr file of named tensors), TypeError and ValueError (out's dtype, shape, order).
    """
    file = _core.TensorFile.view(data, [])
    entry = only_tensor(file)
    if out is None:
        result = np.empty(entry.shape, NUMPY_DTYPES[entry.dtype])  # NumPy asks for huge pages
        target = elements_of(result, writable=True)
    else:
        result, target = out, elements_of(out, writable=True)
        if (target.dtype, target.shape) != (entry.dtype, entry.shape):
            kind = TypeError if target.dtype != entry.dtype else ValueError
            raise kind(f"out is {target.dtype} {list(target.shape)}, the data is {entry.dtype} {list(entry.shape)}")
    file.read([(entry.index, 0, target.address, target.nbytes)], threads)
    return result


def only_tensor(file: _core.TensorFile) -> _core.Entry:
    """Find the tensor of a container that `compress` made; FormatError for any other container."""
    if file.origin != "array":
        raise _core.FormatError(
            f"one array is needed, as compress makes it; found a container of origin {file.origin} with "
            f"{len(file.entries)} entries: load, load_file and safe_open read those"
        )
    return file.entries[0]
