"""A long file is a design question. So is a crowded room, and a large file in git is a mistake."""

import collections

MOST_LINES, MOST_LINES_OF_A_METHOD, MOST_FILES_OF_A_ROOM, MOST_BYTES = 500, 200, 60, 1 << 20
MOST_FILES = {"csrc/entropy": 72}  # docs/house.md says why
MOST_BYTES_OF = {"bench/language_model/model.tsr": 6_000_000}  # the demo needs a real model, and may download none
FAMILIES = ("weights", "budget", "vectors", "kv", "codecs", "links", "prune", "distill", "tokens", "evaluate")
WRITTEN_BY_HAND = (".cpp", ".h", ".cu", ".cuh", ".def", ".py", ".md", ".toml", ".txt", "Makefile")


def breaches(tree: dict[str, bytes]) -> list[str]:
    found = []
    rooms: collections.Counter[str] = collections.Counter()
    for path, content in tree.items():
        parts = path.split("/")
        rooms["/".join(parts[:-1])] += parts[0] in ("csrc", "python") and len(parts) > 2
        lines = content.count(b"\n")
        is_method = parts[:2] == ["python", "tersor"] and len(parts) > 3 and parts[2] in FAMILIES
        most = MOST_LINES_OF_A_METHOD if is_method else MOST_LINES
        if path.endswith(WRITTEN_BY_HAND) and lines > most:
            found.append(f"{path}: {lines} lines, at most {most}")
        most_bytes = MOST_BYTES_OF.get(path, MOST_BYTES)
        if len(content) > most_bytes:
            found.append(f"{path}: {len(content)} bytes, at most {most_bytes}")
    found += [
        f"{room}: {count} files, at most {MOST_FILES.get(room, MOST_FILES_OF_A_ROOM)}"
        for room, count in rooms.items()
        if count > MOST_FILES.get(room, MOST_FILES_OF_A_ROOM)
    ]
    return found


def test_sizes(tree):
    assert breaches(tree) == []


def test_what_is_too_large_is_found():
    assert breaches({"csrc/core/a.cpp": b"\n" * 501})
    assert not breaches({"csrc/core/a.cpp": b"\n" * 500})
    assert breaches({"python/tersor/weights/gptq.py": b"\n" * 201})
    assert breaches({f"csrc/core/u{i}.h": b"" for i in range(61)})
    assert breaches({f"csrc/entropy/u{i}.h": b"" for i in range(73)})
    assert not breaches({f"csrc/entropy/u{i}.h": b"" for i in range(72)})
    assert breaches({"tests/container/golden/v1_a.tsr": b"x" * ((1 << 20) + 1)})
    assert breaches({"bench/language_model/other.tsr": b"x" * ((1 << 20) + 1)})
    assert breaches({"bench/language_model/model.tsr": b"x" * 6_000_001})
    assert not breaches({"bench/language_model/model.tsr": b"x" * 6_000_000})
