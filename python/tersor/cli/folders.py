"""Folders of models: X/ becomes X.tsr/, a .tsr for every file of tensors and the other files as they are, and back."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

# A .tsr that lies in X is coded again, so that every .tsr of X.tsr is ours.
CODED = (".safetensors", ".npy", ".npz", ".gguf", ".pt", ".pth", ".ckpt", ".bin", ".tsr")
SUFFIX = ".tsr"


def is_folder(name: str) -> bool:
    """Whether a name that was given to a command is a folder's."""
    return name != "-" and os.path.isdir(name)


def files_of(folder: str) -> list[str]:
    """Paths of all files below a folder, relative to it and sorted. Links to files count as files.

    Raises OSError (a folder that cannot be listed; something that is neither file nor folder, a link to a folder or an
    empty folder: such a tree could not come back as it was).
    """
    found = []

    def failed(error: OSError) -> None:
        raise error

    for here, below, names in os.walk(folder, onerror=failed):
        if not below and not names:
            raise OSError(f'"{here}" holds no files')
        for name in below:
            if os.path.islink(path := os.path.join(here, name)):
                raise OSError(f'"{path}" is a link to a folder; files and folders are needed')
        for name in names:
            path = os.path.join(here, name)
            if not os.path.isfile(path):
                raise OSError(f'"{path}" is neither a file nor a folder')
            found.append(os.path.relpath(path, folder))
    return sorted(found)


def packed_name(path: str) -> str | None:
    """What a file of X is called in X.tsr, or None where it is kept as it is."""
    return path + SUFFIX if path.endswith(CODED) else None


def restored_name(path: str) -> str | None:
    """The reverse."""
    return path.removesuffix(SUFFIX) if path.endswith(SUFFIX) and os.path.basename(path) != SUFFIX else None


def default_output(name: str, *, packing: bool) -> str:
    """X -> X.tsr, or X.tsr -> X. Raises ValueError where the latter cannot be told."""
    name = name.rstrip("/") or "/"
    if packing:
        return name + SUFFIX
    if not name.endswith(SUFFIX) or os.path.basename(name) == SUFFIX:
        raise ValueError(f'"{name}" does not end in {SUFFIX}: the output\'s name must be given')
    return name.removesuffix(SUFFIX)


@contextmanager
def whole_folder(output: str, *, force: bool, apart_from: Iterable[str]) -> Iterator[str]:
    """A folder beside `output` to be filled, which takes its name at the end or is removed.

    apart_from: inputs and bases; what `output` would replace must not be, hold or lie in one of them.
    Raises FileExistsError, OSError.
    """
    output = output.rstrip("/") or "/"
    for other in apart_from:
        mine, theirs = os.path.realpath(output), os.path.realpath(other)
        if os.path.commonpath([mine, theirs]) in (mine, theirs):
            raise OSError(f'"{output}" is, holds or lies in "{other}", which is read')
    if os.path.lexists(output) and not force:
        raise FileExistsError(f'"{output}" exists; -f overwrites it')
    beside = os.path.dirname(os.path.abspath(output))
    made = tempfile.mkdtemp(prefix=f".{os.path.basename(output)}.", dir=beside)
    try:
        os.chmod(made, 0o777 & ~_umask())
        yield made
        _take_name(made, output, beside)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _take_name(made: str, output: str, beside: str) -> None:
    """Rename a folder over what is there, which stays under its name if that fails."""
    if not os.path.lexists(output):
        return os.rename(made, output)
    aside = tempfile.mkdtemp(prefix=f".{os.path.basename(output)}.", dir=beside)
    before = os.path.join(aside, "before")
    try:
        os.rename(output, before)
        os.rename(made, output)
    except BaseException:
        if os.path.lexists(before) and not os.path.lexists(output):
            os.rename(before, output)
        if not os.path.lexists(before):
            os.rmdir(aside)
        raise
    shutil.rmtree(aside)


def transform(
    folder: str, made: str, rename: Callable[[str], str | None], work: Callable[[str, str], None]
) -> tuple[int, int]:
    """Fill `made` from `folder`: work(source, target) for files that rename gives a name, a copy of the others.

    Returns how many files were worked on, and the bytes of those that were copied.
    """
    worked = copied = 0
    for path in files_of(folder):
        source, name = os.path.join(folder, path), rename(path)
        target = os.path.join(made, name or path)
        if os.path.lexists(target):
            raise OSError(f'two files of "{folder}" become "{name or path}"')
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if name is None:
            shutil.copy2(source, target)
            copied += os.path.getsize(target)
        else:
            work(source, target)
            worked += 1
    return worked, copied


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
