"""What an import or an export tells of itself, and what all of them share. Page: docs/exchange.md."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tersor.formats.model_folder import ModelWriter

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
    """A ModelWriter whose parts go away where the work fails, and so does the folder if it was made for it."""
    there = out.exists()
    writer = ModelWriter(out)
    try:
        yield writer
    except BaseException:
        shutil.rmtree(out if not there else writer.parts, ignore_errors=True)
        raise


def copy_companions(source: Path, out: Path) -> None:
    """Tokenizer, chat template and the like."""
    for name in _COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def json_of(path: Path) -> dict[str, Any]:
    """An object of a file, empty where there is none. Raises ValueError."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: an object is needed, found {type(found).__name__}")
    return dict(found)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
