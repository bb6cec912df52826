"""What an import or an export tells of itself, and what all of them share. Page: docs/exchange.md."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tersor import _core
from tersor.formats.model_folder import Entry, ModelWriter, read_json, weight_files
from tersor.formats.safetensors_file import Reader

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

_PART = 256 << 20  # bytes

# What a model's folder has beside config.json and weights, as far as another tool can use it.
_COMPANIONS = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json", "README.md", "LICENSE",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Exchanged:
    """nbytes: of the files with weights. tensors: name -> what it is stored as now. notes: what is not as it was."""

    nbytes: int = 0
    tensors: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def writing(out: Path) -> Iterator[ModelWriter]:
    """A ModelWriter of a folder that is empty or not there, as which it is left where the work fails.

    Files of another model would be read as part of this one. Raises FileExistsError.
    """
    there = out.exists()
    if there and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"{out} is there already, an empty folder or none is needed")
    try:
        yield ModelWriter(out)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        if there:
            out.mkdir(exist_ok=True)
        raise


def finished(found: Exchanged, out: Path) -> Exchanged:
    """With the bytes of the files with weights."""
    return dataclasses.replace(found, nbytes=sum(path.stat().st_size for path in weight_files(out)))


def copy_companions(source: Path, out: Path) -> None:
    """Tokenizer, chat template and the like."""
    for name in _COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def json_of(path: Path) -> dict[str, Any]:
    """An object of a file, empty where there is none. Raises FormatError."""
    return read_json(path) if path.is_file() else {}


class ForeignFolder:
    """The arrays of a folder with config.json and .safetensors files, whatever quantized it. A context manager.

    Raises FileNotFoundError, FormatError (damaged), OSError.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.config = path, json_of(path / "config.json")
        with contextlib.ExitStack() as stack:
            readers = [stack.enter_context(Reader(file)) for file in weight_files(path)]
            self._open = stack.pop_all()
        self._at = {name: reader for reader in readers for name in reader.shapes}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def names(self) -> list[str]:
        return list(self._at)

    def nbytes(self, name: str) -> int:
        return self._at[name].nbytes(name)

    def read(self, name: str, dtypes: Collection[str] = (), shape: tuple[int, ...] | None = None) -> NDArray[Any]:
        """An array; dtypes: safetensors' names that it may have, shape: what it must have. Raises FormatError."""
        if name not in self._at:
            raise _core.FormatError(f"{self.path} has no tensor {name}")
        dtype, found = self._at[name].shapes[name]
        if (dtypes and dtype not in dtypes) or (shape is not None and found != shape):
            needed = f"{' or '.join(dtypes)} {list(shape) if shape is not None else ''}".strip()
            raise _core.FormatError(f"{self.path}: {name} is {dtype} {list(found)}, {needed} is needed")
        return self._at[name].read(name)


class Parts:
    """Entries for a ModelWriter, written whenever some hundred megabytes have come together."""

    def __init__(self, writer: ModelWriter) -> None:
        self._writer, self._entries, self._number, self._bytes = writer, dict[str, Entry](), 0, 0

    def add(self, name: str, entry: Entry) -> None:
        self._entries[name] = entry
        self._bytes += getattr(entry.tensor, "nbytes", 0)
        if self._bytes >= _PART:
            self.flush()

    def flush(self) -> None:
        self._writer.write_part(self._number, self._entries)
        self._entries, self._bytes, self._number = {}, 0, self._number + 1
