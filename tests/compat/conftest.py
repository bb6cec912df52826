"""Peers where they are installed, and small models. bench/learned_codec.py knows how CompressAI and torchac load."""

import json
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture(scope="session")
def compressai(load):
    before = set(sys.modules)
    try:
        return load("bench/learned_codec.py").import_compressai()
    except ImportError as error:
        pytest.skip(f"no CompressAI to compare with (make peers): {error}")
    finally:  # transformers would take the stand-in for the package
        for name in set(sys.modules) - before:
            if name.split(".")[0] == "torchvision" and not getattr(sys.modules[name], "__file__", None):
                del sys.modules[name]


@pytest.fixture(scope="session")
def theirs_torchac(load):
    try:
        return load("bench/learned_codec.py").import_torchac()
    except Exception as error:  # it compiles at import: whatever a compiler may do
        pytest.skip(f"no torchac to compare with (make peers): {error}")


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """A model's folder by transformers' type of it: random weights, two blocks, a tokenizer with chat template."""
    torch = pytest.importorskip("torch", reason="models are torch's")
    transformers = pytest.importorskip("transformers", reason="folders are transformers'")
    made = {}

    def make(model_type, **numbers):
        key = json.dumps([model_type, numbers])
        if key not in made:
            folder = made[key] = tmp_path_factory.mktemp(model_type)
            config = transformers.AutoConfig.for_model(
                model_type,
                **{
                    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128,
                    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, **numbers,
                },
            )  # fmt: skip
            torch.manual_seed(1)
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            for name, parameter in model.named_parameters():
                with torch.no_grad():
                    if name.endswith("norm.weight"):
                        parameter.add_(torch.randn_like(parameter) * 0.1)
                    else:
                        parameter.copy_(torch.randn_like(parameter) * 0.2)
            model.save_pretrained(folder)
            save_tokenizer(transformers, folder)
        return made[key]

    return make


def save_tokenizer(transformers, folder):
    """Byte-level BPE of some dozens of merges."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=310,
        special_tokens=["<s>", "</s>", "<unk>", "<|endoftext|>"],  # llama.cpp wants them of a phi3
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["once upon a time there was a small model, and once there were two"] * 4, trainer)
    whole = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    whole.chat_template = "{% for m in messages %}{{ '<s>' + m['content'] }}{% endfor %}"
    whole.save_pretrained(folder)


@pytest.fixture(scope="session")
def model_of():
    """A torch model of a folder, its matrices dequantized in float32."""
    torch = pytest.importorskip("torch", reason="models are torch's")
    transformers = pytest.importorskip("transformers", reason="folders are transformers'")
    from tersor.formats import QuantizedTensor
    from tersor.formats.model_folder import ModelFolder

    def load(path):
        with ModelFolder(path) as folder:
            numbers = {name: value for name, value in folder.config.items() if name != "quantization_config"}
            model = transformers.AutoModelForCausalLM.from_config(
                transformers.AutoConfig.for_model(**numbers), dtype=torch.float32
            )
            found = {}
            for name in folder.names():
                one = folder.get(name)
                one = one.dequantize(np.float32) if isinstance(one, QuantizedTensor) else one.astype(np.float32)
                found[name] = torch.from_numpy(one)
        missing, unexpected = model.load_state_dict(found, strict=False)
        tied = bool(numbers.get("tie_word_embeddings"))
        assert set(missing) <= ({"lm_head.weight"} if tied else set())
        assert not unexpected
        return model.eval()

    return load


# In a process of its own, since the library ends the one that it is in where it does not like a model. One token a
# call: some of its kernels for 32 and more are wrong.
_LLAMA_CPP = """
import json, sys
import numpy as np
from ik_llama_cpp import IkLlama
from ik_llama_cpp._internals import make_batch_range

for line in sys.stdin:
    path, given, texts, out = json.loads(line)
    model = IkLlama(path, n_ctx=256, n_threads=1, verbose=False, flash_attn=False)
    rows = []
    for i, token in enumerate(given):
        assert model._context.decode(make_batch_range([token], pos_start=i, logits_last=True)) == 0
        rows.append(np.ctypeslib.as_array(model._context.get_logits(-1), (model._model.n_vocab,)).copy())
    np.save(out, np.stack(rows))
    print(json.dumps([model.tokenize(text, add_bos=False, special=True) for text in texts]), flush=True)
"""


@pytest.fixture(scope="session")
def llama_cpp(tmp_path_factory):
    """Logits [tokens, vocabulary] behind each of some tokens, and the tokens of texts, as ik_llama.cpp has them."""
    pytest.importorskip("ik_llama_cpp", reason="no ik_llama_cpp here: pip install ik-llama-cpp-python")
    folder = tmp_path_factory.mktemp("llama")
    running = []

    def ask(path, tokens, texts=()):
        if not running or running[-1].poll() is not None:
            with open(folder / "stderr", "w") as errors:
                command = [sys.executable, "-c", _LLAMA_CPP]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
                running.append(subprocess.Popen(command, text=True, **pipes))
        process, out = running[-1], folder / "out.npy"
        print(json.dumps([str(path), list(tokens), list(texts), str(out)]), file=process.stdin, flush=True)
        answer = process.stdout.readline()
        if not answer:
            process.wait()
        assert answer, (folder / "stderr").read_text()[-2000:]
        return np.load(out), json.loads(answer)

    yield ask
    for process in running:
        process.communicate()
