"""tersor.compat.integer_import and packed_export: GPTQ, AWQ and compressed-tensors against their layouts in NumPy."""

import json

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch

import tersor
from tersor import FormatError
from tersor.compat.integer_import import import_quantized
from tersor.compat.packed_export import export_packed
from tersor.formats import Hadamard, QuantizedTensor
from tersor.formats.model_folder import Entry, ModelFolder, ModelWriter

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
NAME = "model.layers.0.mlp.up_proj"


def words(codes, bits):
    """The oracle of every layout but AWQ's: integers of each row, lowest first, in 32-bit words."""
    out = []
    for row in codes:
        number = sum(int(code) << bits * i for i, code in enumerate(row))
        count = -(-len(row) * bits // 32)
        out.append([(number >> 32 * i) & 0xFFFFFFFF for i in range(count)])
    return np.array(out, np.uint32).view(np.int32)


def problem(bits, rows=24, columns=128, groups=4, seed=0, zeros=None):
    """codes [N, K], scales [N, G] float16, zeros [N, G]."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 2**bits, (rows, columns))
    scales = (random.random((rows, groups)) * 0.1 + 0.01).astype(np.float16)
    made = random.integers(0, 2**bits, (rows, groups)) if zeros is None else np.full((rows, groups), zeros)
    return codes, scales, made


def values(codes, scales, zeros, index):
    """What the layouts mean, in float32."""
    return scales.astype(np.float32)[:, index] * (codes - zeros[:, index]).astype(np.float32)


def folder_of(path, arrays, settings, **config):
    path.mkdir()
    safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()},
                                path / "model.safetensors")  # fmt: skip
    found = {"model_type": "llama", **config, "quantization_config": settings}
    (path / "config.json").write_text(json.dumps(found))
    (path / "tokenizer.json").write_text("{}")
    return path


def gptq_arrays(bits, codes, scales, zeros, index, version):
    stored = (zeros - 1) % 2**bits if version == "gptq" else zeros
    return {
        f"{NAME}.qweight": words(codes.T.T, bits).T,
        f"{NAME}.qzeros": words(stored.T, bits),
        f"{NAME}.scales": scales.T,
        f"{NAME}.g_idx": index.astype(np.int32),
        "model.norm.weight": np.ones(8, np.float16),
    }


def imported(source, out):
    import_quantized(source, out)
    with ModelFolder(out) as folder:
        assert folder.config.get("quantization_config", {}).get("quant_method") == "tersor"
        return folder.get(f"{NAME}.weight")


@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq(bits, version, tmp_path):
    codes, scales, zeros = problem(bits, rows=32)
    index = np.arange(128) // 32
    settings = {"quant_method": "gptq", "bits": bits, "group_size": 32, "checkpoint_format": version}
    arrays = gptq_arrays(bits, codes, scales, zeros, index, version)
    found = imported(folder_of(tmp_path / "a", arrays, settings), tmp_path / "b")
    assert str(found.format) == f"int{bits}-g32-zero-exact"
    assert not found.transforms
    assert found.dequantize(np.float32).tobytes() == values(codes, scales, zeros, index).tobytes()
    with ModelFolder(tmp_path / "b") as folder:
        np.testing.assert_array_equal(folder.get("model.norm.weight"), np.ones(8, np.float16))
    assert (tmp_path / "b" / "tokenizer.json").read_text() == "{}"


@pytest.mark.parametrize("groups", [1, 4])
def test_gptq_symmetric_in_the_order_of_activations(groups, tmp_path):
    codes, scales, zeros = problem(4, groups=groups, zeros=8)
    index = np.random.default_rng(1).permutation(128) // 32 if groups > 1 else np.zeros(128, int)
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32 if groups > 1 else -1, "desc_act": True}
    source = folder_of(tmp_path / "a", gptq_arrays(4, codes, scales, zeros, index, "gptq"), settings)
    found = imported(source, tmp_path / "b")
    assert str(found.format) == ("int4-g32-exact" if groups > 1 else "int4-channel-exact")
    assert [one.kind for one in found.transforms] == ["permutation"] * (groups > 1)
    assert found.dequantize(np.float32).tobytes() == values(codes, scales, zeros, index).tobytes()


def test_awq(tmp_path):
    codes, scales, zeros = problem(4)

    def awq_words(columns):
        """[R, N] to [R, N / 8]."""
        return words(columns.reshape(len(columns), -1, 8)[..., list(AWQ_ORDER)].reshape(len(columns), -1), 4)

    arrays = {
        f"{NAME}.qweight": awq_words(codes.T), f"{NAME}.qzeros": awq_words(zeros.T), f"{NAME}.scales": scales.T
    }  # fmt: skip
    settings = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
    found = imported(folder_of(tmp_path / "a", arrays, settings), tmp_path / "b")
    assert str(found.format) == "int4-g32-zero-exact"
    assert found.dequantize(np.float32).tobytes() == values(codes, scales, zeros, np.arange(128) // 32).tobytes()


def packed_settings(bits=4, group=32, symmetric=False):
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": group}
    return {
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }  # fmt: skip


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("columns", [128, 60])
def test_compressed_tensors(bits, columns, tmp_path):
    groups = 4 if columns == 128 else 1
    codes, scales, zeros = problem(bits, rows=21, columns=columns, groups=groups)
    index = np.random.default_rng(1).permutation(columns) * groups // columns
    arrays = {
        f"{NAME}.weight_packed": words(codes, bits), f"{NAME}.weight_scale": scales,
        f"{NAME}.weight_shape": np.array([21, columns]), f"{NAME}.weight_zero_point": words(zeros.T, bits).T,
        f"{NAME}.weight_g_idx": index.astype(np.int32),
    }  # fmt: skip
    found = imported(folder_of(tmp_path / "a", arrays, packed_settings(bits)), tmp_path / "b")
    assert found.dequantize(np.float32).tobytes() == values(codes, scales, zeros, index).tobytes()


SMALL = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
FORMATS = ["W4A16", "W8A16", "int4-g32-zero", "int3-g64", "int6-g32-zero-bf16", "int8-channel-fp32"]


def quantized_folder(source, path, fmt):
    """The small model with every linear layer in a format, but one with a transform; embeddings in 8 bits."""
    with ModelFolder(source) as folder:
        entries, config = {name: Entry(tensor=folder.get(name)) for name in folder.names()}, folder.config
    for name, entry in entries.items():
        if entry.tensor.ndim == 2 and "embed" not in name:
            entries[name] = Entry(tensor=tersor.quantize(entry.tensor, fmt))
    rotated = "model.layers.1.mlp.up_proj.weight"
    entries[rotated] = Entry(
        tensor=tersor.quantize(entries[rotated].tensor.dequantize(), fmt, transforms=[Hadamard(1)])
    )
    embed = "model.embed_tokens.weight"
    entries[embed] = Entry(tensor=tersor.quantize(entries[embed].tensor, "int8-g32"), module="embedding")
    writer = ModelWriter(path)
    writer.write_part(0, entries)
    writer.finish(config)
    return rotated, embed


@pytest.mark.parametrize("fmt", FORMATS)
def test_export_and_import_give_the_same_bits(fmt, small_model, tmp_path):
    rotated, embed = quantized_folder(small_model("llama", **SMALL), tmp_path / "a", fmt)
    done = export_packed(tmp_path / "a", tmp_path / "b")
    assert sorted(note.split(":")[0] for note in done.notes) == [embed, rotated]
    with pytest.raises(FormatError, match="tersor import makes it one"):
        ModelFolder(tmp_path / "b")
    import_quantized(tmp_path / "b", tmp_path / "c")
    with ModelFolder(tmp_path / "a") as before, ModelFolder(tmp_path / "c") as after:
        for name in before.names():
            wanted, found = before.get(name), after.get(name)
            if name in (rotated, embed):
                wanted = wanted.dequantize(np.float32)
                found = found.dequantize(np.float32) if isinstance(found, QuantizedTensor) else found
                assert np.square(found - wanted).mean() < 0.03 * np.square(wanted).mean()
            elif isinstance(wanted, QuantizedTensor):
                assert found.dequantize(np.float32).tobytes() == wanted.dequantize(np.float32).tobytes(), name
            else:
                np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("fmt", FORMATS)
def test_compressed_tensors_reads_what_is_exported(fmt, tmp_path):
    """Its own decompressor gives the floats of ours; scales in float32, in which it then computes."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("compressed_tensors", reason="no peer to load with: pip install compressed-tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    weight = np.random.default_rng(0).standard_normal((21, 128)).astype(np.float32)
    writer = ModelWriter(tmp_path / "a")
    writer.write_part(0, {"m.weight": Entry(tensor=tersor.quantize(weight, fmt))})
    writer.finish({"dtype": "bfloat16"})
    export_packed(tmp_path / "a", tmp_path / "b")
    settings = json.loads((tmp_path / "b" / "config.json").read_text())["quantization_config"]
    arrays = safetensors.torch.load_file(tmp_path / "b" / "model.safetensors")
    arrays["m.weight_scale"] = arrays["m.weight_scale"].float()
    scheme = QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(**settings["config_groups"]["group_0"]["weights"])
    )
    theirs = BaseCompressor.get_value_from_registry("pack-quantized").decompress(
        {name.removeprefix("m."): array for name, array in arrays.items()}, scheme
    )["weight"]
    with ModelFolder(tmp_path / "a") as folder:
        wanted = torch.from_numpy(folder.get("m.weight").dequantize(np.float32))
    assert torch.equal(theirs, wanted)


