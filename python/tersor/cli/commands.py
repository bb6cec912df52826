"""What the commands do. Each takes the parsed arguments and returns an exit code."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tersor import FormatError, _core, fsspec
from tersor.cli import folders
from tersor.cli.progress import ProgressLine
from tersor.cli.text import amount, printable

Row = dict[str, Any]


def compress(arguments: argparse.Namespace) -> int:
    """IN -> IN.tsr, or OUT."""
    return _whole_files(arguments, _compress)


def decompress(arguments: argparse.Namespace) -> int:
    """IN.tsr -> IN, or OUT."""
    return _whole_files(arguments, _decompress)


def verify(arguments: argparse.Namespace) -> int:
    """Every CRC and every hash."""
    return _whole_files(arguments, _verify)


def info(arguments: argparse.Namespace) -> int:
    """List entries. --json with one file gives that file's object, with several {"files": [...]}."""
    from tersor.cli import listing

    if "-" in arguments.files:
        return _usage(arguments, "info reads files, not pipes")
    rows, code = [], 0
    for name in arguments.files:
        try:
            rows.append(listing.facts(name))
        except Exception as error:
            code = max(code, _report(name, error))
            rows.append({"file": name, "error": _line(error)})
            continue
        if not arguments.json:
            listing.show(rows[-1])
    if arguments.json:
        print(json.dumps(rows[0] if len(rows) == 1 else {"files": rows}))
    return code


def bench(arguments: argparse.Namespace) -> int:
    """tersor.bench's command."""
    from tersor.bench import command

    code: int = command.run(arguments)
    return code


def quantize(arguments: argparse.Namespace) -> int:
    """tersor.cli.quantizing's."""
    from tersor.cli import quantizing

    return _reported(arguments, quantizing.run)


def evaluate(arguments: argparse.Namespace) -> int:
    """tersor.cli.evaluating's."""
    from tersor.cli import evaluating

    return _reported(arguments, evaluating.run)


def generate(arguments: argparse.Namespace) -> int:
    """tersor.cli.running's."""
    from tersor.cli import running

    return _reported(arguments, running.run)


def _reported(arguments: argparse.Namespace, run: Callable[[argparse.Namespace], int]) -> int:
    """What a command over a model returns; its errors are one line."""
    try:
        return run(arguments)
    except (OSError, ValueError, TypeError, ImportError, FormatError) as error:
        return _report(str(getattr(error, "filename", None) or arguments.model or arguments.command), error)


def exchange(arguments: argparse.Namespace) -> int:
    """tersor.cli.exchanging's."""
    from tersor.cli import exchanging

    try:
        code: int = exchanging.run(arguments)
    except (OSError, ValueError, TypeError, ImportError, FormatError) as error:
        return _report(arguments.model, error)
    return code


def _whole_files(arguments: argparse.Namespace, work: Callable[[str, argparse.Namespace], Row]) -> int:
    """Run one file after the other. A file that fails does not stop the next one; the worst code is returned."""
    files = arguments.files or ["-"]
    output = getattr(arguments, "output", None)
    if not arguments.files and sys.stdin.isatty():
        return _usage(arguments, "no input: name a file, or - for stdin")
    if output is not None and len(files) > 1:
        return _usage(arguments, f"one output and {len(files)} inputs: leave out -o and -c, or name one input")
    if arguments.json and arguments.command != "verify" and "-" in (output, *(files if output is None else ())):
        return _usage(arguments, "stdout takes either the data or --json")
    rows, code = [], 0
    for name in files:
        start = time.monotonic()
        try:
            row = work(name, arguments)
        except BrokenPipeError:
            raise
        except Exception as error:
            code = max(code, _report(name, error))
            rows.append({"input": name, "error": _line(error)})
            continue
        seconds = time.monotonic() - start
        row |= {"seconds": round(seconds, 6), "gbps": round(row["bytes"] / max(seconds, 1e-9) / 1e9, 3)}
        rows.append(row)
        for line in row.get("damaged", ()):
            code = max(code, 1)
            print(printable(f'tersor: "{name}": {line}'), file=sys.stderr)
        if arguments.command == "verify" and "damaged" in row:
            continue
        if not arguments.quiet and not arguments.json:
            print(printable(_sentence(arguments.command, row)), file=sys.stderr)
    if arguments.json:
        print(json.dumps({"files": rows}))
    return code


def _compress(name: str, arguments: argparse.Namespace) -> Row:
    if folders.is_folder(name):
        return _folder(name, arguments, packing=True)
    output = arguments.output or ("-" if name == "-" else name + ".tsr")
    level = _core.DEFAULT_LEVEL if arguments.level is None else arguments.level
    with (
        fsspec.local_output(output, force=arguments.force) as target,
        fsspec.local_input(name) as source,
        ProgressLine(name, hidden=arguments.quiet) as progress,
    ):
        summary = _core.compress_file(
            os.fsencode(source),
            os.fsencode(target),
            _bases(arguments),
            level,
            arguments.threads,
            arguments.force,
            progress,
        )
    return _row(name, output, summary)


