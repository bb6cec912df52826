"""Who may include and import whom. The law is the block of rooms in docs/house.md, read here."""

import ast
import re

PAGE = "docs/house.md"
CPP = re.compile(r"^csrc/(?P<room>\w+)/(?P<file>[\w.]+)$")
INCLUDE = re.compile(rb'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
PYTHON_HEADERS = ("Python.h", "nanobind/")
DOORS = {"bin", "binding", "torch_ops"}


def rooms(page: str) -> dict[str, tuple[set[str], bool]]:
    """C++ room -> (rooms it may include, whether it stands already)."""
    block = page.split("csrc/  ", 1)[1].split("python/tersor/", 1)[0]
    found: dict[str, tuple[set[str], bool]] = {}
    for names, allowed, text in re.findall(r"^  ((?:\w+/ ?)+) +\[([^\]]*)\] *(.*)", block, re.MULTILINE):
        for name in names.replace("/", "").split():
            found[name] = (set(allowed.split()), not text.startswith("later"))
    return {name: (set(found) if "all" in allowed else allowed, stands) for name, (allowed, stands) in found.items()}


def layers(page: str) -> dict[str, tuple[str, set[str]]]:
    """Python module -> (its layer, layers it may import)."""
    block = page.split("python/tersor/", 1)[1].split("\ntests/", 1)[0]
    found = {}
    for layer, names, allowed in re.findall(r"^  (\w+) +([\w ]+?) +\[([^\]]*)\]", block, re.MULTILINE):
        for name in names.split():
            found[name] = (layer, set(allowed.split()))
    return found


def include_breaches(tree: dict[str, bytes]) -> list[str]:
    page = tree[PAGE].decode()
    law = rooms(page)
    core_units = set(page.split("closed list of units:", 1)[1].split(";", 1)[0].split())
    breaches = []
    for path, content in tree.items():
        if not (match := CPP.match(path)):
            if path.startswith("csrc/"):
                breaches.append(f"{path}: a room is flat, csrc/<room>/<file>")
            continue
        room, file = match["room"], match["file"]
        if room not in law:
            breaches.append(f"{path}: {PAGE} has no room {room}")
            continue
        unit = re.sub(r"(_(scalar|avx2|avx512|avx512vbmi|avx512bf16))?\.\w+$", "", file)
        if room == "core" and not {unit, file} & core_units:
            breaches.append(f"{path}: core is a closed list of units ({' '.join(sorted(core_units))})")
        allowed = law[room][0] | {room} | ({"cuda", "core"} if file.endswith((".cu", ".cuh")) else set())
        for quoted, bracketed in INCLUDE.findall(content):
            name = (quoted or bracketed).decode()
            if bracketed and name.startswith(PYTHON_HEADERS) and room != "binding":
                breaches.append(f"{path}: includes <{name}>, and only binding knows Python")
            if bracketed and name.startswith(("torch/", "ATen/", "c10/")):
                breaches.append(f"{path}: includes <{name}>, and torch is found at run time")
            if quoted and name.split("/")[0] not in allowed:
                breaches.append(f'{path}: includes "{name}"; {room} may include {" ".join(sorted(allowed))}')
    for room, (_, stands) in law.items():
        if stands != any(path.startswith(f"csrc/{room}/") for path in tree):
            breaches.append(
                f"{PAGE}: csrc/{room} {'does not stand yet' if stands else 'stands and is still called later'}"
            )
    return breaches


def imported(module: str, source: bytes, is_package: bool) -> set[str]:
    """Absolute names imported anywhere in a module, `from a import b` giving a.b; not what only type checkers read."""
    names = set()
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            start = parts[: len(parts) - node.level + is_package] if node.level else []
            origin = ".".join(start + ([node.module] if node.module else []))
            names |= {f"{origin}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= {str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant)}
        todo.extend(ast.iter_child_nodes(node))
    return names


def import_breaches(tree: dict[str, bytes]) -> list[str]:
    law = layers(tree[PAGE].decode())
    with_torch = set(tree[PAGE].decode().split("torch only in ", 1)[1].split(".", 1)[0].replace(",", "").split())
    breaches = []
    for path, content in tree.items():
        if not path.startswith("python/tersor/") or not path.endswith(".py"):
            continue
        module = path.removeprefix("python/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        name = module.split(".")[1] if "." in module else "__init__"
        if name not in law:
            breaches.append(f"{path}: {PAGE} has no Python module {name}")
            continue
        layer, allowed = law[name]
        for target in sorted(imported(module, content, path.endswith("/__init__.py"))):
            parts = target.split(".")
            if parts[0] == "torch" and not {name, layer} & with_torch:
                breaches.append(f"{path}: imports torch, and only {' '.join(sorted(with_torch))} may")
            if parts[0] != "tersor" or len(parts) < 2:
                continue
            other = parts[1] if parts[1] in law else "__init__"
            if other != name and law[other][0] not in allowed:
                breaches.append(
                    f"{path}: imports {target} ({law[other][0]}); {layer} may import {' '.join(sorted(allowed))}"
                )
    return breaches


def test_includes_follow_the_arrows(tree):
    assert include_breaches(tree) == []


def test_imports_follow_the_arrows(tree):
    assert import_breaches(tree) == []


def test_rooms_are_read_from_the_page(tree):
    law = rooms(tree[PAGE].decode())
    assert law["lossless"][0] == {"core", "transform", "entropy"}
    assert law["core"] == (set(), True)
    assert not law["attention"][1]
    assert law["bin"][0] >= {"checkpoint", "core"}


def test_a_forbidden_include_is_found(tree):
    for path, text in {
        "csrc/entropy/rans.cpp": b'#include "lossless/chunk.h"',
        "csrc/core/bits.h": b'#include "entropy/table.h"',
        "csrc/container/tsr.cpp": b"#include <nanobind/nanobind.h>",
        "csrc/torch_ops/ops.cpp": b"#include <torch/library.h>",
        "csrc/lossless/chunk.cpp": b'#include "check.h"',
        "csrc/core/strings.h": b"",
        "csrc/misc/a.cpp": b"",
        "csrc/core/deep/a.cpp": b"",
    }.items():
        assert any(breach.startswith(path) for breach in include_breaches({**tree, path: text})), path
    assert any("attention stands" in breach for breach in include_breaches({**tree, "csrc/attention/a.cpp": b""}))


def test_a_forbidden_import_is_found(tree):
    for path, text in {
        "python/tersor/entropy.py": b"from tersor import numpy",
        "python/tersor/numpy.py": b"def f():\n    import torch",
        "python/tersor/lossless.py": b"import importlib\nimportlib.import_module('tersor.bench')",
        "python/tersor/weights/gptq.py": b"from ..kv import kivi",
        "python/tersor/stray.py": b"",
    }.items():
        assert any(breach.startswith(path) for breach in import_breaches({**tree, path: text})), path
    fine = {"python/tersor/entropy.py": b"if typing.TYPE_CHECKING:\n    import torch\nfrom . import _core"}
    assert not any(breach.startswith("python/tersor/entropy.py") for breach in import_breaches({**tree, **fine}))
