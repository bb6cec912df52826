"""Names say what a thing is, in American spelling."""

import pathlib
import re

FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "new", "old", "fast"}
CODE = (".cpp", ".h", ".cu", ".cuh", ".py")
TYPE = re.compile(r"^\s*(?:class|struct|enum class|enum|union|concept)\s+(?:alignas\(\w+\)\s+)?(\w+)", re.MULTILINE)
# Stems, so that endings are covered; each is wrong in any word of this field.
BRITISH = re.compile(
    r"\b(?:\w*colour|behaviour|neighbour|favour|honour|licence|artefact|catalogue|centre|fibre|grey"
    r"|(?:de|un|re)?(?:serial|optim|normal|initial|quant|vector|factor|general|special|minim|maxim|organ|recogn|synchron|summar"
    r"|random|parallel|token|util|real|local|final|equal)is(?:e[ds]?|ing|ation|er)\b"
    r"|analys(?:e|ed|ing)\b|cancell(?:ed|ing)\b|labell|modell|travell|programme\b|judgement)\w*",
    re.IGNORECASE,
)


def words(name: str) -> set[str]:
    """snake_case, kebab-case and CamelCase into lower-case words."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def breaches(tree: dict[str, bytes]) -> list[str]:
    found = []
    for path, content in tree.items():
        for part in pathlib.PurePath(path).parts:
            if bad := words(part) & FORBIDDEN:
                found.append(f"{path}: the name says nothing ({' '.join(bad)})")
        if re.match(r"csrc/(.*/)?torch/", path):
            found.append(f"{path}: a folder named torch shadows the real one")
        if path.endswith(CODE):
            text = content.decode()
            found += [f"{path}: type {name}" for name in TYPE.findall(text) if words(name) & FORBIDDEN]
            if path.startswith("csrc/") and re.search(r"namespace\s+([\w:]+::)?torch\b", text):
                found.append(f"{path}: a namespace named torch")
            if path.startswith("csrc/") and path.endswith((".h", ".cpp")) and path.split("/")[1] != "bin":
                room = path.split("/")[1]
                outer = {"core": "tersor"}.get(room, f"tersor::{room}")
                names = re.findall(r"^namespace (tersor[\w:]*)", text, re.MULTILINE)
                found += [
                    f"{path}: namespace {name}, the room's is {outer}"
                    for name in names
                    if not (name + "::").startswith(outer + "::")
                ]
    return found


def misspelled(tree: dict[str, bytes]) -> list[str]:
    ours = {path: content for path, content in tree.items() if path.endswith((*CODE, ".md", ".txt", ".toml", ".def"))}
    ours.pop("tests/house/test_names.py", None)
    for novels in ("calibration", "held_out"):  # English ones, as printed
        ours.pop(f"bench/language_model/{novels}.txt", None)
    return [f"{path}: {word.group()}" for path, text in ours.items() for word in BRITISH.finditer(text.decode())]


def test_names_say_something(tree):
    assert breaches(tree) == []


def test_spelling_is_american(tree):
    assert misspelled(tree) == []


def test_an_empty_name_is_found():
    assert words("FastBase_new-thing2") == {"fast", "base", "new", "thing"}
    for path, text in {
        "csrc/core/utils.h": b"",
        "python/tersor/common/x.py": b"",
        "csrc/entropy/rans_fast.cpp": b"",
        "csrc/entropy/rans.h": b"class TableManager {",
        "python/tersor/numpy.py": b"class BaseCodec:",
        "csrc/torch_ops/x.cpp": b"namespace tersor::torch {",
        "csrc/lossless/x.cpp": b"namespace tersor::entropy {",
    }.items():
        assert breaches({path: text}), path
    assert (
        breaches({"csrc/core/newline.h": b"struct Renewed {", "csrc/entropy/x.cpp": b"namespace tersor::entropy {"})
        == []
    )


def test_british_spelling_is_found():
    for word in (b"colour", b"Quantisation", b"neighbours", b"licence", b"initialised"):
        assert misspelled({"docs/x.md": b"the " + word}), word
    assert (
        misspelled(
            {"docs/x.md": b"precise promised raised likewise exercise otherwise noise disguise quantized modeled"}
        )
        == []
    )
