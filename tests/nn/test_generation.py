"""Text as a plain loop over the model gives it, in pieces, drawn by a seed, and the bytes of its weights."""

import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

import tersor  # noqa: E402
from tersor.nn import compress_exact_, convert_, exact_bytes  # noqa: E402
from tersor.nn.experts import QuantExperts  # noqa: E402
from tersor.nn.generation import generate_text, weight_bytes  # noqa: E402
from tersor.nn.quantized import PackedWeight  # noqa: E402

WORDS = [f"w{i}" for i in range(60)]


@pytest.fixture
def tokenizer():
    vocabulary = {word: i for i, word in enumerate(["[UNK]", "[END]", "[USER]", "[MODEL]", *WORDS])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", eos_token="[END]", additional_special_tokens=["[USER]", "[MODEL]"]
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, eos_token_id=1,
    )  # fmt: skip
    made = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        made.lm_head.weight *= 30  # predictions that differ
    return made


def plain(model, tokenizer, prompt, tokens):
    """The likeliest token each time, the whole text read anew for each."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    with torch.no_grad():
        while ids.shape[1] < start + tokens and (ids.shape[1] == start or ids[0, -1] != 1):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    return tokenizer.decode(ids[0, start:], skip_special_tokens=True), ids.shape[1] - start


def test_it_is_the_likeliest_text_and_comes_in_pieces(model, tokenizer):
    pieces = []
    made = generate_text(model, tokenizer, "w1 w2 w3", tokens=20, write=pieces.append)
    assert (made.text, made.tokens) == plain(model, tokenizer, "w1 w2 w3", 20)
    assert made.prompt_tokens == 3
    assert "".join(pieces) == made.text
    assert len(pieces) > 10
    assert made.prompt_seconds > 0
    assert made.tokens_per_second > 0
    assert made.prompt_tokens_per_second == pytest.approx(3 / made.prompt_seconds)


def test_what_the_model_came_with_draws_nothing_unasked(model, tokenizer):
    want = generate_text(model, tokenizer, "w5", tokens=12)
    model.generation_config.update(do_sample=True, temperature=3.0, top_k=20)
    assert generate_text(model, tokenizer, "w5", tokens=12).text == want.text


def test_a_seed_draws_the_same_text(model, tokenizer):
    state = torch.get_rng_state()
    drawn = [generate_text(model, tokenizer, "w5", tokens=12, temperature=2.0, seed=seed).text for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    assert torch.equal(torch.get_rng_state(), state)
    likeliest = generate_text(model, tokenizer, "w5", tokens=12).text
    assert generate_text(model, tokenizer, "w5", tokens=12, temperature=2.0, top_p=1e-6, seed=5).text == likeliest


def test_a_chat_template_is_used_unless_the_prompt_is_raw(model, tokenizer):
    tokenizer.chat_template = "{% for m in messages %}[USER] {{ m.content }} {% endfor %}[MODEL]"
    made = generate_text(model, tokenizer, "w7 w8", tokens=5)
    assert made.prompt_tokens == 4
    assert made.text == plain(model, tokenizer, "[USER] w7 w8 [MODEL]", 5)[0]
    assert generate_text(model, tokenizer, "w7 w8", tokens=5, raw=True).prompt_tokens == 2


def test_a_text_ends_where_the_model_ends_it(model, tokenizer):
    with torch.no_grad():
        model.lm_head.weight[1] = 0
        model.lm_head.weight[1] += 100 * model.model(tokenizer("w9", return_tensors="pt")["input_ids"])[0][0, -1]
    pieces = []
    made = generate_text(model, tokenizer, "w9", tokens=30, write=pieces.append)
    assert (made.text, made.tokens, pieces) == ("", 1, [])
    assert made.tokens_per_second is None


def test_ctrl_c_hands_over_what_there_is(model, tokenizer):
    pieces = []
    whole = generate_text(model, tokenizer, "w1", tokens=40).text

    def write(piece):
        pieces.append(piece)
        if len(pieces) == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        generate_text(model, tokenizer, "w1", tokens=40, write=write)
    assert 5 <= len(pieces) < 10
    assert whole.startswith("".join(pieces))


def test_the_bytes_of_weights_are_counted_once(model):
    dense = weight_bytes(model)
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    assert dense == 4 * sum(parameter.numel() for parameter in model.parameters()) + buffers
    model.lm_head.weight = model.model.embed_tokens.weight
    assert weight_bytes(model) == dense - 4 * 64 * 32
    convert_(model, "int4-g32")
    packed = {layer.packed_weight.data.data_ptr(): layer.packed_weight.data.nbytes
              for layer in model.modules() if hasattr(layer, "packed_weight")}  # fmt: skip
    assert 0 < weight_bytes(model) - sum(packed.values()) < 4 * 32 * 6 + buffers  # norms are left


def test_the_bytes_of_experts_are_counted():
    weight = PackedWeight(tersor.quantize(np.ones((32, 32), np.float32), "int8-g32"))
    other = PackedWeight(tersor.quantize(np.ones((32, 32), np.float32), "int4-g32"))
    experts = QuantExperts([weight, weight], [weight, other], torch.nn.ReLU())
    assert weight_bytes(experts) == weight.data.nbytes + other.data.nbytes > 1536


def test_compressed_weights_are_counted_as_they_lie(model):
    dense = weight_bytes(model)
    compress_exact_(model.to(torch.bfloat16))
    exact = exact_bytes(model)
    assert exact.coded > 0
    assert exact.coded + exact.buffer <= weight_bytes(model) < dense


def test_what_cannot_be_generated_is_refused(model, tokenizer):
    for options, text in (
        ({"tokens": 0}, "tokens are 1 or more, not 0"),
        ({"temperature": -1.0}, "temperature is 0 or more, not -1.0"),
        ({"temperature": float("nan")}, "temperature is 0 or more, not nan"),
        ({"top_p": 0.0}, r"top_p is in \(0, 1\], not 0.0"),
    ):
        with pytest.raises(ValueError, match=text):
            generate_text(model, tokenizer, "w1", **options)
    with pytest.raises(ValueError, match="the prompt has no tokens, one or more is needed"):
        generate_text(model, tokenizer, "")
