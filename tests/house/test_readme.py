"""What the pages tell a reader to type exists, and every place that says the version says the same."""

import importlib.metadata
import json
import os
import pathlib
import posixpath
import re
import struct
import subprocess
import sys

import pytest

PAGES = ("README.md", "CONTRIBUTING.md", "docs/adding.md")
PLANS = ("docs/design.md", "docs/house.md")  # they name what may come


def unknown_targets(page: str, makefile: str) -> list[str]:
    known = {word for names in re.findall(r"^([a-z][\w -]*):(?!=)", makefile, re.MULTILINE) for word in names.split()}
    return sorted(set(re.findall(r"\bmake ([a-z][\w-]*)(?=[`\s]*(?:`|#|$|  ))", page, re.MULTILINE)) - known)


def version(changelog: str) -> str:
    found = re.search(r"^## (\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert found, "CHANGELOG.md has no release"
    return found[1]


def missing_paths(path: str, tree: dict[str, bytes]) -> list[str]:
    """Links of a page, and paths of the tree in its backquotes, that lead nowhere."""
    page = tree[path].decode()
    folders = {"/".join(path.split("/")[:depth]) for path in tree for depth in range(1, path.count("/") + 1)}
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page) if "://" not in link]
    targets = [posixpath.normpath(posixpath.join(posixpath.dirname(path), link)) for link in links]
    targets += re.findall(r"`((?:csrc|python|tests|docs|bench)/[\w/.-]+?)/?`", page)
    return [target for target in targets if target not in tree and target not in folders]


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(tree, page):
    assert unknown_targets(tree[page].decode(), tree["Makefile"].decode()) == []


def test_paths_lead_somewhere(tree):
    pages = [path for path in tree if path.endswith(".md") and path not in PLANS]
    assert {page: missing_paths(page, tree) for page in pages} == {page: [] for page in pages}


def test_both_commands_are_named(tree):
    readme = tree["README.md"].decode()
    assert "make demo" in readme
    assert "make test" in readme


def test_versions_agree(tree):
    assert importlib.metadata.version("tersor") == version(tree["CHANGELOG.md"].decode())


def test_what_is_not_there_is_found():
    assert unknown_targets("run `make tset`", "test: x\n") == ["tset"]
    assert unknown_targets("    make demo    # builds\n", "demo: x\n") == []
    assert unknown_targets("    make dem    # builds\n", "demo: x\n") == ["dem"]
    tree = {"docs/b.md": b"[a](a.md) [root](../README.md) [b](../docs/) `csrc/x.h`", "README.md": b"[docs](docs/)"}
    assert missing_paths("docs/b.md", tree) == ["docs/a.md", "csrc/x.h"]
    assert missing_paths("README.md", tree) == []
    assert version("# C\n\n## 1.2.3 (unreleased)\n") == "1.2.3"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    """A folder with the model.safetensors that the examples speak of."""
    tensors = {"weight": {"dtype": "F32", "shape": [256, 16], "data_offsets": [0, 16384]}}
    header = json.dumps(tensors, separators=(",", ":")).encode()
    body = b"".join(struct.pack("<f", (i * 37 % 101) / 512) for i in range(4096))
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + body)
    return tmp_path


def test_python_examples_run(tree, folder):
    pytest.importorskip("tersor")
    examples = blocks(tree["README.md"].decode(), "python")
    assert examples
    for example in examples:
        subprocess.run([sys.executable, "-c", example], cwd=folder, check=True, timeout=120)


def test_shell_examples_run(tree, folder, binaries):
    pytest.importorskip("tersor")
    environment = {**os.environ, "PATH": f"{binaries}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}
    examples = blocks(tree["README.md"].decode(), "sh")
    assert len(examples) > 1
    for example in examples:
        subprocess.run(["bash", "-euc", example], cwd=folder, env=environment, check=True, timeout=120)
    model = (folder / "model.safetensors").read_bytes()
    assert (folder / "model.again.safetensors").read_bytes() == model
