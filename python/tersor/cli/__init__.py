"""The command `tersor`: arguments in, exit code out. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

_FUNCTIONS = {
    "eval": "evaluate",
    "run": "generate",
    "export": "exchange",
    "import": "exchange",
}  # those of other names than the command's

EPILOG = """\
exit codes: 0 done; 1 damaged or missing data, a full disk, a refused overwrite; 2 wrong usage; 130 interrupted"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; argparse itself exits with 2."""
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores one of them: that stays
                signal.signal(number, _leave)
        parsed = parser().parse_args(arguments)
        code: int = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("tersor: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away: nobody is left to tell. Python would try to flush once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # on the way out temporary files are removed


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from tersor import __version__, _core
    from tersor.bench import command as measuring
    from tersor.cli import commands, completion, evaluating, exchanging, quantizing, running

    top = argparse.ArgumentParser(
        prog="tersor",
        description="Terse tensors: exact compression of checkpoints, and models in few bits.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    top.add_argument("-V", "--version", action="version", version=f"tersor {__version__}")
    top.add_argument(
        "--print-completion",
        action=completion.PrintCompletion,
        choices=completion.SHELLS,
        help="print a script that completes this command in a shell (needs shtab)",
    )
    names = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        made = names.add_parser(name, help=text, description=text, epilog=EPILOG, allow_abbrev=False)
        made.set_defaults(run=getattr(commands, _FUNCTIONS.get(name, name)), command=name)
        return made

    compress = command("compress", "compress files: X becomes X.tsr, X stays")
    _add_files(compress)
    _add_output(compress, "X.tsr")
    _add_base(compress, "code tensors against those of B; decompressing needs B again")
    levels = compress.add_argument_group("levels")
    for level in range(1, 10):
        ends = {1: "fastest; -2 to -8 lie between", 9: f"smallest; the default is -{_core.DEFAULT_LEVEL}"}
        text = ends.get(level, argparse.SUPPRESS)
        levels.add_argument(f"-{level}", dest="level", action="store_const", const=level, help=text)
    decompress = command("decompress", "give files back: X.tsr becomes X, X.tsr stays")
    _add_files(decompress)
    _add_output(decompress, "X; X.safetensors for a file that save_file made")
    _add_base(decompress, "what the files are coded against, wherever it lies now")
    keep = "damaged chunks become zeros and are named, the rest is saved; the exit code is 1"
    decompress.add_argument("--keep-going", action="store_true", help=keep)
    verify = command("verify", "check every checksum and hash of .tsr files; writes nothing")
    _add_files(verify)
    _add_base(verify, "what the files are coded against, wherever it lies now")
    _add_habits(verify)
    info = command("info", "list what .tsr files hold; decodes nothing")
    info.add_argument("files", nargs="+", metavar="IN", help="a .tsr file")
    _add_json(info)
    quantize = command("quantize", "store a model's matrices in few bits")
    quantizing.add_arguments(quantize)
    _add_habits(quantize)
    evaluate = command("eval", "measure how well a language model predicts a text")
    evaluating.add_arguments(evaluate)
    _add_habits(evaluate)
    generate = command("run", "let a language model go on with a text, and say how fast it does")
    running.add_arguments(generate)
    _add_habits(generate)
    exporting = command("export", "write a model as other tools read it")
    exchanging.add_export_arguments(exporting)
    _add_habits(exporting)
    importing = command("import", "make a model that other tools have quantized one of tersor's, as it is")
    exchanging.add_import_arguments(importing)
    _add_habits(importing)
    measuring.add_arguments(command("bench", "measure tersor beside its peers"))
    return top


def _add_files(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "files", nargs="*", metavar="IN", help="a file, a folder, or - for stdin (the default in a pipe)"
    )


def _add_output(command: argparse.ArgumentParser, default: str) -> None:
    where = command.add_mutually_exclusive_group()
    text = f"name of the output, - for stdout (default: {default})"
    where.add_argument("-o", dest="output", metavar="OUT", help=text)
    where.add_argument("-c", dest="output", action="store_const", const="-", help="write to stdout")
    command.add_argument("-f", "--force", action="store_true", help="overwrite, and write to a terminal")
    command.add_argument("-k", "--keep", action="store_true", help="keep the input (it is always kept)")
    _add_habits(command)


def _add_base(command: argparse.ArgumentParser, text: str) -> None:
    kinds = "a file of tensors (.safetensors, .npz, .pt, .gguf), a .tsr or a folder; may be repeated"
    command.add_argument("--base", metavar="B", action="append", default=[], help=f"{text} ({kinds})")


def _add_habits(command: argparse.ArgumentParser) -> None:
    command.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    command.add_argument("-T", "--threads", type=_threads, default=0, metavar="N", help="threads (default: 0, all)")
    _add_json(command)


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="one JSON object on stdout, all else on stderr")


def _threads(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"threads are 0..1024, not {text}")
    return int(text)
