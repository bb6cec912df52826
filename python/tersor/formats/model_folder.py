"""A model's folder as transformers has it, with matrices in few bits. Page: docs/model_folder.md.

with ModelFolder("OUT") as folder:                        # any folder with .safetensors files, quantized or not
    for name in folder.names(): print(name, folder.get(name))
writer = ModelWriter("OUT")
writer.write_part(0, {"model.embed_tokens.weight": Entry(array), "lm_head.weight": Entry(quantized)})
writer.finish(config)
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import _core
from tersor.formats.files import KEY, VERSION, row_of, tensor_of_row
from tersor.formats.quantized import QuantizedTensor
from tersor.formats.safetensors_file import Reader, whole_file, write, write_header
from tersor.lossless import NUMPY_DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

METHOD = "tersor"  # transformers' quant_method
MODULES = ("linear", "conv1d", "embedding", "expert")

_INDEX = "model.safetensors.index.json"
_PARTS = ".parts"
_SHARD = 4 << 30  # bytes


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A tensor of a model, under the name of its parameter.

    tensor: a QuantizedTensor or an array. module: what holds a quantized matrix: "linear", "conv1d" (whose parameter
    is the transposed matrix), "embedding" or "expert" (one of a parameter [experts, N, K], its number ends the name).
    tied_to: the parameter that has the same matrix; `tensor` is None then.
    """

    tensor: Any
    module: str = "linear"
    tied_to: str = ""

    def __post_init__(self) -> None:
        if self.module not in MODULES:
            raise ValueError(f"modules are {', '.join(MODULES)}, not {self.module!r}")


class ModelFolder:
    """The tensors of a folder with config.json and .safetensors files, by the names of the model's parameters.

    config: config.json. rows: parameter -> what config.json says of a quantized matrix.
    Raises FileNotFoundError, FormatError (damaged; a quantized model of another method or version), OSError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = read_json(self.path / "config.json")
        self.files = weight_files(self.path)
        self.rows = rows_of_config(self.config, str(self.path))
        with contextlib.ExitStack() as stack:
            readers = [stack.enter_context(Reader(file)) for file in self.files]
            self._open = stack.pop_all()
        self._at = {name: reader for reader in readers for name in reader.shapes}
        hidden = array_names(self.rows)
        self._plain = [name for name in self._at if name not in hidden]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    @property
    def nbytes(self) -> int:
        """Of the files with weights."""
        return sum(file.stat().st_size for file in self.files)

    def names(self) -> list[str]:
        """Every parameter; those of quantized matrices first."""
        return [*self.rows, *self._plain]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of what `get` gives, nothing of it read."""
        if name in self.rows:
            row = self.rows[name]
            return tuple(self.rows[row["tied_to"]]["shape"] if row.get("tied_to") else row["shape"])
        return self._at[name].shapes[name][1]

    def dtype(self, name: str) -> str:
        """Of what `get` gives, by safetensors' name, nothing of it read."""
        return str(self.rows[name]["dtype"]) if name in self.rows else self._at[name].shapes[name][0]

    def get(self, name: str) -> QuantizedTensor | NDArray[Any]:
        """A QuantizedTensor, or a fresh array. Raises KeyError, FormatError (damaged), OSError."""
        if name not in self.rows:
            return self._at[name].read(name)
        row = self.rows[name]
        if row.get("tied_to"):
            return self.get(row["tied_to"])
        return _tensor(row, name, lambda place: self._at[place].read(place), self.path)


