"""Folders of models: X/ becomes X.tsr/, a .tsr for every file of tensors and the other files as they are, and back."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CODED = (".safetensors", ".tsr")  # a .tsr that lies in X is coded again, so that every .tsr of X.tsr is ours
SUFFIX = ".tsr"


def is_folder(name: str) -> bool:
    """Whether a name that was given to a command is a folder's."""
    return name != "-" and os.path.isdir(name)


def files_of(folder: str) -> list[str]:
    """Paths of all files below a folder, relative to it and sorted. Links to files count as files.

    Raises OSError (a folder that cannot be listed; something that is neither file nor folder, or a link to a folder:
    such a tree could not come back as it was).
    """
    found = []

    def failed(error: OSError) -> None:
        raise error

    for here, below, names in os.walk(folder, onerror=failed):
        for name in below:
            if os.path.islink(path := os.path.join(here, name)):
                raise OSError(f'"{path}" is a link to a folder; files and folders are needed')
        for name in names:
            path = os.path.join(here, name)
            if not os.path.isfile(path):
                raise OSError(f'"{path}" is neither a file nor a folder')
            found.append(os.path.relpath(path, folder))
    if not found:
        raise OSError(f'"{folder}" holds no files')
    return sorted(found)


def packed_name(path: str) -> str | None:
    """What a file of X is called in X.tsr, or None where it is kept as it is."""
    return path + SUFFIX if path.endswith(CODED) else None


def restored_name(path: str) -> str | None:
    """The reverse."""
    return path.removesuffix(SUFFIX) if path.endswith(SUFFIX) else None


def default_output(name: str, *, packing: bool) -> str:
    """X -> X.tsr, or X.tsr -> X. Raises ValueError where the latter cannot be told."""
    name = name.rstrip("/") or "/"
    if packing:
        return name + SUFFIX
    if not name.endswith(SUFFIX) or os.path.basename(name) == SUFFIX:
        raise ValueError(f'"{name}" does not end in {SUFFIX}: the output\'s name must be given')
    return name.removesuffix(SUFFIX)


@contextmanager
def whole_folder(output: str, *, force: bool) -> Iterator[str]:
    """A folder beside `output` to be filled, which takes its name at the end or is removed. Raises FileExistsError."""
    output = output.rstrip("/")
    if os.path.lexists(output) and not force:
        raise FileExistsError(f'"{output}" exists; -f overwrites it')
    beside = os.path.dirname(os.path.abspath(output))
    made = tempfile.mkdtemp(prefix=f".{os.path.basename(output)}.", dir=beside)
    try:
        os.chmod(made, 0o777 & ~_umask())
        yield made
        if os.path.lexists(output):
            replaced = tempfile.mkdtemp(prefix=f".{os.path.basename(output)}.", dir=beside)
            os.replace(output, os.path.join(replaced, "before"))
            os.rename(made, output)
            shutil.rmtree(replaced)
        else:
            os.rename(made, output)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


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
