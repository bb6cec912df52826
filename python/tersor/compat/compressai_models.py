"""Puts tersor.compat.compressai_ans in the place of CompressAI's own coder, and takes it away again.

CompressAI turns tensors into lists for its coder, which then takes longer than the coding itself; while installed, its
entropy models hand over the tensors. What they check, raise, round and return is theirs still.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CLASSES = ("RansEncoder", "BufferedRansEncoder", "RansDecoder")
_undo: list[tuple[Any, str, Any]] = []  # object, attribute, what it was


def install() -> None:
    """Make CompressAI (1.2) code with tersor; a second call changes nothing.

    Models that are made from then on code with tersor: `compressai.ans` and every name in a loaded module that was
    imported from it is ours, and EntropyModel.compress and decompress (and EntropyModelVbr's) pass tensors. Models made
    before go on with CompressAI's coder, but for context models, which make their coder anew in each call. Strings are
    tersor's: other strings than CompressAI's, which it cannot read. Raises ImportError (no compressai).
    """
    if _undo:
        return
    try:
        import compressai.ans
        import compressai.entropy_models
    except ImportError as error:
        raise ImportError("this needs CompressAI: pip install compressai") from error
    from tersor.compat import compressai_ans

    theirs = sys.modules["compressai.ans"]
    replaced = {id(theirs): compressai_ans} | {
        id(getattr(theirs, name)): getattr(compressai_ans, name) for name in _CLASSES
    }
    for module in list(sys.modules.values()):
        if module is theirs or module is compressai_ans:
            continue
        for name, value in list(vars(module).items()) if hasattr(module, "__dict__") else ():
            if id(value) in replaced:
                _put(module, name, replaced[id(value)])
    _undo.append((sys.modules, "compressai.ans", theirs))
    sys.modules["compressai.ans"] = compressai_ans
    models = compressai.entropy_models
    _put(models.EntropyModel, "compress", _compress(models.EntropyModel.compress))
    _put(models.EntropyModel, "decompress", _decompress(models.EntropyModel.decompress))
    variable = getattr(models, "EntropyModelVbr", None)  # since 1.2.7
    if variable is not None:
        _put(variable, "compress", _compress_variable(variable.compress))
        _put(variable, "decompress", _decompress_variable(variable.decompress))


def uninstall() -> None:
    """Give CompressAI its own coder back. Models made in between keep tersor's, and pass it lists."""
    while _undo:
        where, name, value = _undo.pop()
        if isinstance(where, dict):
            where[name] = value
        else:
            setattr(where, name, value)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """`with installed():` installs for a block, unless it was installed before."""
    before = bool(_undo)
    install()
    try:
        yield
    finally:
        if not before:
            uninstall()


def _put(where: Any, name: str, value: Any) -> None:
    _undo.append((where, name, vars(where)[name]))
    setattr(where, name, value)


def _is_ours(model: Any) -> bool:
    from tersor.compat import compressai_ans

    return isinstance(getattr(model.entropy_coder, "_encoder", None), compressai_ans.RansEncoder)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).int()


def _tables(model: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    for check in (model._check_cdf_size, model._check_cdf_length, model._check_offsets_size):
        check()
    return model._quantized_cdf, _flat(model._cdf_length), _flat(model._offset)


def _encode(model: Any, inputs: torch.Tensor, symbols: torch.Tensor, indexes: torch.Tensor) -> list[bytes]:
    if inputs.dim() < 2:
        raise ValueError(f"Invalid `inputs` size: 2 dimensions at least are needed, found {inputs.dim()}")
    if inputs.size() != indexes.size():
        raise ValueError(f"`inputs` and `indexes` have one size, found {inputs.size()} and {indexes.size()}")
    tables = _tables(model)
    coder = model.entropy_coder
    return [coder.encode_with_indexes(_flat(symbols[i]), _flat(indexes[i]), *tables) for i in range(symbols.size(0))]


def _decode(model: Any, strings: Any, indexes: torch.Tensor, means: torch.Tensor | None) -> torch.Tensor:
    if not isinstance(strings, (tuple, list)):
        raise ValueError(f"Invalid `strings`: a list is needed, found {type(strings).__name__}")
    if len(strings) != indexes.size(0):
        raise ValueError(f"Invalid `strings` or `indexes`: {len(strings)} strings for {indexes.size(0)} indexes")
    if indexes.dim() < 2:
        raise ValueError(f"Invalid `indexes` size: 2 dimensions at least are needed, found {indexes.dim()}")
    tables = _tables(model)
    if means is not None and (
        means.size()[:2] != indexes.size()[:2]
        or (means.size() != indexes.size() and any(means.size(i) != 1 for i in range(2, indexes.dim())))
    ):
        raise ValueError(f"Invalid `means`: their size is {means.size()}, the indexes' {indexes.size()}")
    outputs: torch.Tensor = model._quantized_cdf.new_empty(indexes.size())
    for i, string in enumerate(strings):
        symbols = model.entropy_coder.decode_with_indexes(string, _flat(indexes[i]), *tables)
        outputs[i] = symbols.reshape(outputs[i].size())
    return outputs


Method = Any  # of EntropyModel: CompressAI carries no types that are ours to repeat


def _compress(theirs: Callable[..., Any]) -> Method:
    @functools.wraps(theirs)
    def compress(self: Any, inputs: Any, indexes: Any, means: Any = None) -> Any:
        if not _is_ours(self):
            return theirs(self, inputs, indexes, means)
        return _encode(self, inputs, self.quantize(inputs, "symbols", means), indexes)

    return compress


def _compress_variable(theirs: Callable[..., Any]) -> Method:
    @functools.wraps(theirs)
    def compress(self: Any, inputs: Any, indexes: Any, means: Any = None, qs: Any = None) -> Any:
        if not _is_ours(self):
            return theirs(self, inputs, indexes, means, qs)
        if qs is None:
            symbols = self.quantize(inputs, "symbols", means)
        else:
            symbols = self.quantize_variable(inputs, "symbols", means=means, qs=qs)
        return _encode(self, inputs, symbols, indexes)

    return compress


def _decompress(theirs: Callable[..., Any]) -> Method:
    @functools.wraps(theirs)
    def decompress(self: Any, strings: Any, indexes: Any, dtype: Any = torch.float, means: Any = None) -> Any:
        if not _is_ours(self):
            return theirs(self, strings, indexes, dtype, means)
        return self.dequantize(_decode(self, strings, indexes, means), means, dtype)

    return decompress


def _decompress_variable(theirs: Callable[..., Any]) -> Method:
    @functools.wraps(theirs)
    def decompress(
        self: Any, strings: Any, indexes: Any, dtype: Any = torch.float, means: Any = None, qs: Any = None
    ) -> Any:
        if not _is_ours(self):
            return theirs(self, strings, indexes, dtype, means, qs)
        outputs = _decode(self, strings, indexes, means)
        if qs is None:
            return self.dequantize(outputs, means, dtype)
        return self.dequantize_variable(outputs, means=means, dtype=dtype, qs=qs)

    return decompress
