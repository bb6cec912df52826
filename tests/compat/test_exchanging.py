"""tersor import and tersor export: as commands, of what tersor quantizes, and what transformers loads."""

import json

import numpy as np
import pytest

from tersor.cli import main
from tersor.compat.gguf_export import export_gguf
from tersor.compat.gguf_import import import_gguf
from tersor.compat.integer_import import import_quantized
from tersor.compat.packed_export import export_packed
from tersor.formats import QuantizedTensor
from tersor.formats.model_folder import ModelFolder
from tersor.weights import LayerRecipe, Recipe, Rule


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


def test_what_is_there_stays_until_it_is_replaced_as_a_whole(small_model, tmp_path, capsys):
    """No file of another model is left among the new ones, and nothing is lost where the work fails."""
    source, file, out = str(small_model("llama")), tmp_path / "x.gguf", tmp_path / "out"
    assert main(["export", source, str(file), "--to", "gguf-q4_0", "-q"]) == 0
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:-100])
    out.mkdir()
    (out / "model-00001-of-00002.safetensors").write_text("another's")
    assert main(["import", str(tmp_path / "cut.gguf"), str(out), "-f"]) == 1
    assert [path.name for path in out.iterdir()] == ["model-00001-of-00002.safetensors"]
    with pytest.raises(FileExistsError, match="an empty folder or none is needed"):
        import_gguf(file, out)
    assert main(["import", str(file), str(out), "-f", "-q"]) == 0
    assert sorted(path.name for path in out.glob("*.safetensors")) == ["model.safetensors"]
    assert main(["export", str(out), str(out), "--to", "compressed-tensors", "-f"]) == 1
    assert "which is read" in capsys.readouterr().err
    assert main(["export", str(out), str(tmp_path), "--to", "gguf-q4_0", "-f"]) == 1
    assert "is a folder, gguf-q4_0 is a file" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.gguf", "out", "x.gguf"]


@pytest.fixture(scope="module")
def quantized_folder(small_model, tmp_path_factory):
    """By tersor quantize: rotated, with outliers and a product that mends the rest, an embedding that is the head."""
    quantizing = pytest.importorskip("tersor.transformers.quantizing", reason="models are torch's")
    layer = LayerRecipe(
        format="int3-g32", solver="rtn", transform="hadamard", outliers=0.02, outlier_kind="magnitude", rank=2
    )
    recipe = Recipe(
        layer=layer,
        rules=(Rule(pattern="*.0.self_attn.q*", layer=LayerRecipe(format="q4_0", solver="rtn")),
               Rule(pattern="*.1.mlp.up*")),
        embeddings=LayerRecipe(format="q8_0", solver="rtn"), samples=2, length=16,
    )  # fmt: skip
    made = tmp_path_factory.mktemp("quantized") / "out"
    quantizing.quantize(small_model("llama", tie_word_embeddings=True), made, recipe, text="once upon a time, " * 60)
    with ModelFolder(made) as folder:
        assert folder.rows["lm_head.weight"]["tied_to"] == "model.embed_tokens.weight"
        rows = [row for row in folder.rows.values() if row.get("transforms")]
        assert len(rows) == 12
        assert all(len(row["side_terms"]) == 2 for row in rows)
    return made


def assert_same_values(before, after, share):
    """Every matrix to a share of its size, all else exactly; a head that is the embedding has no array of its own."""
    with ModelFolder(before) as wanted, ModelFolder(after) as found:
        for name in wanted.names():
            if wanted.rows.get(name, {}).get("tied_to"):
                row = found.rows.get(name, {})
                assert row.get("tied_to") or (name not in found.names() and found.config["tie_word_embeddings"])
                continue
            one, other = (
                one.dequantize(np.float32) if isinstance(one, QuantizedTensor) else one.astype(np.float32)
                for one in (wanted.get(name), found.get(name))
            )
            error = np.sqrt(np.mean(np.square(one - other)))
            assert error <= (share if one.ndim == 2 else 0) * np.sqrt(np.mean(np.square(one))), name


def test_quantized_folders_become_gguf(quantized_folder, tmp_path):
    """What GGUF has no place for is dequantized: transforms undone, side terms added."""
    done = export_gguf(quantized_folder, tmp_path / "x.gguf", "q8_0")
    assert "output.weight" not in done.tensors
    assert done.tensors["token_embd.weight"] == "Q8_0 (copied)"
    assert done.tensors["blk.0.attn_q.weight"] == "Q4_0 (copied)"
    assert "12 quantized matrices were dequantized and rounded anew: GGUF does not hold them" in done.notes
    import_gguf(tmp_path / "x.gguf", tmp_path / "in")
    assert_same_values(quantized_folder, tmp_path / "in", 0.01)


def test_quantized_folders_become_compressed_tensors(quantized_folder, tmp_path):
    done = export_packed(quantized_folder, tmp_path / "x", bits=8)
    assert len([note for note in done.notes if "is dequantized and rounded to int8-channel" in note]) == 12
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    assert config["tie_word_embeddings"]
    assert "lm_head" in config["quantization_config"]["ignore"]
    import_quantized(tmp_path / "x", tmp_path / "in")
    assert_same_values(quantized_folder, tmp_path / "in", 0.02)


def test_transposed_layers_are_refused(tmp_path):
    """GPT-2's: neither format has a place for them, quantized or not."""
    torch = pytest.importorskip("torch", reason="models are torch's")
    transformers = pytest.importorskip("transformers", reason="folders are transformers'")
    from tersor.transformers.quantizing import quantize

    config = transformers.AutoConfig.for_model("gpt2", vocab_size=64, n_embd=32, n_layer=1, n_head=2, n_positions=16)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "a")
    quantize(tmp_path / "a", tmp_path / "b", Recipe(layer=LayerRecipe(format="int4-g32", solver="rtn")))
    for name in ("a", "b"):
        with pytest.raises(ValueError, match="has no linear layer that can be packed"):
            export_packed(tmp_path / name, tmp_path / "c")
        with pytest.raises(ValueError, match="'gpt2', GGUF export knows"):
            export_gguf(tmp_path / name, tmp_path / "c", "q4_0")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_what_is_imported(tied, small_model, model_of, tmp_path):
    """By its own from_pretrained; logits are those of the dequantized numbers."""
    torch = pytest.importorskip("torch", reason="models are torch's")
    transformers = pytest.importorskip("transformers", reason="folders are transformers'")
    import tersor.transformers  # noqa: F401
    from tersor.nn.quantized import QuantEmbedding, QuantLinear, read_exactly

    export_gguf(small_model("llama", tie_word_embeddings=tied), tmp_path / "x.gguf", "q4_0")
    import_gguf(tmp_path / "x.gguf", tmp_path / "in")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "in", dtype=torch.float32).eval()
    assert isinstance(model.lm_head, QuantLinear)
    assert isinstance(model.model.embed_tokens, QuantEmbedding)
    assert (model.lm_head.packed_weight is model.model.embed_tokens.packed_weight) == tied
    read_exactly(model)
    tokens = torch.tensor([[0, 5, 77, 300, 12, 9, 200, 31]])
    with torch.no_grad():
        found, wanted = model(tokens).logits, model_of(tmp_path / "in")(tokens).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.std()))
