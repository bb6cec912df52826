"""tersor.compat.gguf_import and gguf_export against transformers' own models and ik_llama.cpp."""

import json
import struct

import gguf
import numpy as np
import pytest
from gguf import quants

import tersor
from tersor import FormatError
from tersor.compat.gguf_export import export_gguf, read_importance
from tersor.compat.gguf_file import GGUFFile
from tersor.compat.gguf_import import import_gguf
from tersor.formats import QuantizedTensor, gguf_blocks
from tersor.formats.model_folder import Entry, ModelFolder, ModelWriter
from tersor.formats.safetensors_file import write

# type -> numbers that make the small model of it one that llama.cpp knows
MODELS = {
    "llama": {},
    "llama tied, biases": {"tie_word_embeddings": True, "attention_bias": True},
    "llama 3.1": {"rope_theta": 500000.0, "rope": "llama3"},
    "mistral": {"sliding_window": 96},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "phi3": {"num_key_value_heads": 4, "pad_token_id": 1},
    "gemma2": {"query_pre_attn_scalar": 16},
}
TEXTS = ["once upon a time", " there  were 2 models\n\tand it's \u00e9 </s>"]
TOKENS = [0, 5, 77, 300, 12, 9, 200, 31, 8, 120, 64, 3]


def numbers_of(name):
    numbers = dict(MODELS[name])
    if numbers.pop("rope", None):
        numbers["rope_parameters"] = {
            "rope_type": "llama3", "rope_theta": numbers.pop("rope_theta"), "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        }  # fmt: skip
    return name.split()[0], numbers


def logits_of(model):
    import torch

    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0].numpy()


def assert_near(found, wanted, share):
    """Logits whose root mean square of differences is within a share of their spread."""
    assert np.sqrt(np.mean(np.square(found - wanted))) < share * wanted.std()


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name, small_model, tmp_path):
    """8 bits lose little, vectors nothing; what is quantized then is not touched any more."""
    model_type, numbers = numbers_of(name)
    source, target = small_model(model_type, **numbers), tmp_path / "in"
    done = export_gguf(source, tmp_path / "x.gguf", "q8_0")
    windows = [note for note in done.notes if "window" in note]
    said = "the sliding window of 96 tokens is left out: llama.cpp's llama has none"
    assert windows == ([said] if model_type == "mistral" else [])
    import_gguf(tmp_path / "x.gguf", target)
    with ModelFolder(source) as before, ModelFolder(target) as after:
        assert after.config["model_type"] == {"mistral": "llama"}.get(model_type, model_type)
        kept = ("hidden_size", "num_key_value_heads", "head_dim", "rms_norm_eps", "vocab_size",
                "bos_token_id", "max_position_embeddings", "final_logit_softcapping")  # fmt: skip
        for key in kept:
            assert after.config.get(key) == before.config.get(key), key
        assert before.config["tie_word_embeddings"] == bool(after.rows.get("lm_head.weight", {}).get("tied_to"))
        rope = dict(before.config["rope_parameters"])
        assert rope.pop("partial_rotary_factor", 1) == 1
        assert after.config["rope_parameters"] == rope
        assert set(before.names()) == {one for one in after.names() if not after.rows.get(one, {}).get("tied_to")}
        for parameter in before.names():
            wanted, found = before.get(parameter), after.get(parameter)
            if isinstance(found, QuantizedTensor):
                assert found.relative_error(wanted) < 0.01, parameter
            else:
                np.testing.assert_allclose(found, wanted, atol=1e-7, err_msg=parameter)
    export_gguf(target, tmp_path / "again.gguf", "q4_0")
    with GGUFFile(tmp_path / "x.gguf") as first, GGUFFile(tmp_path / "again.gguf") as second:
        assert first.tensors.keys() == second.tensors.keys()
        for tensor, info in first.tensors.items():
            assert info.kind == second.tensors[tensor].kind
            if info.kind == "Q8_0":
                np.testing.assert_array_equal(first.read(tensor), second.read(tensor), err_msg=tensor)


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_computes_the_same_model(name, small_model, model_of, llama_cpp, tmp_path):
    """But for inputs of matrices, which it rounds to 8 bits; its tokens are transformers' tokens."""
    transformers = pytest.importorskip("transformers")
    model_type, numbers = numbers_of(name)
    if model_type == "gemma2":  # llama.cpp knows the sizes that there are
        numbers["num_hidden_layers"] = 26
    export_gguf(small_model(model_type, **numbers), tmp_path / "x.gguf", "q8_0")
    import_gguf(tmp_path / "x.gguf", tmp_path / "in")
    logits, tokens = llama_cpp(tmp_path / "x.gguf", TOKENS, TEXTS)
    assert_near(logits, logits_of(model_of(tmp_path / "in")), 0.06)
    if model_type == "gemma2":  # transformers takes another tokenizer for it, whatever the folder has
        return
    for folder in (small_model(model_type, **numbers), tmp_path / "in"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        assert tokens == [tokenizer(text)["input_ids"] for text in TEXTS]
        assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "<s>hi"
        assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1)


