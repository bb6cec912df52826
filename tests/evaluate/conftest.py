"""Small random models that know eleven words, as folders of transformers."""

import pytest

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "how", "rain", "fell"]
SPECIAL = ["[UNK]", "[PAD]", "[CLS]", "[SEP]"]


def words_tokenizer(words, *, encoder=False):
    """One token a word; an encoder's puts [CLS] and [SEP] around a sentence and can pad."""
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    vocabulary = {word: i for i, word in enumerate([*(SPECIAL if encoder else SPECIAL[:1]), *words])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if not encoder:
        return transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")
    around = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    made.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]")


def small_llama(seed, vocabulary):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def bert(seed, *, head="BertModel"):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=24, initializer_range=0.4,
    )  # fmt: skip
    return getattr(transformers, head)(config).eval()


def noisy(model, by, seed=0):
    """The same with some of its weights' spread added to each matrix."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight += by * weight.std() * torch.randn(weight.shape, generator=generator)
    return model


def keep(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def tokenizer_of():
    return words_tokenizer


@pytest.fixture(scope="session")
def llama():
    return small_llama


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Language models: `model`, `reference`, `half` (the model in bf16) and `worse` (that with noise); and a text."""
    torch = pytest.importorskip("torch")
    here = tmp_path_factory.mktemp("models")
    count = 1 + len(WORDS)
    for name, model in {
        "model": small_llama(0, count),
        "reference": small_llama(1, count),
        "half": small_llama(0, count).to(torch.bfloat16),
        "worse": noisy(small_llama(0, count), 0.5).to(torch.bfloat16),
    }.items():
        keep(here / name, model, words_tokenizer(WORDS))
    (here / "text.txt").write_text(" ".join(WORDS[i * i % 11] for i in range(70)), encoding="utf-8")
    return here


@pytest.fixture(scope="session")
def encoders(tmp_path_factory):
    """Encoders: `model`, `half`, `worse` likewise, and `masked`, which has another head; and sentences, one a line."""
    torch = pytest.importorskip("torch")
    here = tmp_path_factory.mktemp("encoders")
    for name, model in {
        "model": bert(0),
        "half": bert(0).to(torch.bfloat16),
        "worse": noisy(bert(0), 0.1).to(torch.bfloat16),
        "masked": bert(0, head="BertForMaskedLM"),
    }.items():
        keep(here / name, model, words_tokenizer(WORDS, encoder=True))
    lines = (" ".join(WORDS[(i * j * j + i) % 11] for j in range(3 + i % 9)) for i in range(30))
    (here / "sentences.txt").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return here
