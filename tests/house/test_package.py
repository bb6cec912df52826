"""What is shipped: the wheel holds the package and the binaries and nothing else, the sdist all that a build needs."""

import tarfile
import zipfile

import pytest


@pytest.fixture(scope="module")
def dist(root, tree):
    folder = root / "dist"
    if not list(folder.glob("*.whl")) or not list(folder.glob("*.tar.gz")):
        pytest.skip("no packages: run `make test-package`")
    if max((root / path).stat().st_mtime for path in tree) > min(path.stat().st_mtime for path in folder.iterdir()):
        pytest.skip("the packages are older than the tree: run `make test-package`")
    return folder


def test_wheel(dist, tree):
    (wheel,) = dist.glob("tersor-*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name and not name.endswith("/")}
    modules = {path.removeprefix("python/") for path in tree if path.startswith("python/tersor/")}
    assert modules <= names
    scripts = {name.split("/")[-1] for name in names if ".data/scripts/" in name}
    assert scripts == {"tersor-enc", "tersor-dec"}
    built = {name for name in names - modules if ".data/scripts/" not in name}
    assert {name.split(".")[0] for name in built} == {"tersor/_core", "tersor/py"}
    assert {name.split(".")[-1] for name in built} == {"so", "pyi", "typed"}


def test_sdist(dist, tree):
    (sdist,) = dist.glob("tersor-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = {path for path in tree if path.startswith(("csrc/", "python/", "tests/", "docs/", "bench/"))}
    left_out = ("bench/results/", "bench/language_model/")  # measurements, and 5.7 MB that only the demo reads
    assert {path for path in needed if not path.startswith(left_out)} <= names
    assert not any(name.startswith((".ci", "build", ".venv", *left_out)) for name in names)
