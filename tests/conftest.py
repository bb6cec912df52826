"""What tests of every room may ask for: the tree, its files as modules, the data folder, ISA levels, the binaries."""

import importlib.util
import os
import pathlib
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

# A job in the background of a shell ignores these, and so would every program that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The flags that each level of csrc/core/isa.h adds to the one below it, as the kernel names them.
ISA_FLAGS = {
    "avx2": {"avx2", "bmi1", "bmi2", "f16c", "fma", "sse4_2"},
    "avx512": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "avx512vbmi": {"avx512vbmi", "avx512_vbmi2", "avx512_vnni"},
    "avx512bf16": {"avx512_bf16"},
}


def tracked_files(root: pathlib.Path) -> list[str]:
    """Files that git tracks or would track; outside a clone (an unpacked sdist) all but build trees and dot folders."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0 and (root / ".git").exists():
        names = [name for name in listing.stdout.decode().split("\0") if name]
        return sorted(name for name in names if (root / name).is_file())
    inside = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    skipped = {"build", "dist", "__pycache__"}
    return sorted(
        str(path) for path in inside if not any(part in skipped or part[0] == "." for part in path.parts[:-1])
    )


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def tree() -> dict[str, bytes]:
    """Path -> content of every tracked file. The laws take such a mapping, so that a test can hand them a bad one."""
    return {name: (ROOT / name).read_bytes() for name in tracked_files(ROOT)}


@pytest.fixture(scope="session")
def load() -> Callable[[str], ModuleType]:
    """A Python file of the tree that is in no package, as a module: "tests/entropy/oracle.py" is tests_entropy_oracle.

    Each is loaded once, so that rooms that share an oracle share its exceptions.
    """

    def load(path: str) -> ModuleType:
        name = path.removesuffix(".py").replace("/", "_")
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, ROOT / path)
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
            spec.loader.exec_module(sys.modules[name])
        return sys.modules[name]

    return load


@pytest.fixture(scope="session")
def container(load: Callable[[str], ModuleType]) -> ModuleType:
    """The .tsr reader in plain Python, written from its page."""
    return load("tests/container/oracle.py")


@pytest.fixture(scope="session")
def decoders(load: Callable[[str], ModuleType], container: ModuleType) -> dict[int, Callable[[bytes, int], bytes]]:
    """A codec's number -> what decodes a chunk of it, in plain Python, too."""
    load("tests/entropy/oracle.py")  # which the next imports
    return {**container.STORED, 2: load("tests/lossless/oracle.py").decode_chunk}


@pytest.fixture(scope="session")
def data() -> pathlib.Path:
    """The folder of real models and tensors: TERSOR_DATA, or shared/data beside the clone."""
    folder = pathlib.Path(os.environ.get("TERSOR_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no data folder: set TERSOR_DATA or put it at ../shared/data")
    return folder


@pytest.fixture(scope="session")
def isa_levels() -> list[str]:
    """The levels this machine runs, scalar first; each is a value for TERSOR_ISA."""
    levels = ["scalar"]
    if platform.machine() in ("x86_64", "AMD64"):
        facts = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        flags = set(next(line for line in facts if line.startswith("flags")).split(":", 1)[1].split())
        for level, needed in ISA_FLAGS.items():
            if not needed <= flags:
                break
            levels.append(level)
    return levels


@pytest.fixture(scope="session")
def release() -> pathlib.Path:
    """The release build of the core, its checks and the binaries (`make test-release`)."""
    folder = ROOT / "build" / "release"
    if not (folder / "tersor-check").exists():
        pytest.skip("no release build: run `make test-release`")
    return folder


@pytest.fixture(scope="session")
def binaries() -> pathlib.Path:
    """The folder that holds tersor-enc and tersor-dec: beside this Python, or the release build."""
    for folder in (pathlib.Path(sys.executable).parent, ROOT / "build" / "release"):
        if (folder / "tersor-dec").exists():
            return folder
    pytest.skip("no tersor-enc and tersor-dec: run `make build`")
