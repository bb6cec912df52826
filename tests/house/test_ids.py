"""Numbers on disk are never changed, reused or taken back: golden/ids.txt holds all that were ever given out."""

import pathlib
import re

ROW = re.compile(r"^TERSOR_(DTYPE|CODEC|STREAM)\((\d+), *(.*)\)$", re.MULTILINE)
RELEASED = pathlib.Path(__file__).parent / "golden" / "ids.txt"


def rows(text: str) -> list[tuple[str, int, str]]:
    return [(kind, int(number), rest) for kind, number, rest in ROW.findall(text)]


def breaches(ids: str, released: str) -> list[str]:
    now, then = rows(ids), rows(released)
    found = [f"{row} was given out and is gone or changed" for row in then if row not in now]
    found += [f"{row} is not in {RELEASED.name}: append it there, for ever" for row in now if row not in then]
    keys = [row[:2] for row in now]
    found += [f"{key} is given twice" for key in sorted(set(keys)) if keys.count(key) > 1]
    for kind in {row[0] for row in now}:
        numbers = [number for row_kind, number, _ in now if row_kind == kind]
        if numbers != sorted(numbers):
            found.append(f"{kind}: rows are in the order of their numbers, not {numbers}")
    return found


def test_numbers_on_disk_only_grow(tree):
    ids = tree["csrc/core/ids.def"].decode()
    assert len(rows(ids)) == len(re.findall(r"^TERSOR_\w+\(", ids, re.MULTILINE)), "a row this test cannot read"
    assert breaches(ids, RELEASED.read_text()) == []


def test_a_changed_number_is_found():
    released = "TERSOR_CODEC(1, stored)\nTERSOR_CODEC(2, lossless)\n"
    assert breaches(released, released) == []
    for ids in (
        "TERSOR_CODEC(1, stored)\n",
        "TERSOR_CODEC(1, stored)\nTERSOR_CODEC(3, lossless)\n",
        "TERSOR_CODEC(2, stored)\nTERSOR_CODEC(1, lossless)\n",
        released + "TERSOR_CODEC(2, other)\n",
        released + "TERSOR_CODEC(3, other)\n",
        "TERSOR_CODEC(2, lossless)\nTERSOR_CODEC(1, stored)\n",
    ):
        assert breaches(ids, released), ids