@pytest.mark.parametrize(("name", "kind"), [("lm_a", "q4_0"), ("lm_b", "q4_k")])
def test_real_models_in_llama_cpp(name, kind, data, model_of, llama_cpp, tmp_path):
    """Its logits are those of the file's numbers, and so is each likeliest token that is well ahead."""
    source = data / "models" / name
    done = export_gguf(source, tmp_path / "x.gguf", kind)
    assert done.nbytes == (tmp_path / "x.gguf").stat().st_size
    uneven = [note for note in done.notes if "its rows of 384 are no multiple of 256" in note]
    assert len(uneven) == (1 + 3 * 6 if name == "lm_b" else 0)
    import_gguf(tmp_path / "x.gguf", tmp_path / "in")
    with ModelFolder(source) as before, ModelFolder(tmp_path / "in") as after:
        worst = max(after.get(one).relative_error(before.get(one)) for one in after.rows if one != "lm_head.weight")
        assert worst < 0.13
    logits, _ = llama_cpp(tmp_path / "x.gguf", TOKENS)
    wanted = logits_of(model_of(tmp_path / "in"))
    assert_near(logits, wanted, 0.05)
    ahead = np.diff(np.sort(wanted, axis=-1)[:, -2:])[:, 0] > 0.2
    assert ahead.any()
    assert (logits.argmax(axis=-1) == wanted.argmax(axis=-1))[ahead].all()