def _decompress(name: str, arguments: argparse.Namespace) -> Row:
    if folders.is_folder(name):
        return _folder(name, arguments, packing=False)
    with fsspec.local_input(name) as source:
        output = arguments.output or ("-" if name == "-" else _restored_name(name, source))
        with (
            fsspec.local_output(output, force=arguments.force) as target,
            ProgressLine(name, hidden=arguments.quiet) as progress,
        ):
            summary = _core.decompress_file(
                os.fsencode(source),
                os.fsencode(target),
                _bases(arguments),
                arguments.threads,
                arguments.force,
                arguments.keep_going,
                progress,
            )
    return _row(name, output, summary)


def _restored_name(name: str, source: str | os.PathLike[str]) -> str:
    restored = os.fsdecode(_core.restored_name(os.fsencode(source)))
    return fsspec.beside(name, os.path.basename(restored)) if fsspec.is_url(name) else restored


def _folder(name: str, arguments: argparse.Namespace, *, packing: bool) -> Row:
    """A whole folder: its files one after the other, each with all threads."""
    output = arguments.output or folders.default_output(name, packing=packing)
    if output == "-":
        raise ValueError("a folder cannot be written to stdout")
    total: Row = {"bytes": 0, "stored": 0, "damaged": []}
    one = argparse.Namespace(**{**vars(arguments), "force": True})

    def work(source: str, target: str) -> None:
        one.output = target
        row = _compress(source, one) if packing else _decompress(source, one)
        total["bytes"] += row["bytes"]
        total["stored"] += row["stored"]
        total["damaged"] += [f"{os.path.relpath(source, name)}: {line}" for line in row.get("damaged", ())]

    apart_from = [name, *arguments.base]
    with folders.whole_folder(output, force=arguments.force, apart_from=apart_from) as made:
        rename = folders.packed_name if packing else folders.restored_name
        count, copied = folders.transform(name, made, rename, work)
    raw, stored = total["bytes"] + copied, total["stored"] + copied
    row: Row = {"input": name, "output": output, "bytes": raw, "stored": stored, "coded_files": count}
    return row | {"ratio": round(raw / stored, 6) if stored else None, **_lost(total["damaged"])}


def _verify(name: str, arguments: argparse.Namespace) -> Row:
    if folders.is_folder(name):
        return _verify_folder(name, arguments)
    with fsspec.local_input(name) as source, ProgressLine(name, hidden=arguments.quiet) as progress:
        summary = _core.verify_file(os.fsencode(source), _bases(arguments), arguments.threads, progress)
    return _row(name, None, summary)


def _verify_folder(name: str, arguments: argparse.Namespace) -> Row:
    total: Row = {"input": name, "bytes": 0, "stored": 0}
    lines: list[str] = []
    coded = list(filter(folders.restored_name, folders.files_of(name)))
    if not coded:
        raise FormatError(f'"{name}" holds no {folders.SUFFIX} files')
    for path in coded:
        try:
            row = _verify(os.path.join(name, path), arguments)
        except FormatError as error:  # the other files are verified all the same
            lines.append(_line(error))
            continue
        total["bytes"] += row["bytes"]
        total["stored"] += row["stored"]
        lines += [f"{path}: {line}" for line in row.get("damaged", ())]
    return total | _lost(lines)


def _lost(lines: Sequence[str]) -> Row:
    return {"damaged": list(lines)} if lines else {}


def _bases(arguments: argparse.Namespace) -> list[bytes]:
    return [os.fsencode(base) for base in arguments.base]


def _row(name: str, output: str | None, summary: _core.Summary) -> Row:
    row: Row = {"input": name, "output": output}
    if output is None:
        del row["output"]
    raw, stored = summary.raw_bytes, summary.stored_bytes
    return row | {
        "bytes": raw,
        "stored": stored,
        "ratio": round(raw / stored, 6) if stored else None,
        "hash": summary.hash,
        "origin": summary.origin,
        **_lost(summary.damaged),
    }


def _sentence(command: str, row: Row) -> str:
    raw, stored, speed = amount(row["bytes"]), amount(row["stored"]), f"{row['seconds']:.2f} s, {row['gbps']:.2f} GB/s"
    if command == "verify":
        return f"{row['input']}: good, {raw}{', hash ' + row['hash'] if 'hash' in row else ''} ({speed})"
    share = f"{row['stored'] / row['bytes']:.2%}" if row["bytes"] else "empty"
    sizes = f"{raw} -> {stored}" if command == "compress" else f"{stored} -> {raw}"
    return f"{row['input']}: {sizes} ({share}) -> {row['output']} ({speed})"


def _usage(arguments: argparse.Namespace, text: str) -> int:
    print(f"tersor {arguments.command}: {text}", file=sys.stderr)
    return 2


def _report(name: str, error: Exception) -> int:
    """One line on stderr. Returns 1 for data and environment, 2 for a call that cannot be meant; bugs are raised."""
    text = _line(error)
    print(printable(f"tersor: {text}" if name in text else f"tersor: {name}: {text}"), file=sys.stderr)
    if isinstance(error, (FormatError, OSError, KeyError, MemoryError, ImportError)):
        return 1
    if isinstance(error, (ValueError, TypeError)):
        return 2
    raise error


def _line(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "memory is short"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # the core's whole sentence, without Python's "[Errno 2]"
    return str(error.args[0]) if error.args else type(error).__name__
