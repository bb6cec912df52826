"""`tersor --print-completion SHELL`: a script for the shell, made by shtab (the extra `completion`)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

SHELLS = ("bash", "zsh")
_FILES, _FOLDERS = {"IN", "OUT", "FILE"}, {"FOLDER"}  # what the metavars of the command line mean


class PrintCompletion(argparse.Action):
    """Print the script and leave; exit code 1 where shtab is missing."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        try:
            import shtab
        except ImportError:
            parser.exit(1, f"{parser.prog}: completion needs shtab: pip install 'tersor[completion]'\n")
        for action in _actions(parser):
            if action.metavar in _FILES | _FOLDERS:
                action.complete = shtab.DIRECTORY if action.metavar in _FOLDERS else shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(parser, str(values)))
        parser.exit(0)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
