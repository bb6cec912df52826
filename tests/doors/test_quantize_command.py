"""tersor quantize: what its options mean, and what it says."""

import json
import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch", reason="PyTorch is not here")
transformers = pytest.importorskip("transformers", minversion="5", reason="transformers >= 5 is not here")

from tersor.cli import main, parser, quantizing  # noqa: E402
from tersor.weights import LayerRecipe, Recipe  # noqa: E402


def recipe_of(*options: str) -> Recipe:
    return quantizing.recipe_of(parser().parse_args(["quantize", "MODEL", "OUT", *options]))


def test_options_make_a_recipe(tmp_path):
    assert recipe_of() == Recipe(layer=LayerRecipe(format="int4-g128", solver="rtn", grid="mse"))
    assert recipe_of("--calib", "t") == Recipe(layer=LayerRecipe(format="int4-g128", solver="cd"))
    found = recipe_of(
        "--bits", "3", "--group", "64", "--solver", "gptq", "--grid", "mse", "--transform", "hadamard",
        "--outliers", "1%", "--rank", "8", "--seed", "5", "--samples", "7", "--length", "9", "--calib", "t",
        "--embeddings", "int8-g128", "--activations", "exact",
    )  # fmt: skip
    layer = LayerRecipe(
        format="int3-g64", solver="gptq", grid="mse", transform="hadamard", outliers=0.01, rank=8, seed=5,
        activations="exact",
    )  # fmt: skip
    embeddings = LayerRecipe(format="int8-g128", solver="rtn", grid="mse")
    assert found == Recipe(layer=layer, embeddings=embeddings, samples=7, length=9, seed=5)
    assert recipe_of("--format", "nf4").layer.format == "nf4"
    assert recipe_of("--group", "channel", "--bits", "8").layer.format == "int8-channel"
    (tmp_path / "r.yaml").write_text(found.dump())
    again = recipe_of("--recipe", str(tmp_path / "r.yaml"), "--bits", "2", "--calib", "t")
    assert again.layer == LayerRecipe(**{**_fields(layer), "format": "int2-g64"})
    assert (again.samples, again.embeddings) == (7, embeddings)


def _fields(layer):
    import dataclasses

    return dataclasses.asdict(layer)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--format", "nf4", "--bits", "4"], "--format names bits and group already"),
        (["--solver", "gptq"], "needs --calib TEXT"),
        (["--format", "int5-g100"], "no format is named 'int5-g100'"),
        (["--recipe", "nothing"], "no recipe is named 'nothing'"),
    ],
)
def test_options_that_do_not_serve(tmp_path, capsys, options, told):
    assert main(["quantize", str(tmp_path), str(tmp_path / "out"), *options]) == 2
    found = capsys.readouterr().err
    assert told in found
    assert found.count("\n") == 1


def test_wrong_shares_are_usage(capsys):
    with pytest.raises(SystemExit) as left:
        main(["quantize", "MODEL", "OUT", "--outliers", "120%"])
    assert left.value.code == 2
    assert "a share below 100% is needed, as 1%, not 120%" in capsys.readouterr().err


@pytest.fixture
def small(tmp_path):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, dtype="bfloat16",
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).bfloat16().save_pretrained(tmp_path / "in")
    return tmp_path / "in"


def test_a_model(small, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["quantize", str(small), out, "--group", "32", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["bits_per_weight"] == 4.5
    assert found["bytes"] == (tmp_path / "out/model.safetensors").stat().st_size
    row = next(row for row in found["layers"] if row["name"] == "model.layers.1.mlp.up_proj.weight")
    assert (row["format"], row["bytes"]) == ("int4-g32", 96 * 64 // 2 + 96 * 2 * 2)
    assert 0 < row["error"] < 0.2
    assert main(["quantize", str(small), out]) == 1
    assert "--resume goes on with a run that was cut off, -f begins anew" in capsys.readouterr().err
    assert main(["quantize", str(small), out, "--bits", "8", "-f"]) == 0
    told = capsys.readouterr()
    assert "bits/weight where quantized" in told.out
    assert "[16/16]" in told.err
    assert main(["quantize", str(small), str(tmp_path / "quiet"), "-q"]) == 0
    assert capsys.readouterr() == ("", "")
