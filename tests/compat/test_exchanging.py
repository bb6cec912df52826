"""tersor import and tersor export, as commands."""

import json

import pytest

from tersor.cli import main
from tersor.formats.model_folder import ModelFolder


def test_there_and_back(small_model, tmp_path, capsys):
    source = str(small_model("llama"))
    file, packed, out = (str(tmp_path / name) for name in ("x.gguf", "packed", "out"))
    assert main(["export", source, file, "--to", "gguf-q8_0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == (tmp_path / "x.gguf").stat().st_size
    assert told["tensors"]["blk.1.attn_q.weight"] == "Q8_0"
    assert main(["import", file, out]) == 0
    assert "16 int8-g32" in capsys.readouterr().out
    assert main(["export", out, packed, "--to", "compressed-tensors", "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["import", packed, out]) == 1
    assert 'out" exists; -f overwrites it' in capsys.readouterr().err
    assert main(["import", packed, out, "-f"]) == 0
    with ModelFolder(out) as folder:
        assert len(folder.rows) == 15  # the embedding has become floats, the layer behind the logits has stayed


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["import", "nowhere", "OUT"], "nowhere is not there", 1),
        (["export", "MODEL", "OUT", "--to", "gguf-q4_0", "--bits", "4"], "--bits is for compressed-tensors", 2),
        (["export", "MODEL", "OUT", "--to", "compressed-tensors", "--importance", "x"], "--importance is for GGUF", 2),
        (["import", "MODEL", "OUT"], "quantized by None, known are gptq, awq, compressed-tensors", 1),
    ],
)
def test_errors_are_one_line(arguments, said, code, small_model, tmp_path, capsys):
    places = {"MODEL": str(small_model("llama")), "OUT": str(tmp_path / "out")}
    assert main([places.get(one, one) for one in arguments]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