@pytest.mark.parametrize(("bits", "fmt"), [(4, None), (8, None), (4, "int3-g64")])
def test_stock_transformers_loads_what_is_exported(bits, fmt, small_model, model_of, tmp_path):
    """With the package compressed-tensors; logits are those of our dequantized model."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors", reason="no peer to load with: pip install compressed-tensors")
    source = small_model("llama", **SMALL)
    if fmt:
        quantized_folder(source, tmp_path / "a", fmt)
        source = tmp_path / "a"
    export_packed(source, tmp_path / "b", bits=bits)
    import_quantized(tmp_path / "b", tmp_path / "c")
    tokens = torch.tensor([[0, 5, 77, 300, 12, 9, 200, 31]])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b", dtype=torch.float32).eval()
    with torch.no_grad():
        found, wanted = theirs(tokens).logits, model_of(tmp_path / "c")(tokens).logits
        of_source = model_of(source)(tokens).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3 * float(wanted.std()))
    if bits == 8:
        assert float((found - of_source).std()) < 0.05 * float(of_source.std())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"qzeros": (3, 3)}, r"up_proj.qzeros is I32 \[3, 3\], I32 \[4, 3\] is needed"),
        ({"scales": (4, 25)}, r"up_proj.scales is \[4, 25\], \[4, 24\] is needed"),
        ({"scales": (5, 24)}, r"up_proj.scales is \[5, 24\], \[4, 24\] is needed"),
        ({"g_idx": (127,)}, r"up_proj.g_idx is I32 \[127\], I32 \[128\] is needed"),
        ({"qweight": (16,)}, r"up_proj.qweight is \[16\]"),
        ({"qzeros": None}, r"has no tensor .*qzeros"),
        ({"settings": {"bits": 5}}, "gptq of 5 bits"),
        ({"settings": {"group_size": 0}}, "a group of 0 columns"),
        ({"settings": {"checkpoint_format": "marlin"}}, "gptq in the layout 'marlin'"),
        ({"settings": {"dynamic": {r"+:.*down": {"bits": 8}}}}, "gptq with settings for some layers"),
        ({"settings": {"quant_method": "bitsandbytes"}}, "quantized by 'bitsandbytes', known are gptq"),
        ({"index": 4}, r"g_idx has 0..4 for 4 groups"),
        ({"index": 2**31 - 1}, r"g_idx has 0..2147483647 for 4 groups"),
        ({"index": 1}, "does not put 33 columns into each group|groups of 33 columns"),
        ({"nan": True}, "up_proj: part scales: number 0 is not finite"),
    ],
)
def test_what_is_damaged_is_refused(change, said, tmp_path):
    codes, scales, zeros = problem(4)
    index = np.arange(128) // 32
    arrays = gptq_arrays(4, codes, scales, zeros, index, "gptq")
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32, **change.get("settings", {})}
    for part in ("qzeros", "scales", "g_idx", "qweight"):
        if part in change:
            array = arrays.pop(f"{NAME}.{part}")
            if change[part]:
                arrays[f"{NAME}.{part}"] = np.zeros(change[part], array.dtype)
    if "index" in change:
        arrays[f"{NAME}.g_idx"][0] = change["index"]
    if "nan" in change:
        arrays[f"{NAME}.scales"] = np.full((4, 24), np.nan, np.float16)
    with pytest.raises(FormatError, match=said):
        import_quantized(folder_of(tmp_path / "a", arrays, settings), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_what_is_not_packed_here_is_refused(small_model, tmp_path):
    with pytest.raises(ValueError, match="bits are 4 or 8, not 3"):
        export_packed(small_model("llama"), tmp_path / "b", bits=3)
    settings = {**packed_settings(), "format": "nvfp4-pack-quantized"}
    codes, scales, _ = problem(4)
    arrays = {f"{NAME}.weight_packed": words(codes, 4), f"{NAME}.weight_scale": scales}
    with pytest.raises(FormatError, match="'nvfp4-pack-quantized', pack-quantized is known"):
        import_quantized(folder_of(tmp_path / "a", arrays, settings), tmp_path / "b")
    arrays[f"{NAME}.weight_shape"] = np.array(codes.shape)
    for i, groups in enumerate(([1], {"g": 1}, {"g": {"weights": {"num_bits": "x"}}})):
        settings = {**packed_settings(), "config_groups": groups}
        with pytest.raises(FormatError, match="config_groups of compressed-tensors are not objects"):
            import_quantized(folder_of(tmp_path / f"c{i}", arrays, settings), tmp_path / "b")
    source = folder_of(tmp_path / "d", arrays, packed_settings())
    (source / "config.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match=r"config\.json"):
        import_quantized(source, tmp_path / "b")
    (source / "config.json").write_text('{"dtype": "float64"}')
    with pytest.raises(ValueError, match="the model's dtype is float64, bfloat16, float16, float32 are known"):
        export_packed(source, tmp_path / "b")
    assert not (tmp_path / "b").exists()
