"""Files that fsspec names, `s3://bucket/model.tsr` or `memory://model.tsr`, where a local path may stand.

They go through a temporary local file, in TMPDIR: what is written is whole before the first byte is uploaded, and what
is read is downloaded before the first tensor is decoded. Anything else is a local path and never comes near fsspec.
Needs fsspec and, for most protocols, the package that fsspec names (s3fs for s3).
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections.abc import Iterator
from typing import Any, TypeAlias
from urllib.parse import SplitResult, urlsplit

from tersor._core import FormatError

__all__ = ["beside", "is_url", "local_input", "local_output"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters or more, so that no drive of Windows is a protocol
_NAME_BYTES = 200  # of a local copy's name, its last ones; file systems take 255, and writing adds some
PathLike: TypeAlias = "str | os.PathLike[str]"


def is_url(filename: object) -> bool:
    """Whether fsspec, not this machine's file system, is asked: text that begins with a protocol."""
    return isinstance(filename, str) and _URL.match(filename) is not None


@contextlib.contextmanager
def local_input(filename: PathLike) -> Iterator[PathLike]:
    """Give the path of a local copy, which is there until the context ends; a local path is given back as it is.

    A mapped copy stays readable after that. Raises ImportError (fsspec or the protocol's package is missing), OSError,
    ValueError (an unknown protocol); errors of what is done with the copy name the URL.
    """
    if not is_url(filename):
        yield filename
        return
    url = str(filename)
    with _copy_of(url) as local:
        with _named(url):
            system, path = _opened(url)
            if system.isdir(path):
                raise IsADirectoryError(f'"{url}" is a folder, a file is needed')
            system.get_file(path, local)
        with _renamed(local, url):
            yield local


@contextlib.contextmanager
def local_output(filename: PathLike, *, force: bool = True) -> Iterator[PathLike]:
    """Give a local path to write to; its file is uploaded when the context ends well, and only then.

    force: False refuses a URL that exists, with FileExistsError. Other errors as `local_input`.
    """
    if not is_url(filename):
        yield filename
        return
    url = str(filename)
    with _copy_of(url) as local:
        with _named(url):
            system, path = _opened(url)
            if not force and system.exists(path):
                raise FileExistsError(f'"{url}" exists; -f (force) overwrites it')
        with _renamed(local, url):
            yield local
        with _named(url):
            system.put_file(local, path)


def beside(url: str, name: str) -> str:
    """The URL of a file called `name` in the same folder."""
    parts = _web_parts(url)
    if parts is not None:
        return f"{parts.scheme}://{parts.netloc}{posixpath.dirname(parts.path).rstrip('/')}/{name}"
    return url.rpartition("/")[0] + "/" + name


def _web_parts(url: str) -> SplitResult | None:
    """The parts of an http URL, whose query is no part of the file's name; None for other protocols."""
    parts = urlsplit(url)
    return parts if parts.scheme in ("http", "https") else None


@contextlib.contextmanager
def _copy_of(url: str) -> Iterator[str]:
    """A name for a local copy, with the ending of the URL, in a folder that goes when the context ends."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="tersor-") as folder:
        parts = _web_parts(url)
        name = posixpath.basename((url if parts is None else parts.path).rstrip("/")) or "file"
        yield os.path.join(folder, os.fsdecode(os.fsencode(name)[-_NAME_BYTES:]))


def _opened(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise ImportError(f"{url} needs fsspec: pip install 'tersor[fsspec]'") from None
    system, path = fsspec.core.url_to_fs(url)
    return system, path


@contextlib.contextmanager
def _named(url: str) -> Iterator[None]:
    """Let every failure of a store be an OSError that names the URL; stores have errors of their own."""
    try:
        yield
    except OSError as error:
        if url in str(error):
            raise
        builtin = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")  # takes one text
        raise builtin(f'"{url}": {error.strerror or str(error) or type(error).__name__}') from error
    except (ImportError, ValueError, MemoryError):
        raise  # what is missing, or no such protocol: fsspec's sentence says it
    except Exception as error:
        raise OSError(f'"{url}": {type(error).__name__}: {error}') from error


@contextlib.contextmanager
def _renamed(local: str, url: str) -> Iterator[None]:
    """Put the URL where an error names the temporary copy."""
    try:
        yield
    except ValueError as error:  # FormatError is one; what the file system says is about the copy, and stays
        if local not in str(error):
            raise
        kind = FormatError if isinstance(error, FormatError) else ValueError  # others need not take one text
        raise kind(str(error).replace(local, url)) from None
