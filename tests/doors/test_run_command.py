"""`tersor run` on a folder of transformers: text on stdout, figures on stderr, one object, and errors in a line."""

import contextlib
import io
import json
import signal

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from tersor.cli import main  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("model")
    vocabulary = {word: i for i, word in enumerate(["[UNK]", *(f"w{i}" for i in range(63))])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    made = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        made.lm_head.weight *= 30
    made.to(torch.bfloat16).save_pretrained(here)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(here)
    return here


def test_text_and_figures_and_one_object(folder, capsys):
    given = ["run", str(folder), "-p", "w3 w4", "-n", "9"]
    assert main(given) == 0
    out, told = capsys.readouterr()
    assert len(out.split()) == 9
    assert out.endswith("\n")
    assert "2 tokens read at" in told
    assert "9 made at" in told
    assert main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"] == out.strip("\n")
    assert (found["tokens"], found["prompt_tokens"]) == (9, 2)
    assert found["tokens_per_second"] > 0
    assert found["prompt_tokens_per_second"] > 0
    assert found["resident_bytes"] > found["weight_bytes"] > 0
    assert main([*given, "--json", "--dtype", "fp32", "-T", "1"]) == 0
    wide = json.loads(capsys.readouterr().out)
    parameters = 2 * 64 * 32 + 32 * 32 * 4 + 3 * 32 * 48 + 3 * 32
    assert wide["weight_bytes"] - found["weight_bytes"] == 2 * parameters
    assert main([*given, "-q", "--temperature", "5", "--top-p", "0.9", "--seed", "1"]) == 0
    drawn, told = capsys.readouterr()
    assert drawn.strip() != out.strip()
    assert "tokens/s" not in told


def test_ctrl_c_ends_the_text(folder, capsys):
    class Reader(io.StringIO):
        def write(self, piece):
            if len(self.getvalue().split()) == 4 and piece.strip():
                signal.raise_signal(signal.SIGINT)
            return super().write(piece)

    for extra in ([], ["--json"]):
        with contextlib.redirect_stdout(Reader()) as out:
            code = main(["run", str(folder), "-p", "w3", "-n", "60", *extra])
        if extra:
            assert (code, len(json.loads(out.getvalue())["text"].split())) == (0, 60)  # nothing to be interrupted at
        else:
            assert code == 130
            assert 4 <= len(out.getvalue().split()) < 9
            assert out.getvalue().endswith("\n")
            assert "tersor: interrupted" in capsys.readouterr().err


def test_what_is_wrong_is_one_line(folder, capsys, tmp_path):
    for arguments, code, text in (
        ([str(tmp_path / "none"), "-p", "w1"], 1, "a folder with a model is needed"),
        ([str(folder), "-p", ""], 2, "the prompt has no tokens"),
        ([str(folder), "-p", "w1", "-n", "0"], 2, "tokens are 1 or more, not 0"),
        ([str(folder), "-p", "w1", "--top-p", "0.5"], 2, "a --temperature above 0 is needed"),
        ([str(folder), "-p", "w1", "--temperature", "-1"], 2, "temperature is 0 or more, not -1"),
    ):
        assert main(["run", *arguments]) == code
        out, told = capsys.readouterr()
        assert out == ""
        assert text in told
        assert "Traceback" not in told
    with pytest.raises(SystemExit):
        main(["run", str(folder)])
    assert "-p/--prompt" in capsys.readouterr().err
