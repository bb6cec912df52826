"""`tersor eval --compare`: one table, one object and one page of several models, with the front of size and loss."""

import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

from tersor.cli import main
from tersor.cli.comparing import on_front, short
from tersor.evaluate.language import paired_difference, score_language_model, tokens_of
from tersor.transformers import load_for_evaluation, model_facts

NAMES = ("model", "half", "worse")


def given(here, text, *names):
    return ["eval", "--compare", *(str(here / name) for name in names), "--text", str(here / text), "--length", "16"]


def scores(folder, *names, reference=None):
    reference = None if reference is None else load_for_evaluation(folder / reference)[0]
    text = (folder / "text.txt").read_text(encoding="utf-8")
    for name in names:
        model, tokenizer = load_for_evaluation(folder / name)
        yield score_language_model(model, tokens_of(tokenizer, text), reference=reference, length=16)


def places(page):
    """Of each plot: a mark's number -> its x and y; and the line through the front."""
    for found in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        plot = ElementTree.fromstring(found)
        texts = [mark.find("text") for mark in plot.iter("g")]
        yield (
            {int(text.text): (float(text.get("x")), float(text.get("y"))) for text in texts},
            plot.find("polyline").get("points"),
        )


def test_a_front():
    assert on_front([(4, 1.0), (2, 2.0), (3, 1.5), (3, 1.6), (5, 1.0), (1, math.inf)]) == [
        True, True, True, False, False, True,
    ]  # fmt: skip
    assert on_front([(2, 1.0), (2, 1.0)]) == [True, True]


def test_names_are_short_where_they_differ():
    assert short(["models/a/", "../b"]) == ["a", "b"]
    assert short(["x/a", "y/a"]) == ["x/a", "y/a"]


def test_beside_a_reference(folder, capsys, tmp_path):
    out = tmp_path / "pages" / "loss.html"
    arguments = [*given(folder, "text.txt", *NAMES), "--reference", str(folder / "model"), "-o", str(out)]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kind"] == "causal language model"
    for row, name, score in zip(result["models"], NAMES, scores(folder, *NAMES, reference="model"), strict=True):
        assert (row["model"], row["name"]) == (str(folder / name), name)
        assert row["bytes"] == (folder / name / "model.safetensors").stat().st_size
        assert row["bits_per_weight"] == 8 * row["bytes"] / row["weights"]
        assert row["loss"] == pytest.approx(score.kl_mean, rel=1e-6, abs=1e-12)
        assert row["loss_se"] == pytest.approx(score.kl_se, rel=1e-6, abs=1e-12)
        assert row["perplexity_ratio"] == pytest.approx(score.perplexity_ratio)
    assert [row["on_front"] for row in result["models"]] == [True, True, False]
    page = out.read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img", page)
    for marks, front in places(page):
        assert len(marks) == 3
        assert marks[1][0] > marks[2][0] == marks[3][0]  # the bytes
        assert marks[1][1] > marks[2][1] > marks[3][1]  # the loss, upward
        assert [float(pair.split(",")[0]) for pair in front.split()] == [marks[2][0], marks[1][0]]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for row in result["models"]:
        cell = f"{row['kl_mean']:.6f} +- {row['kl_se']:.6f}"
        assert cell in shown
        assert cell.replace("+-", "±") in page
        assert f"{row['bits_per_weight']:.3f}" in shown
    assert "64 tokens in 4 windows" in shown


def test_without_one_the_first_is_paired_with_the_others(folder, capsys):
    assert main([*given(folder, "text.txt", *NAMES), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    first, *others = scores(folder, *NAMES)
    assert rows[0]["loss"] == pytest.approx(math.log(first.perplexity))
    assert (rows[0]["loss_difference"], rows[0]["loss_se"]) == (0, None)
    for row, score in zip(rows[1:], others, strict=True):
        apart = np.subtract(score.window_losses, first.window_losses)
        assert row["loss"] == pytest.approx(math.log(score.perplexity), rel=1e-6)
        assert row["loss_difference"] == pytest.approx(apart.mean(), rel=1e-4)
        assert row["loss_se"] == pytest.approx(apart.std(ddof=1) / 2, rel=1e-4)
    assert rows[1]["loss_se"] < 0.1 * rows[1]["perplexity_se"] / rows[1]["perplexity"]  # what pairing is for
    assert main(given(folder, "text.txt", *NAMES)) == 0
    shown = capsys.readouterr().out
    assert f"{rows[2]['loss_difference']:.5f} +- {rows[2]['loss_se']:.5f}" in shown
    assert "of what is beside the first's, paired with it" in shown


def test_encoders(encoders, capsys, tmp_path):
    arguments = [*given(encoders, "sentences.txt", *NAMES), "--reference", str(encoders / "model")]
    assert main([*arguments, "-o", str(tmp_path / "loss.html"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kind"] == "encoder"
    assert [row["on_front"] for row in result["models"]] == [True, True, False]
    for row in result["models"]:
        assert row["loss"] == pytest.approx(1 - row["cosine_mean"], abs=1e-12)
        assert row["loss_se"] == row["cosine_se"]
    page = (tmp_path / "loss.html").read_text(encoding="utf-8")
    for marks, _ in places(page):
        assert marks[1][1] > marks[2][1] > marks[3][1]
    assert "1e-16" not in page  # what rounding leaves of a model beside itself stretches no axis
    assert main(arguments) == 0
    assert "30 sentences" in capsys.readouterr().out


def test_facts_are_read_without_weights(folder, tmp_path):
    facts = model_facts(folder / "half")
    assert (facts.architecture, facts.is_causal) == ("LlamaForCausalLM", True)
    assert facts.weights == sum(weight.numel() for weight in load_for_evaluation(folder / "half")[0].parameters())
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / "half" / name).read_bytes())
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    assert model_facts(tmp_path).nbytes == facts.nbytes
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        model_facts(tmp_path)


def test_what_does_not_compare_is_refused(folder, encoders, capsys, tmp_path):
    assert main([*given(folder, "text.txt", "model"), "--reference", str(encoders / "model")]) == 2
    assert "one kind is needed" in capsys.readouterr().err
    assert main(given(encoders, "sentences.txt", "model", "half")) == 2
    assert "it is measured beside a --reference" in capsys.readouterr().err
    assert main(given(folder, "text.txt", "model", "none")) == 1
    assert "none: a folder with a model is needed" in capsys.readouterr().err
    for path in (folder / "model").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    words = json.loads((tmp_path / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["the"], vocabulary["cat"] = vocabulary["cat"], vocabulary["the"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(words))
    arguments = given(folder, "text.txt", "model")
    assert main([*arguments[:3], str(tmp_path), *arguments[3:]]) == 2
    assert "parts the text into other tokens" in capsys.readouterr().err
    assert main([*arguments, "--reference", str(tmp_path)]) == 2
    assert f"model parts the text into other tokens than {tmp_path}" in capsys.readouterr().err


def test_other_windows_are_not_paired(folder):
    (score,) = scores(folder, "model")
    model, tokenizer = load_for_evaluation(folder / "model")
    tokens = tokens_of(tokenizer, (folder / "text.txt").read_text(encoding="utf-8"))
    fewer = score_language_model(model, tokens, length=16, limit=2)
    with pytest.raises(ValueError, match="64 tokens in 4 windows are not paired with 32 in 2"):
        paired_difference(score, fewer)