def small_file(path, kind="Q4_0", metadata=None, more=None, columns=256, vectors=None):
    """A llama of one block, its matrices of a type, as the gguf package writes it."""
    writer = gguf.GGUFWriter(path, "llama")
    random = np.random.default_rng(0)
    values = {
        "block_count": 1, "context_length": 64, "embedding_length": columns, "feed_forward_length": columns,
        "attention.head_count": 4, "attention.head_count_kv": 4,
    }  # fmt: skip
    for key, value in {**values, **(metadata or {})}.items():
        if isinstance(value, float):
            writer.add_float32(f"llama.{key}", value)
        elif value is not None:
            (writer.add_string if isinstance(value, str) else writer.add_uint32)(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    matrices = ["token_embd", *(f"blk.0.{one}" for one in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate"))]
    blocks = {}
    for name in [*matrices, "blk.0.ffn_up", "blk.0.ffn_down", *(more or [])]:
        weights, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        made = random.integers(0, 64, (columns, columns // weights * nbytes), np.uint8)  # any number is finite then
        blocks[name] = made
        writer.add_tensor(f"{name}.weight", made, raw_dtype=gguf.GGMLQuantizationType[kind])
    norms = dict.fromkeys(("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"), np.ones(columns, np.float32))
    for name, vector in {**norms, **(vectors or {})}.items():
        writer.add_tensor(f"{name}.weight", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return blocks


@pytest.mark.parametrize("kind", [*gguf_blocks.KINDS, "Q2_K", "IQ4_NL"])
def test_every_type_is_read_exactly(kind, tmp_path):
    """Those that are not known as formats become F32, with a note."""
    blocks = small_file(tmp_path / "x.gguf", kind)
    done = import_gguf(tmp_path / "x.gguf", tmp_path / "in")
    known = kind in gguf_blocks.KINDS
    assert [note for note in done.notes if "dequantized" in note] == (
        [] if known else [f"{name}.weight: {kind} is dequantized to F32" for name in blocks]
    )
    with ModelFolder(tmp_path / "in") as folder:
        for name, parameter in {
            "token_embd": "model.embed_tokens", "blk.0.attn_v": "model.layers.0.self_attn.v_proj",
            "blk.0.attn_k": "model.layers.0.self_attn.k_proj",
        }.items():  # fmt: skip
            wanted = quants.dequantize(blocks[name], gguf.GGMLQuantizationType[kind])
            if name.endswith("attn_k"):  # neighbors in the file are halves of a head apart
                wanted = wanted.reshape(4, 32, 2, 256).swapaxes(1, 2).reshape(256, 256)
            found = folder.get(f"{parameter}.weight")
            assert isinstance(found, QuantizedTensor) == known
            assert (found.dequantize() if known else found).tobytes() == wanted.tobytes()


def test_what_gguf_does_not_hold_is_rounded(small_model, tmp_path):
    """Rows of 96 are no blocks of 256; three bits and rotated matrices are dequantized first."""
    source = small_model("llama")
    random = np.random.default_rng(1)
    with ModelFolder(source) as folder:
        entries = {name: Entry(tensor=folder.get(name)) for name in folder.names()}
        config = folder.config
    up, down, query = (f"model.layers.0.{name}.weight" for name in ("mlp.up_proj", "mlp.down_proj", "self_attn.q_proj"))
    entries[up] = Entry(tensor=tersor.quantize(entries[up].tensor, "int3-g32"))
    entries[query] = Entry(tensor=tersor.quantize(entries[query].tensor, "q4_1"))
    odd = random.standard_normal((64, 96)).astype(np.float32)
    entries[down] = Entry(tensor=tersor.quantize(odd, "q4_0", transforms=[tersor.formats.Hadamard(1)]))
    writer = ModelWriter(tmp_path / "in")
    writer.write_part(0, entries)
    writer.finish(config)
    done = export_gguf(tmp_path / "in", tmp_path / "x.gguf", "q4_k")
    assert done.tensors["blk.0.attn_q.weight"] == "Q4_1 (copied)"
    assert done.tensors["blk.0.ffn_up.weight"] == done.tensors["blk.0.ffn_down.weight"] == "Q8_0"
    assert "2 quantized matrices were dequantized and rounded anew: GGUF does not hold them" in done.notes
    assert "there is no tokenizer.json: tools of llama.cpp's kind will not load the file" in done.notes
    assert any(note == "blk.0.ffn_down.weight is Q8_0: its rows of 96 are no multiple of 256" for note in done.notes)
    with GGUFFile(tmp_path / "x.gguf") as file, ModelFolder(tmp_path / "in") as folder:
        down_values = quants.dequantize(file.read("blk.0.ffn_down.weight"), gguf.GGMLQuantizationType.Q8_0)
        np.testing.assert_allclose(down_values, folder.get(down).dequantize(np.float32), atol=0.02)
        assert int(file.read("blk.0.ffn_down.weight").reshape(64, 3, 34)[..., 2:].view(np.int8).min()) >= -127


def test_importance_moves_scales(small_model, tmp_path):
    """The weighted error falls for the tensors that are named; llama.cpp's own file of sums says the same."""
    source, name = small_model("llama"), "model.layers.1.mlp.up_proj.weight"
    weight = np.exp(np.random.default_rng(0).standard_normal(64) * 2).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "imatrix.gguf", "llama")
    writer.add_tensor("blk.1.ffn_up.weight.in_sum2", (weight * 8)[None])
    writer.add_tensor("blk.1.ffn_up.weight.counts", np.full((1, 1), 8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    importance = read_importance(tmp_path / "imatrix.gguf", source)
    np.testing.assert_allclose(importance[name], weight, rtol=1e-6)
    for bad, said in (
        ({name: weight[1:]}, r"up_proj.weight is \[63\], \[64\] is needed"),
        ({name.removesuffix(".weight"): weight}, r"up_proj is \[64\], the model has no such matrix"),
    ):
        write(bad, {}, tmp_path / "bad.safetensors")
        with pytest.raises(ValueError, match=said):
            read_importance(tmp_path / "bad.safetensors", source)
    errors = []
    for given in (None, importance):
        export_gguf(source, tmp_path / "x.gguf", "q4_0", importance=given)
        with GGUFFile(tmp_path / "x.gguf") as file, ModelFolder(source) as folder:
            values = quants.dequantize(file.read("blk.1.ffn_up.weight"), gguf.GGMLQuantizationType.Q4_0)
            errors.append(float((np.square(values - folder.get(name)) * weight).sum()))
    assert errors[1] < 0.9 * errors[0]


def test_files_that_are_damaged_are_refused(tmp_path):
    small_file(tmp_path / "x.gguf", columns=32)
    whole = (tmp_path / "x.gguf").read_bytes()
    bad = tmp_path / "bad.gguf"
    for size in [0, 3, 23, *range(24, 1200, 23), len(whole) // 2, len(whole) - 64]:
        bad.write_bytes(whole[:size])
        with pytest.raises(FormatError, match=r"bad\.gguf"):
            import_gguf(bad, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    for at in (8, 16, 24, whole.index(b"llama.block_count") - 8):  # counts and a length of 2^62
        bad.write_bytes(whole[:at] + struct.pack("<Q", 1 << 62) + whole[at + 8 :])
        with pytest.raises(FormatError, match=r"bad\.gguf"):
            import_gguf(bad, tmp_path / "none")
    at = whole.index(b"token_embd.weight") + len("token_embd.weight") + 4 + 16
    bad.write_bytes(whole[:at] + struct.pack("<I", 999) + whole[at + 4 :])
    with pytest.raises(FormatError, match=r"'token_embd.weight' is of ggml's type 999"):
        import_gguf(bad, tmp_path / "none")
    key = b"general.architecture" + struct.pack("<IQ", 8, 5)
    bad.write_bytes(whole.replace(key + b"llama", key + b"grok9"))
    with pytest.raises(FormatError, match="architecture 'grok9', known are gemma2, llama, phi3"):
        import_gguf(bad, tmp_path / "none")


def header(pairs=b"", count=0, tensors=()):
    """A file of no weights: metadata as bytes, tensors (name, shape, type, offset)."""
    rows = b"".join(
        struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        + struct.pack("<IQ", kind, begin)
        for name, shape, kind, begin in tensors
    )  # fmt: skip
    return b"GGUF" + struct.pack("<IQQ", 3, len(tensors), count) + pairs + rows


KEY = struct.pack("<Q", 1) + b"k"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header(struct.pack("<Q", 1 << 60) + b"k", 1), f"a text of {1 << 60} bytes"),
        (header(KEY + struct.pack("<IQ", 8, 1 << 60), 1), f"a text of {1 << 60} bytes"),
        (header(KEY + struct.pack("<IIQ", 9, 0, 1 << 60), 1), f"an array of {1 << 60}"),
        (header(KEY + struct.pack("<IIQ", 9, 8, 1 << 60), 1), f"an array of {1 << 60}"),
        (header(KEY + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9, 1), "a value of the type 9"),
        (header(KEY + struct.pack("<II", 77, 0), 1), "a value of the type 77"),
        (header(b"", 1 << 60), "unpack_from"),
        (header(b"", 0, [(b"t", (1 << 62, 1 << 62), 0, 0)]), "is cut off: t ends at byte"),
        (header(b"", 0, [(b"t", (8,), 0, 1 << 63)]), "is cut off: t ends at byte"),
        (header(b"", 0, [(b"t", (0, 8), 0, 0)]), r"tensor 't' is \[8, 0\]"),
        (header(b"", 0, [(b"t", (33,), 2, 0)]), "rows of 33, Q4_0 has blocks of 32"),
        (header(b"", 0, [(b"t", (1,) * 5, 0, 0)]), "tensor 't' has 5 dims"),
        (header(b"", 0, [(b"t", (8,), 0, 0), (b"t", (8,), 0, 32)]), "two tensors are named 't'"),
        (header(b"", 0, [(b"a", (8,), 0, 0), (b"b", (16,), 0, 0)]), "some lie over others"),
    ],
)
def test_hostile_headers_are_refused(data, said, tmp_path):
    (tmp_path / "bad.gguf").write_bytes(data + bytes(0 if "unpack" in said else 100))
    with pytest.raises(FormatError, match=said):
        GGUFFile(tmp_path / "bad.gguf")


def test_a_window_of_no_tokens_is_none(small_model, tmp_path):
    """As llama.cpp's own converter has it for models without one; transformers would hide every token."""
    export_gguf(small_model("phi3", num_key_value_heads=4, pad_token_id=1), tmp_path / "x.gguf", "q8_0")
    whole = (tmp_path / "x.gguf").read_bytes()
    at = whole.index(b"phi3.attention.sliding_window") + len("phi3.attention.sliding_window") + 4
    (tmp_path / "x.gguf").write_bytes(whole[:at] + bytes(4) + whole[at + 4 :])
    import_gguf(tmp_path / "x.gguf", tmp_path / "in")
    with ModelFolder(tmp_path / "in") as folder:
        assert folder.config.get("sliding_window") is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"metadata": {"block_count": None}}, "llama.block_count is None, a whole number above 0"),
        ({"metadata": {"block_count": 1.5}}, "llama.block_count is 1.5, a whole number above 0"),
        ({"metadata": {"rope.freq_base": "all"}}, "llama.rope.freq_base is 'all', a number above 0"),
        ({"metadata": {"attention.key_length": "8"}}, "llama.attention.key_length is '8', a whole number"),
        ({"metadata": {"expert_count": 8}}, "a mixture of experts"),
        ({"more": ["blk.00.attn_q"]}, r"tensor blk.00.attn_q.weight \(Q4_0\) has no place"),
        ({"more": ["blk.{}.attn_q"]}, r"tensor blk.\{\}.attn_q.weight \(Q4_0\) has no place"),
        ({"more": ["blk.0.attn_q_norm"]}, r"tensor blk.0.attn_q_norm.weight \(Q4_0\) has no place"),
        ({"metadata": {"attention.head_count_kv": 3}}, "has 32 rows, a multiple of 2 times 3 heads"),
        ({"metadata": {"block_count": 2}}, "has no tensor blk.1.attn_norm.weight"),
        ({"more": ["blk.0.router"]}, r"tensor blk.0.router.weight \(Q4_0\) has no place"),
        ({"kind": "TQ2_0", "columns": 256, "more": []}, None),
    ],
)
def test_models_that_are_not_known_are_refused(changed, said, tmp_path):
    small_file(tmp_path / "x.gguf", **{"columns": 32, **changed})
    if said is None:  # of ternary weights: the gguf package can
        assert import_gguf(tmp_path / "x.gguf", tmp_path / "in").notes
        return
    with pytest.raises(FormatError, match=said):
        import_gguf(tmp_path / "x.gguf", tmp_path / "in")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("factor", [np.nan, -1, 0, 2])
def test_frequencies_that_no_configuration_gives_are_refused(factor, tmp_path):
    small_file(tmp_path / "x.gguf", columns=32, vectors={"rope_freqs": np.full(4, factor, np.float32)})
    with pytest.raises(FormatError, match=r"rope_freqs\.weight is not what Llama 3\.1 has"):
        import_gguf(tmp_path / "x.gguf", tmp_path / "in")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model_type", "opt", "'opt', GGUF export knows llama, mistral"),
        ("hidden_act", "gelu", "hidden_act is 'gelu', llama.cpp's llama has 'silu'"),
        ("rope_parameters", {"rope_type": "yarn"}, "positions are scaled by 'yarn'"),
        ("num_hidden_layers", 3, "has no model.layers.2.input_layernorm.weight"),
        ("num_hidden_layers", 2**30, "has no model.layers.2.input_layernorm.weight"),
        ("rope_parameters", {"rope_type": "linear"}, "factor is None, a number above 0 is needed"),
        ("rope_parameters", [1], r"rope_parameters are \[1\], an object is needed"),
        ("head_dim", -1, "head_dim is -1, a whole number above 0 is needed"),
        ("num_hidden_layers", 1.5, "num_hidden_layers is 1.5, a whole number above 0 is needed"),
        ("vocab_size", 7, "vocab_size is 7, the embedding has 320 rows"),
    ],
)
def test_folders_that_llama_cpp_cannot_run_are_refused(key, value, said, small_model, tmp_path):
    source, target = small_model("llama"), tmp_path / "in"
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(ValueError, match=said):
        export_gguf(target, tmp_path / "x.gguf", "q8_0")
    (target / "config.json").write_text(json.dumps(config))
    tokens = json.loads((source / "tokenizer.json").read_text())
    tokens["added_tokens"].append({**tokens["added_tokens"][0], "id": 320, "content": "<more>"})
    (target / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(ValueError, match=r"token 320 \('<more>'\) is beyond vocab_size, which is 320"):
        export_gguf(target, tmp_path / "x.gguf", "q8_0")
    assert not list(tmp_path.glob("*.gguf"))
    with pytest.raises(ValueError, match="q4_0, q8_0, q4_k, not 'q2_k'"):
        export_gguf(source, tmp_path / "x.gguf", "q2_k")


def test_tokens_over_characters_with_bytes_for_the_rest(small_model, llama_cpp, tmp_path):
    """BPE as Llama 2 and Mistral have it: llama.cpp merges by scores, which follow from the order of merges."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    source = tmp_path / "a"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        (source / name).write_bytes((small_model("llama") / name).read_bytes())
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = ["\u2581", *"abcdefghilmnoprstuw"]
    merges = [("o", "n"), ("\u2581", "t"), ("on", "c"), ("onc", "e"), ("\u2581t", "h"), ("e", "r"), ("\u2581th", "e"),
              ("\u2581", "a"), ("e", "l"), ("\u2581", "once")]  # fmt: skip
    vocabulary = {piece: i for i, piece in enumerate([*pieces, *letters, *("".join(pair) for pair in merges)])}
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("\u2581"), tokenizers.normalizers.Replace(" ", "\u2581")]
    )
    whole = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    whole.save_pretrained(source)
    export_gguf(source, tmp_path / "x.gguf", "q8_0")
    texts = ["once upon the time there", "other  models \u00e9 2\n", "a"]
    _, tokens = llama_cpp(tmp_path / "x.gguf", [1], texts)
    assert tokens == [whole(text)["input_ids"] for text in texts]
