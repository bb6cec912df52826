"""A progress line on stderr: bytes, GB/s, time left. Shown only on a terminal and only for work that takes a while."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

_PATIENCE_SECONDS = 0.25  # shorter work shows nothing and never loads rich


class ProgressLine:
    """Context manager; calling it with (bytes done, bytes in all or 0) moves the line."""

    def __init__(self, title: str, *, hidden: bool) -> None:
        self._title, self._hidden = title, hidden or not sys.stderr.isatty()
        self._start = time.monotonic()
        self._line: Any = None

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._line is not None:
            self._line.stop()

    def __call__(self, done: int, total: int) -> None:
        if self._hidden or time.monotonic() - self._start < _PATIENCE_SECONDS:
            return
        if self._line is None:
            self._line = self._shown()
            self._task = self._line.add_task(self._title)
        self._line.update(self._task, completed=done, total=total or None)  # 0: a pipe, whose end is not known

    def _shown(self) -> Any:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        line = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        line.start()
        return line
