"""`tersor eval --tasks`: lm-eval on a task of our own, beside a plain count of which ending is the likeliest."""

import json
import re
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tersor.cli import main  # noqa: E402
from tersor.evaluate.tasks import score_tasks, tasks_table  # noqa: E402
from tersor.transformers import load_for_evaluation  # noqa: E402

ABSENT = "lm-eval is not here: pip install 'lm-eval[hf]'"


@pytest.fixture(scope="module")
def passages(root):
    text = (root / "tests" / "evaluate" / "last_word" / "passages.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def reader(tmp_path_factory, passages, llama, tokenizer_of):
    """A folder with a random model that knows every word of the passages."""
    text = " ".join(part for one in passages for part in (one["passage"], *one["choices"]))
    words = sorted(set(re.findall(r"\w+|[^\w\s]+", text)))
    here = tmp_path_factory.mktemp("reader")
    tokenizer = tokenizer_of(words)
    tokenizer.eos_token = "[UNK]"  # lm-eval asks for one
    made = llama(3, 1 + len(words))
    with torch.no_grad():
        made.lm_head.weight *= 20  # predictions that differ
    made.save_pretrained(here)
    tokenizer.save_pretrained(here)
    return here


def log_probability(model, ids, count):
    """Of the last `count` tokens behind the others."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double().numpy()
    logits -= logits.max(1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return sum(logs[i - 1, ids[i]] for i in range(len(ids) - count, len(ids)))


def test_the_passages_are_what_they_should_be(passages):
    assert len(passages) == 120
    for one in passages:
        assert len(set(one["choices"])) == 4
        assert 0 <= one["answer"] < 4
        assert one["passage"] == one["passage"].strip()


def test_a_task_of_our_own(reader, passages, root, capsys, monkeypatch):
    pytest.importorskip("lm_eval", reason=ABSENT)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    tasks = str(root / "tests" / "evaluate" / "last_word")
    arguments = ["eval", str(reader), "--tasks", "last_word", "--include-path", tasks, "--limit", "40"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    model, tokenizer = load_for_evaluation(reader)
    right = []
    for one in passages[:40]:
        ids = [tokenizer(f"{one['passage']} {choice}")["input_ids"] for choice in one["choices"]]
        known = len(tokenizer(one["passage"])["input_ids"])
        values = [log_probability(model, some, len(some) - known) for some in ids]
        right.append(int(np.argmax(values)) == one["answer"])
    assert 0 < np.mean(right) < 1
    assert found["results"]["last_word"]["acc,none"] == pytest.approx(np.mean(right))
    assert found["n-samples"]["last_word"]["effective"] == 40
    assert re.search(rf"\|last_word *\|.*\|acc *\|.*\| *{np.mean(right):g}\|", tasks_table(found))
    with pytest.raises(ValueError, match=r"lm-eval, with what lies under .*last_word, knows no task no_such_task"):
        score_tasks(model, tokenizer, ["last_word", "no_such_task"], include_path=tasks)


def test_without_lm_eval_it_says_how_to_get_it(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # what an import sees of a package that is not there
    assert main(["eval", str(folder / "model"), "--tasks", "last_word"]) == 1
    assert "pip install 'tersor[lm-eval]'" in capsys.readouterr().err


def test_what_has_no_tasks_is_refused(folder, encoders, capsys, tmp_path):
    assert main(["eval", str(encoders / "model"), "--tasks", "last_word"]) == 2
    assert "is an encoder (BertModel): tasks need a causal language model" in capsys.readouterr().err
    model, tokenizer = load_for_evaluation(folder / "model")
    with pytest.raises(FileNotFoundError, match="none: a folder with tasks is needed"):
        score_tasks(model, tokenizer, ["last_word"], include_path=tmp_path / "none")
    with pytest.raises(ValueError, match="limit is 1 or more, not 0"):
        score_tasks(model, tokenizer, ["last_word"], limit=0)
