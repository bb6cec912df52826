"""docs/learned_codecs.md: its examples run as they are written, its table is what was measured."""

import json
import re

import numpy as np


def examples(root):
    return re.findall(
        r"^```python\n(.*?)^```", (root / "docs" / "learned_codecs.md").read_text(), re.MULTILINE | re.DOTALL
    )


def test_the_example_with_compressai(compressai, root):
    exec(examples(root)[0], {})


def test_the_other_examples(root):
    names = {"np": np}
    first, *others = examples(root)
    assert "compressai" in first
    assert len(others) == 3
    for example in others:
        exec(example, names)


def test_the_table_is_the_committed_result(load, root):
    codec = load("bench/learned_codec.py")
    text = (root / "docs" / "learned_codecs.md").read_text()
    result = json.loads((root / "bench" / "results" / "learned_codec.json").read_text())
    assert text == codec.page(text, result), "run bench/learned_codec.py with -o"
    result["rows"][0]["times"] += 1
    assert text != codec.page(text, result)
