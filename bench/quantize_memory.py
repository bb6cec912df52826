"""Peak memory of `tersor quantize` above its imports, on a random model of a billion parameters.

    python bench/quantize_memory.py [FOLDER] [--solver gptq] [--samples 8]

The limit that is shown beside it: 1.5 times (the largest block in float32 + three of its largest K x K in float32 + one
batch of hidden states) + a shard of 256 MiB. FOLDER keeps the model for another run; the result goes to
bench/results/quantize_memory.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SHAPE = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 2048, "tie_word_embeddings": True,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz "


def make(folder: Path) -> None:
    """A Llama of 1.04 billion parameters, a shard a block, and a tokenizer of letters."""
    import safetensors.torch
    import tokenizers
    import torch
    import transformers

    config = transformers.LlamaConfig(**SHAPE, architectures=["LlamaForCausalLM"], dtype="bfloat16")
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    torch.manual_seed(0)
    shards: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        block = name.split(".")[2] if name.startswith("model.layers.") else "outside"
        shards.setdefault(f"model-{block}.safetensors", []).append(name)
    sizes = dict(model.named_parameters())
    for file, names in shards.items():
        arrays = {
            name: torch.ones(sizes[name].shape, dtype=torch.bfloat16)
            if "norm" in name
            else (torch.randn(sizes[name].shape) * 0.02).to(torch.bfloat16)
            for name in names
        }
        safetensors.torch.save_file(arrays, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, names in shards.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    vocabulary = {letter: i for i, letter in enumerate(["<unk>", *LETTERS])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>").save_pretrained(folder)


def measure(folder: str, out: str, solver: str, samples: int) -> None:
    """In a process of its own: the peak before and behind the run, in KiB."""
    import numpy as np

    from tersor.transformers.quantizing import quantize
    from tersor.weights import LayerRecipe, Recipe

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    recipe = Recipe(layer=LayerRecipe(format="int4-g128", solver=solver), samples=samples)
    text = "".join(np.random.default_rng(0).choice(list(LETTERS), 512 * (samples + 9)))
    made = quantize(folder, out, recipe, text=text, overwrite=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"before": before, "peak": peak, "bytes": made.bytes, "bits_per_weight": made.bits_per_weight}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--solver", default="gptq")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(*arguments.child, arguments.solver, arguments.samples)
        return
    from tersor.bench.machine import facts

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.folder or f"{scratch}/model")
        if not (folder / "config.json").is_file():
            make(folder)
        command = [sys.executable, __file__, "--child", str(folder), f"{scratch}/out"]
        options = ["--solver", arguments.solver, "--samples", str(arguments.samples)]
        found = json.loads(subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout)
    hidden, inner = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    kv = hidden // SHAPE["num_attention_heads"] * SHAPE["num_key_value_heads"]
    block = 4 * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner)
    batch = 4 * 512 * hidden
    limit = 1.5 * (block + 3 * 4 * inner * inner + batch) + (256 << 20)
    used = 1024 * (found["peak"] - found["before"])
    row = {"model": "random Llama, 1.04e9 parameters", "solver": arguments.solver, "samples": arguments.samples,
           "peak_above_imports": used, "limit": int(limit), "ratio": used / limit,
           "bits_per_weight": found["bits_per_weight"]}  # fmt: skip
    print(f"{used / 1e6:.0f} MB above imports, the limit is {limit / 1e6:.0f} MB: {used / limit:.2f} of it")
    results = HERE / "results/quantize_memory.json"
    results.write_text(json.dumps({"bench": "quantize_memory", "machine": facts(), "rows": [row]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
