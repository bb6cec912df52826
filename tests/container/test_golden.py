"""Files that version 1 wrote stay readable, with the same bytes inside. They are read, never written again.

golden.json: what decompression gives, by file. The files hold every dtype family, tied, empty and 0-d tensors, a
safetensors file with odd spacing, plain files, and levels 1, 4 and 9.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import tersor

GOLDEN = Path(__file__).with_name("golden")
WANT = json.loads((GOLDEN / "golden.json").read_text())


def test_every_file_is_named():
    assert {path.name for path in GOLDEN.glob("*.tsr")} == set(WANT)


@pytest.mark.parametrize("name", WANT)
def test_golden_decompresses_to_the_same_bytes(name: str, binaries: Path, tmp_path: Path):
    out = tmp_path / "out"
    subprocess.run([binaries / "tersor-dec", GOLDEN / name, out], check=True, timeout=60)
    data = out.read_bytes()
    assert {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} == WANT[name]
    subprocess.run([binaries / "tersor-dec", "--verify", GOLDEN / name], check=True, timeout=60)


@pytest.mark.parametrize("name", WANT)
def test_golden_structure_is_what_the_page_says(name: str, oracle: ModuleType):
    file = oracle.read((GOLDEN / name).read_bytes())
    assert file.content_hash() == file.hash


def test_golden_tensors_load_in_python():
    state = tersor.load_file(GOLDEN / "v1_tensors.tsr")
    assert {name: (str(array.dtype), array.shape) for name, array in state.items()} == {
        "f32": ("float32", (40, 64)),
        "bf16": ("bfloat16", (40, 64)),
        "f16": ("float16", (9, 64)),
        "tied": ("bfloat16", (40, 64)),
        "ids": ("int64", (512,)),
        "scalar": ("float64", ()),
        "empty": ("uint8", (0, 7)),
        "ones": ("float32", (300,)),
        "e4m3": ("float8_e4m3fn", (4, 64)),
        "ü/x": ("bool", (2,)),
    }
    with tersor.safe_open(GOLDEN / "v1_tensors.tsr") as file:
        assert file.metadata() == {"made": "by hand", "ü": "ö"}
