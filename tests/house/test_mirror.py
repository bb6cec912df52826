"""What stands on one side stands on the other: a page has its code and proofs, a kernel its reference and check."""

import re

INDEX = "docs/formats/README.md"
KERNEL = re.compile(r"csrc/(\w+)/(\w+)_(?:avx2|avx512|avx512vbmi|avx512bf16)\.cpp")


def page_breaches(tree: dict[str, bytes]) -> list[str]:
    """The index's rows name page, header, oracle, goldens and cases; a path that ends in / is a folder with files."""
    rows = {}
    for line in tree[INDEX].decode().splitlines():
        if match := re.match(r"\| \[(\w+)\]\((\w+)\.md\) \|(.*)\|", line):
            rows[match[2]] = [cell.strip().strip("`") for cell in match[3].split("|")]
    pages = {
        path.removeprefix("docs/formats/").removesuffix(".md") for path in tree if path.startswith("docs/formats/")
    } - {"README"}
    found = [f"{INDEX}: no row for {page}.md" for page in sorted(pages - set(rows))]
    found += [f"{INDEX}: no page {row}.md" for row in sorted(set(rows) - pages)]
    for page, cells in rows.items():
        if len(cells) != 4:
            found.append(
                f"{INDEX}: {page} has {len(cells)} cells after its page: header, oracle, goldens, cases are needed"
            )
        for cell in cells:
            if not any(path == cell or (cell.endswith("/") and path.startswith(cell)) for path in tree):
                found.append(f"{INDEX}: {page} names {cell}, which is not there")
    return found


def kernel_breaches(tree: dict[str, bytes]) -> list[str]:
    found = []
    for room, unit in sorted({match.groups() for path in tree if (match := KERNEL.fullmatch(path))}):
        if f"csrc/{room}/{unit}_scalar.cpp" not in tree:
            found.append(f"csrc/{room}/{unit}: has a vector kernel and no {unit}_scalar.cpp to equal")
        checks = [path for path in tree if re.fullmatch(rf"tests/{room}/\w+_check\.cpp", path)]
        header = f'#include "{room}/{unit}.h"'.encode()
        if not any(f"/{unit}" in path or header in tree[path] for path in checks):
            found.append(
                f"csrc/{room}/{unit}: has a vector kernel and no check in tests/{room} that includes its header"
            )
    return found


def test_every_page_has_its_proofs(tree):
    assert page_breaches(tree) == []


def test_every_kernel_has_its_reference_and_check(tree):
    assert kernel_breaches(tree) == []


def test_what_is_missing_is_found():
    row = b"| [tsr](tsr.md) | `csrc/tsr.h` | `tests/oracle.py` | `tests/golden/` | `tests/case.py` |"
    whole = {
        path: b""
        for path in ("docs/formats/tsr.md", "csrc/tsr.h", "tests/oracle.py", "tests/golden/v1_a.tsr", "tests/case.py")
    }
    assert page_breaches({INDEX: row, **whole}) == []
    for gone in whole:
        assert page_breaches({INDEX: row, **{path: b"" for path in whole if path != gone}}), gone
    assert page_breaches({INDEX: b"", **whole})
    kernel = {
        "csrc/entropy/rans_avx2.cpp": b"",
        "csrc/entropy/rans_scalar.cpp": b"",
        "tests/entropy/rans_check.cpp": b"",
    }
    assert kernel_breaches(kernel) == []
    assert kernel_breaches({path: b"" for path in kernel if "scalar" not in path})
    assert kernel_breaches({path: b"" for path in kernel if "check" not in path})
