"""`tersor export` and `tersor import`: models as other tools have them."""

from __future__ import annotations

import argparse
import collections
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tersor.cli.progress import ProgressLine
from tersor.cli.text import amount, printable

if TYPE_CHECKING:
    from tersor.compat.exchanged import Exchanged

TARGETS = ("compressed-tensors", "gguf-q4_0", "gguf-q8_0", "gguf-q4_k")


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
    if out.exists() and not arguments.force and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"{out} is there already: -f overwrites")
    work = _export if arguments.command == "export" else _import
    done = work(source, out, arguments)
    if arguments.json:
        print(json.dumps({"bytes": done.nbytes, "tensors": done.tensors, "notes": done.notes}))
    elif not arguments.quiet:
        for note in done.notes:
            print(printable(note))
        kinds = collections.Counter(done.tensors.values())
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        print(f"{out}: {amount(done.nbytes)}, {shown}")
    return 0


def _export(source: Path, out: Path, arguments: argparse.Namespace) -> Exchanged:
    from tersor.compat.gguf_export import export_gguf, read_importance
    from tersor.compat.packed_export import export_packed

    packed = arguments.to == "compressed-tensors"
    if arguments.importance and packed:
        raise ValueError("--importance is for GGUF")
    if arguments.bits and not packed:
        raise ValueError(f"--bits is for compressed-tensors: {arguments.to} says how many")
    with ProgressLine(source.name, hidden=arguments.quiet or arguments.json) as progress:
        if packed:
            return export_packed(source, out, bits=arguments.bits or 4, progress=progress)
        importance = read_importance(arguments.importance, source) if arguments.importance else None
        return export_gguf(source, out, arguments.to.removeprefix("gguf-"), importance=importance, progress=progress)


def _import(source: Path, out: Path, arguments: argparse.Namespace) -> Exchanged:
    from tersor.compat.gguf_import import import_gguf
    from tersor.compat.integer_import import import_quantized

    work = import_quantized if source.is_dir() else import_gguf
    with ProgressLine(source.name, hidden=arguments.quiet or arguments.json) as progress:
        return work(source, out, progress=progress)


def _add_force(command: argparse.ArgumentParser) -> None:
    command.add_argument("-f", "--force", action="store_true", help="write over what is there")
