"""bench/generation.py on a small model: a line and a row for each figure."""

import json
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "bench" / "generation.py"


def test_both_figures(tmp_path):
    pytest.importorskip("transformers")
    to = tmp_path / "rows.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "-o", str(to)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(to.read_text())["rows"]
    assert [row["what"] for row in rows] == ["model", "model", "generate", "generate"]
    assert all(row["tokens_per_s"] > 0 and row["bytes"] == rows[0]["bytes"] for row in rows)
    assert len(done.stdout.splitlines()) == len(rows)