def weight_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The .safetensors files of a model's folder. Raises FileNotFoundError, FormatError (an index that is damaged)."""
    here = Path(folder)
    if (here / "model.safetensors").is_file():
        return [here / "model.safetensors"]
    if not (here / _INDEX).is_file():
        raise FileNotFoundError(f"{here} has no model.safetensors and no {_INDEX}")
    try:
        names = sorted({str(name) for name in read_json(here / _INDEX)["weight_map"].values()})
    except (KeyError, AttributeError) as error:
        raise _core.FormatError(f"{here / _INDEX}: an index with a weight_map is needed: {error!r}") from None
    for name in names:
        if Path(name).name != name:  # a name is data: it must not lead out of the folder
            raise _core.FormatError(f"{here}: the index names the shard {name!r}, a file name is needed")
        if not (here / name).is_file():
            raise FileNotFoundError(f"{here} has no shard {name}")
    return [here / name for name in names]


def rows_of_config(config: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """What config.json says of quantized matrices, none for a model that is not quantized. Raises FormatError."""
    found = config.get("quantization_config")
    if found is None:
        return {}
    method = found.get("quant_method") if isinstance(found, Mapping) else found
    if method != METHOD:
        raise _core.FormatError(f"{where}: quantized by {method!r}: tersor import makes it one of {METHOD!r}")
    if found.get("version") != VERSION:
        raise _core.FormatError(f"{where}: a model quantized by version {found.get('version')!r}, {VERSION} is needed")
    rows = found.get("layers")
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise _core.FormatError(f"{where}: quantization_config has no layers")
    for name, row in rows.items():
        if row.get("module") not in MODULES:
            raise _core.FormatError(f"{where}: {name} is a matrix of a {row.get('module')!r}, not of {MODULES}")
        tied = row.get("tied_to")
        if tied and (not isinstance(tied, str) or tied not in rows or rows[tied].get("tied_to")):
            raise _core.FormatError(f"{where}: {name} is tied to {tied!r}, which has no matrix")
        if not tied and (told := _misshapen(row)):
            raise _core.FormatError(f"{where}: {name}: {told}")
    return rows


def _misshapen(row: Mapping[str, Any]) -> str:
    """What is wrong with a row's structure; its values are tensor_of_row's to judge."""
    shape = row.get("shape")
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)):
        return f"a shape [N, K] is needed, found {shape!r}"
    recorded = [row.get(what, []) for what in ("transforms", "side_terms")]
    if not all(isinstance(some, list) and all(isinstance(one, dict) for one in some) for some in recorded):
        return "transforms and side_terms are lists of objects"
    for one in (row, *recorded[0], *recorded[1]):
        parts = one.get("parts")
        if not isinstance(parts, dict) or not all(isinstance(place, str) for place in parts.values()):
            return f"parts are an object of names, found {parts!r}"
    return ""


def marked(name: str, module: str) -> str:
    """The parameter that a quantized matrix stands for: an expert's is that of them all."""
    return name.rpartition(".")[0] if module == "expert" else name


def stem(name: str, module: str = "") -> str:
    """How the parts of a parameter's matrix begin: as those of tersor.nn's layer do in its state_dict."""
    if module == "expert":
        rest, _, number = name.rpartition(".")
        path, _, parameter = rest.rpartition(".")
        return f"{path}.{number}.{parameter}"
    return name.removesuffix(".weight")


