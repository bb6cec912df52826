"""`tersor eval` on folders of transformers: one object, plain sentences, and errors in a line."""

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

from tersor.cli import main


def test_one_object_and_plain_sentences(folder, capsys):
    given = ["eval", str(folder / "model"), "--text", str(folder / "text.txt"), "--length", "16"]
    assert main([*given, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert set(alone) == {"kind", "architecture", "perplexity", "perplexity_se", "tokens", "windows"}
    assert (alone["kind"], alone["architecture"]) == ("causal language model", "LlamaForCausalLM")
    assert alone["tokens"] == 64
    assert main([*given, "--reference", str(folder / "reference"), "--json", "-T", "1"]) == 0
    beside = json.loads(capsys.readouterr().out)
    assert beside["perplexity"] == pytest.approx(alone["perplexity"], rel=1e-5)
    assert beside["kl_mean"] > 0
    assert main([*given, "--reference", str(folder / "model"), "--limit", "2"]) == 0
    text = capsys.readouterr().out
    assert main([*given, "--limit", "1", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"kind", "architecture", "perplexity", "tokens", "windows"}
    assert text.startswith("causal language model, LlamaForCausalLM\nperplexity ")
    assert "2 windows" in text
    assert "same likeliest token 100.00 %" in text


def test_weights_may_be_compressed(folder, capsys, tmp_path):
    given = ["--text", str(folder / "text.txt"), "--length", "16", "--json"]
    assert main(["eval", str(folder / "model"), *given]) == 0
    want = json.loads(capsys.readouterr().out)
    small = tmp_path / "small"
    small.mkdir()
    for path in (folder / "model").iterdir():
        (small / path.name).write_bytes(path.read_bytes())
    assert main(["compress", "-q", str(small / "model.safetensors")]) == 0
    (small / "model.safetensors").unlink()
    assert main(["eval", str(small), *given]) == 0
    assert json.loads(capsys.readouterr().out) == want


def test_tensors_that_are_missing_are_not_made_up(folder, capsys, tmp_path):
    from safetensors.torch import load_file, save_file

    for path in (folder / "model").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    given = ["eval", str(tmp_path), "--text", str(folder / "text.txt"), "--length", "16"]
    assert main(given) == 1
    assert "1 tensors are missing, model.layers.0.mlp.up_proj.weight the first" in capsys.readouterr().err
    assert main(["compress", "-q", str(tmp_path / "model.safetensors")]) == 0
    (tmp_path / "model.safetensors").unlink()
    assert main(given) == 1
    assert "1 tensors are missing, model.layers.0.mlp.up_proj.weight the first" in capsys.readouterr().err


def test_what_is_wrong_is_one_line(folder, capsys, tmp_path):
    text = str(folder / "text.txt")
    assert main(["eval", str(tmp_path / "none"), "--text", text]) == 1
    assert "a folder with a model is needed" in capsys.readouterr().err
    assert main(["eval", str(folder / "model"), "--text", str(tmp_path / "none.txt")]) == 1
    assert f"{tmp_path}/none.txt: No such file" in capsys.readouterr().err
    (tmp_path / "bytes.txt").write_bytes(b"ab\xff")
    assert main(["eval", str(folder / "model"), "--text", str(tmp_path / "bytes.txt")]) == 2
    assert "bytes.txt: UTF-8 is needed, byte 2 is 0xff" in capsys.readouterr().err
    assert main(["eval", str(folder / "model"), "--text", text, "--length", "90"]) == 2
    assert "the text has 70 tokens, 91 are needed for one window" in capsys.readouterr().err
    for given, message in {
        (): "one MODEL is needed, or several behind --compare",
        ("a", "--compare", "b", "--text", text): "one MODEL is needed, or several behind --compare",
        ("a",): "one of --text and --tasks is needed",
        ("a", "--text", text, "--tasks", "t"): "one of --text and --tasks is needed",
        ("a", "--tasks", "t", "--reference", "b"): "leave out --compare and --reference",
        ("a", "--text", text, "--include-path", "b"): "--include-path goes with --tasks",
        ("a", "--text", text, "-o", "b.html"): "-o goes with --compare",
    }.items():
        assert main(["eval", *given]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["eval", "a", "--tasks", "t,,u"])
    assert "names parted by commas are needed, not 't,,u'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["eval", str(folder / "model"), "--text", text, "--length", "0"])
    assert "a number from 1 on is needed, not 0" in capsys.readouterr().err
