"""The demo's language model is the one that its page describes: its bytes, its size, what it predicts."""

from __future__ import annotations

import hashlib
import re
import subprocess

import pytest

FOLDER = "bench/language_model"


@pytest.fixture(scope="module")
def folder(root):
    if not (root / FOLDER).is_dir():
        pytest.skip(f"no {FOLDER}: the sdist leaves it out")
    return root / FOLDER


def test_weights_are_those_that_the_page_names(folder, binaries, tmp_path):
    out = tmp_path / "model.safetensors"
    subprocess.run([binaries / "tersor-dec", folder / "model.tsr", out], check=True, timeout=60)
    (digest,) = re.findall(r"\b[0-9a-f]{64}\b", (folder / "README.md").read_text())
    assert hashlib.sha256(out.read_bytes()).hexdigest() == digest


def test_held_out_text_is_predicted_and_is_not_the_calibration_text(folder):
    pytest.importorskip("transformers")
    from transformers import AutoTokenizer

    from tersor.evaluate.language import score_language_model, tokens_of
    from tersor.transformers import from_pretrained

    texts = {name: (folder / f"{name}.txt").read_text(encoding="utf-8") for name in ("held_out", "calibration")}
    assert set(texts["held_out"].splitlines()).isdisjoint(texts["calibration"].splitlines())
    tokens = tokens_of(AutoTokenizer.from_pretrained(folder), texts["held_out"])
    score = score_language_model(from_pretrained(folder).float(), tokens, limit=4)
    assert score.perplexity == pytest.approx(72.00, rel=2e-3)  # of the first 2048 tokens; 64.59 of all