class ModelWriter:
    """Writes a model's folder from parts, each whole on disk before the next is asked for.

    Parts lie in OUT/.parts until `finish` copies them into model.safetensors, or shards with an index, and config.json.
    A tensor of a later part replaces one of the same name.
    The same parts give the same bytes. path: made where it is not there.
    """

    def __init__(self, path: str | os.PathLike[str], *, shard_bytes: int = _SHARD) -> None:
        self.path, self._shard_bytes = Path(path), shard_bytes
        self.parts = self.path / _PARTS
        shutil.rmtree(
            self.parts.with_name(f"{_PARTS}.done"), ignore_errors=True
        )  # of a run that ended in its last step
        self.parts.mkdir(parents=True, exist_ok=True)

    def has_part(self, number: int) -> bool:
        return self._file(number).is_file()

    def begin(self, run: Mapping[str, Any]) -> None:
        """Say what run the parts are of, fit for JSON. Raises ValueError where there are parts of another."""
        place, wanted = self.parts / "run.json", json.loads(json.dumps(dict(run)))
        if not place.exists():
            write_json(place, wanted)
        before = read_json(place)
        for key in sorted(wanted.keys() | before.keys()):
            if before.get(key) != wanted.get(key):
                told = [_short(one.get(key)) for one in (before, wanted)]
                raise ValueError(f"{self.path} was begun with another {key}, {told[0]}, and now it is {told[1]}")

    def leave(self) -> None:
        """Take away a folder in which nothing has been written that is worth going on with."""
        if {path.name for path in self.parts.iterdir()} <= {"run.json"}:
            shutil.rmtree(self.parts)
            with contextlib.suppress(OSError):  # it held something before
                self.path.rmdir()

    def write_part(
        self, number: int, entries: Mapping[str, Entry], notes: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Write tensors by their parameters' names; notes: of the caller, fit for JSON. Returns the matrices' rows."""
        arrays: dict[str, NDArray[Any]] = {}
        rows: dict[str, Any] = {}
        for name, entry in entries.items():
            tensor = entry.tensor
            if entry.tied_to:
                rows[name] = {"module": entry.module, "tied_to": entry.tied_to}
                continue  # an alias in the model as well, which no file has
            elif isinstance(tensor, QuantizedTensor):
                own = tensor.arrays()
                placed = {part: f"{stem(name, entry.module)}.{part}" for part in own}
                arrays |= {placed[part]: array for part, array in own.items()}
                rows[name] = {"module": entry.module, **row_of(tensor, placed, symbols=False)}
            else:
                arrays[name] = np.asarray(tensor)
                continue
            # What does not know these matrices would take their layers for ones that were never trained, and go on.
            # A parameter of no elements stops it: docs/model_folder.md.
            arrays[marked(name, entry.module)] = np.zeros(0, np.uint8)
        write(arrays, {"rows": json.dumps(rows), "notes": json.dumps(notes or {})}, self._file(number))
        return rows

    def read_part(self, number: int) -> tuple[dict[str, QuantizedTensor | NDArray[Any]], dict[str, Any]]:
        """What write_part was given: tensors that are not tied, and notes. Raises FormatError, OSError."""
        with Reader(self._file(number)) as reader:
            rows = json.loads(reader.metadata["rows"])
            hidden = array_names(rows)
            found: dict[str, Any] = {name: reader.read(name) for name in reader.shapes if name not in hidden}
            for name, row in rows.items():
                if not row.get("tied_to"):
                    found[name] = _tensor(row, name, reader.read, self._file(number))
            return found, json.loads(reader.metadata["notes"])

    def notes(self, number: int) -> dict[str, Any]:
        """What write_part was given beside the tensors. Raises FormatError, OSError."""
        with Reader(self._file(number)) as reader:
            found: dict[str, Any] = json.loads(reader.metadata["notes"])
            return found

    def finish(
        self,
        config: Mapping[str, Any],
        quantization: Mapping[str, Any] | None = None,
        *,
        beside: Callable[[], None] | None = None,
    ) -> None:
        """Write the model's files and take the parts away.

        quantization: further members of quantization_config. beside: writes what else belongs there, when the weights
        are whole and config.json, the last, is not.
        """
        with contextlib.ExitStack() as stack:
            files = sorted(self.parts.glob("*.safetensors"))
            readers = [stack.enter_context(Reader(file)) for file in files]
            rows = {name: row for reader in readers for name, row in json.loads(reader.metadata["rows"]).items()}
            shards = list(self._shards(readers, rows))
            index: dict[str, str] = {}
            for i, arrays in enumerate(shards):
                many = len(shards) > 1
                name = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" if many else "model.safetensors"
                _write_shard(self.path / name, self.parts, arrays, rows)
                index |= dict.fromkeys(arrays, name)
        if len(shards) > 1:
            total = sum(reader.nbytes(name) for arrays in shards for name, reader in arrays.items())
            write_json(self.path / _INDEX, {"metadata": {"total_size": total}, "weight_map": index})
        if beside is not None:
            beside()
        found = dict(config)
        if rows:
            layers = {name: rows[name] for name in sorted(rows)}
            found["quantization_config"] = {
                "quant_method": METHOD, "version": VERSION, **(quantization or {}), "layers": layers,
            }  # fmt: skip
        write_json(self.path / "config.json", found)
        gone = self.parts.with_name(f"{_PARTS}.done")
        os.replace(self.parts, gone)  # at once: parts of which some are gone would look like those of a run cut off
        shutil.rmtree(gone)

    def _file(self, number: int) -> Path:
        return self.parts / f"{number:06d}.safetensors"

    def _shards(self, readers: list[Reader], rows: Mapping[str, Any]) -> Iterator[dict[str, Reader]]:
        """The arrays of each file: in the order of parts, those of a matrix together; a later part's replace others."""
        home = {place: name for name, row in rows.items() for place in places_of(row)}
        last = {name: reader for reader in readers for name in reader.shapes}
        shard: dict[str, Reader] = {}
        size = 0
        for reader in readers:
            together: dict[str, list[str]] = {}
            for name in (name for name in reader.shapes if last[name] is reader):
                together.setdefault(home.get(name, name), []).append(name)
            for names in together.values():
                needed = sum(reader.nbytes(name) for name in names)
                if shard and size + needed > self._shard_bytes:
                    yield shard
                    shard, size = {}, 0
                shard |= dict.fromkeys(names, reader)
                size += needed
        yield shard


def _tensor(row: Mapping[str, Any], name: str, read: Callable[[str], NDArray[Any]], where: Path) -> QuantizedTensor:
    try:
        return tensor_of_row(row, {place: read(place) for place in places_of(row)})[0]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        told = f"no array is named {error}" if isinstance(error, KeyError) else str(error)
        raise _core.FormatError(f"{where}: {name}: {told}") from None


def array_names(rows: Mapping[str, Any]) -> set[str]:
    """Arrays that are part of a quantized matrix, or mark its parameter."""
    return {place for row in rows.values() for place in places_of(row)} | {
        marked(name, row["module"]) for name, row in rows.items() if not row.get("tied_to")
    }


def places_of(row: Mapping[str, Any]) -> list[str]:
    """The names of a matrix's arrays."""
    recorded = [*row.get("transforms", ()), *row.get("side_terms", ())]
    return [place for one in (row, *recorded) for place in one.get("parts", {}).values()]


def _write_shard(path: Path, scratch: Path, arrays: Mapping[str, Reader], rows: Mapping[str, Any]) -> None:
    here = {
        stem(name, row["module"]): {key: value for key, value in row.items() if key != "module"}
        for name, row in rows.items()
        if (places := places_of(row)) and all(place in arrays for place in places)
    }
    texts = {"format": "pt"}  # transformers asks for it
    if here:
        texts[KEY] = json.dumps({"version": VERSION, "tensors": here}, separators=(",", ":"))
    names = sorted(arrays, key=lambda name: (-NUMPY_DTYPES[arrays[name].shapes[name][0]].itemsize, name))
    beside = scratch / f"{path.name}.{secrets.token_hex(8)}"  # where nothing outlives the run
    with whole_file(path, beside) as file:
        write_header(file, {name: arrays[name].shapes[name] for name in names}, texts)
        for name in names:
            file.write(arrays[name].read(name).reshape(-1).view(np.uint8).data)


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return repr(text if len(text) <= 60 else text[:57] + "...")


def read_json(path: Path) -> dict[str, Any]:
    """An object of a file. Raises FormatError, OSError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _core.FormatError(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise _core.FormatError(f"{path}: an object is needed, found {type(found).__name__}")
    return found


def write_json(path: Path, value: object) -> None:
    """Write a file that is whole or not there."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    beside.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(beside, path)
