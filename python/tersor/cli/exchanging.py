"""`tersor export` and `tersor import`: models as other tools have them."""

from __future__ import annotations

import argparse
import collections
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tersor.cli.folders import whole_folder
from tersor.cli.progress import ProgressLine
from tersor.cli.text import amount, printable

if TYPE_CHECKING:
    from tersor.compat.exchanged import Exchanged

_PACKED = "compressed-tensors"
TARGETS = (_PACKED, "gguf-q4_0", "gguf-q8_0", "gguf-q4_k")


def add_export_arguments(command: argparse.ArgumentParser) -> None:
    """What `tersor export` takes beside its habits."""
    command.add_argument("model", metavar="MODEL", help="a folder of transformers, quantized by tersor or not")
    command.add_argument("out", metavar="OUT", help="a file for GGUF, a folder for compressed-tensors")
    command.add_argument("--to", required=True, choices=TARGETS, help="what the model becomes")
    text = "how much inputs matter, for GGUF's scales: a .safetensors file of vectors by parameter, or an imatrix.gguf"
    command.add_argument("--importance", metavar="F", help=text)
    text = "of compressed-tensors: 4 in groups of 128 (W4A16, the default), or 8 in rows (W8A16)"
    command.add_argument("--bits", type=int, choices=(4, 8), metavar="B", help=text)
    _add_force(command)


def add_import_arguments(command: argparse.ArgumentParser) -> None:
    """What `tersor import` takes beside its habits."""
    text = "a .gguf file, or a folder that GPTQ, AWQ or compressed-tensors has quantized"
    command.add_argument("model", metavar="IN", help=text)
    command.add_argument("out", metavar="OUT", help="the folder that it becomes")
    _add_force(command)


def run(arguments: argparse.Namespace) -> int:
    """Export or import, and tell what has changed. Raises what the files and the packages raise."""
    source, out = Path(arguments.model), Path(arguments.out)
    if not source.exists():
        raise FileNotFoundError(f"{source} is not there")
    with ProgressLine(source.name, hidden=arguments.quiet or arguments.json) as progress:
        if arguments.command == "export" and arguments.to != _PACKED:
            done = _write_gguf(source, out, arguments, progress)
        else:
            done = _write_folder(source, out, arguments, progress)
    if arguments.json:
        print(json.dumps({"bytes": done.nbytes, "tensors": done.tensors, "notes": done.notes}))
    elif not arguments.quiet:
        for note in done.notes:
            print(printable(note))
        kinds = collections.Counter(done.tensors.values())
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        print(f"{out}: {amount(done.nbytes)}, {shown}")
    return 0


def _write_gguf(source: Path, out: Path, arguments: argparse.Namespace, progress: ProgressLine) -> Exchanged:
    from tersor.compat.gguf_export import export_gguf, read_importance

    if arguments.bits:
        raise ValueError(f"--bits is for {_PACKED}: {arguments.to} says how many")
    if out.is_dir():
        raise IsADirectoryError(f'"{out}" is a folder, {arguments.to} is a file')
    if out.exists() and not arguments.force:
        raise FileExistsError(f'"{out}" exists; -f overwrites it')
    importance = read_importance(arguments.importance, source) if arguments.importance else None
    return export_gguf(source, out, arguments.to.removeprefix("gguf-"), importance=importance, progress=progress)


def _write_folder(source: Path, out: Path, arguments: argparse.Namespace, progress: ProgressLine) -> Exchanged:
    """Whole, or not at all."""
    from tersor.compat.gguf_import import import_gguf
    from tersor.compat.integer_import import import_quantized
    from tersor.compat.packed_export import export_packed

    packed = arguments.command == "export"
    if packed and arguments.importance:
        raise ValueError("--importance is for GGUF")
    empty = out.is_dir() and not any(out.iterdir())
    with whole_folder(str(out), force=arguments.force or empty, apart_from=[str(source)]) as made:
        if packed:
            return export_packed(source, made, bits=arguments.bits or 4, progress=progress)
        return (import_quantized if source.is_dir() else import_gguf)(source, made, progress=progress)


def _add_force(command: argparse.ArgumentParser) -> None:
    command.add_argument("-f", "--force", action="store_true", help="write over what is there")
