"""zip_fit: the formula, and that it finds the target's domain among candidates of two."""

import inspect
import lzma
import random

import numpy as np
import pytest

import tersor.evaluate
from tersor.evaluate import compressed_bytes, zip_fit

RECIPE = [
    "peel and chop the onions",
    "heat the oil in a pan",
    "stir until golden",
    "add a cup of stock",
    "season with salt and pepper",
    "simmer for ten minutes",
    "fold in the butter",
    "bake at two hundred degrees",
    "serve warm with bread",
    "whisk the eggs",
]
CODE = [
    "for i in range(n):",
    "return self.count",
    "if value is None:",
    "raise ValueError(name)",
    "x = np.zeros(n)",
    "def read(self, n):",
    "while left > 0:",
    "print(total / n)",
    "import numpy as np",
    "assert a.shape == b.shape",
]


def written(sentences, seed, count, sentences_each=8):
    rng = random.Random(seed)
    return [" ".join(rng.choice(sentences) for _ in range(sentences_each)) for _ in range(count)]


def share_of_the_first(candidates, target, k):
    """Share of the chosen that are among the first half of the candidates."""
    return float(np.mean(zip_fit(candidates, target, k) < len(candidates) // 2))


@pytest.mark.parametrize("seed", range(3))
def test_the_right_domain_is_chosen(seed):
    recipes, code = written(RECIPE, seed, 20), written(CODE, seed, 20)
    assert share_of_the_first(recipes + code, written(RECIPE, seed + 100, 5), 20) >= 0.9
    assert share_of_the_first(code + recipes, written(CODE, seed + 100, 5), 20) >= 0.9


def test_a_novel_is_chosen_among_programs(data):
    paragraphs = (data / "text" / "train.txt").read_text(encoding="utf-8").splitlines()[:2000]
    novel = [paragraph[:800] for paragraph in paragraphs if len(paragraph) > 500]
    source = (data / "train_lm.py").read_text() + inspect.getsource(lzma)
    programs = [source[i : i + 800] for i in range(0, len(source) - 800, 800)]
    assert len(programs) >= 15
    candidates = novel[:15] + programs[:15]
    assert share_of_the_first(candidates, novel[20:30], 15) >= 0.8


def test_the_formula():
    candidates, target = written(RECIPE, 0, 3) + written(CODE, 0, 3), written(RECIPE, 1, 2)
    alignments = []
    for x in candidates:
        distances = []
        for y in target:
            cx, cy, cxy = (compressed_bytes(text.encode()) for text in (x, y, x + y))
            distances.append((cxy - min(cx, cy)) / max(cx, cy))
        alignments.append(1 - np.mean(distances))
    chosen = zip_fit(candidates, target, 6)
    assert chosen.dtype == np.int64
    assert sorted(chosen) == list(range(6))
    assert (np.diff(np.array(alignments)[chosen]) <= 1e-12).all()
    assert list(zip_fit(candidates, target, 2)) == list(chosen[:2])
    assert zip_fit(candidates, target, 0).shape == (0,)


def test_equals_keep_their_order_and_str_is_utf8():
    assert list(zip_fit(["ähnlich"] * 4, ["ähnlich".encode()], 3)) == [0, 1, 2]


def test_what_is_guessed_from_contexts():
    """A second copy costs little, since every byte of it follows a context that was seen."""
    rng = np.random.default_rng(0)
    text = rng.integers(0, 256, 4000).astype(np.uint8).tobytes()
    assert compressed_bytes(text * 2) < 1.2 * compressed_bytes(text)
    lone = [compressed_bytes(text) for text in (b"", b"a", b"ab", b"aba")]
    assert all(0 < size < 300 for size in lone)


def test_bad_calls():
    for k in (-1, 3):
        with pytest.raises(ValueError, match=f"k is 0 to 2, the number of candidates, not {k}"):
            zip_fit(["a", "b"], ["c"], k)
    with pytest.raises(ValueError, match="found none"):
        zip_fit(["a"], [], 1)
    with pytest.raises(TypeError, match="one str"):
        zip_fit("abc", ["c"], 1)
    with pytest.raises(TypeError, match="found int"):
        zip_fit([1], ["c"], 1)


def test_reached_without_an_import_of_its_own():
    assert tersor.evaluate.zip_fit is zip_fit
