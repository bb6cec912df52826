"""Perplexity and divergence beside NumPy on a small random model, and on the models whose figures are known."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tersor.evaluate.language import score_language_model, tokens_of  # noqa: E402


def model(seed, vocabulary=97):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128,
    )  # fmt: skip
    made = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        made.lm_head.weight *= 20  # predictions that differ
    return made


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(0, 97, 5 * 70 + 30)


def log_probabilities(of, window):
    with torch.no_grad():
        logits = of(torch.from_numpy(window[None, :-1])).logits[0].double().numpy()
    return (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )


def test_every_number_is_what_numpy_finds(tokens):
    ours, theirs = model(1), model(2)
    steps = []
    score = score_language_model(ours, tokens, reference=theirs, length=70, progress=lambda *step: steps.append(step))
    windows = [tokens[70 * i : 70 * i + 71] for i in range(5)]
    p, q = ([log_probabilities(one, window) for window in windows] for one in (theirs, ours))
    loss, base = (
        np.array([-one[np.arange(70), window[1:]] for one, window in zip(some, windows, strict=True)])
        for some in (q, p)
    )
    divergence = np.array([(np.exp(a) * (a - b)).sum(1) for a, b in zip(p, q, strict=True)])
    assert score.tokens == 350
    assert score.windows == 5
    assert steps[-1] == (5, 5)
    assert score.perplexity == pytest.approx(math.exp(loss.mean()), rel=1e-6)
    assert score.perplexity_se == pytest.approx(
        math.exp(loss.mean()) * loss.mean(1).std(ddof=1) / math.sqrt(5), rel=1e-5
    )
    assert score.kl_mean == pytest.approx(divergence.mean(), rel=1e-5)
    assert score.kl_se == pytest.approx(divergence.mean(1).std(ddof=1) / math.sqrt(5), rel=1e-4)
    assert score.kl_median == pytest.approx(np.median(divergence), rel=1e-5)
    assert score.kl_p999 == pytest.approx(np.quantile(divergence, 0.999), rel=1e-5)
    assert score.same_top1 == pytest.approx(np.mean([a.argmax(1) == b.argmax(1) for a, b in zip(p, q, strict=True)]))
    apart = (loss - base).mean(1)
    assert score.perplexity_ratio == pytest.approx(math.exp(apart.mean()), rel=1e-6)
    assert score.perplexity_ratio_se == pytest.approx(
        math.exp(apart.mean()) * apart.std(ddof=1) / math.sqrt(5), rel=1e-5
    )


def test_a_model_beside_itself_is_the_same(tokens):
    score = score_language_model(model(1), tokens, reference=model(1), length=70)
    assert score.kl_mean == score.kl_p999 == 0
    assert score.same_top1 == score.perplexity_ratio == 1
    alone = score_language_model(model(1), tokens, length=70)
    assert alone.perplexity == score.perplexity
    assert alone.kl_mean is None


def test_a_broken_model_has_an_infinite_perplexity(tokens):
    broken = model(1)
    with torch.no_grad():
        broken.lm_head.weight *= 1e5
    score = score_language_model(broken, tokens, reference=model(1), length=70)
    assert score.perplexity == math.inf
    assert score.kl_mean > 100


def test_a_window_sees_nothing_of_another(tokens):
    first = score_language_model(model(1), tokens, length=70, limit=1)
    other = tokens.copy()
    other[71:] = 5
    assert score_language_model(model(1), other, length=70, limit=1) == first
    assert first.windows == 1
    assert first.perplexity_se is None


def test_what_cannot_be_scored_is_refused(tokens):
    with pytest.raises(ValueError, match="the text has 70 tokens, 71 are needed for one window"):
        score_language_model(model(1), tokens[:70], length=70)
    with pytest.raises(ValueError, match="the text has token 200, the model knows 97"):
        score_language_model(model(1), np.full(80, 200), length=70)
    for options, text in (({"length": 0}, "length is 1 or more, not 0"), ({"limit": -1}, "limit is 1 or more, not -1")):
        with pytest.raises(ValueError, match=text):
            score_language_model(model(1), tokens, **options)
    broken = model(1)
    with torch.no_grad():
        broken.lm_head.weight[3] = math.nan
    with pytest.raises(ValueError, match="window 0 is predicted with NaN"):
        score_language_model(broken, tokens, length=70)
    with pytest.raises(ValueError, match="the model predicts 97 tokens, the reference 101"):
        score_language_model(model(1), tokens, reference=model(1, 101), length=70)
    config = transformers.GPT2Config(vocab_size=97, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    with pytest.raises(ValueError, match="windows are of 17 tokens, the model has places for 16"):
        score_language_model(transformers.GPT2LMHeadModel(config).eval(), tokens, length=17)


@pytest.mark.parametrize(("name", "perplexity"), [("lm_a", 66.40), ("lm_b", 29.48)])
def test_known_perplexities(name, perplexity, data):
    of = transformers.AutoModelForCausalLM.from_pretrained(data / "models" / name, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(data / "models" / name)
    text = (data / "text" / "valid.txt").read_text(encoding="utf-8")
    score = score_language_model(of, tokens_of(tokenizer, text))
    assert score.perplexity == pytest.approx(perplexity, rel=0.002)
