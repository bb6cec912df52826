"""A model in the shape of Llama 1B, low-bit from the start: its linear layers called in order, and its own `generate`.

    make build && .venv/bin/python bench/generation.py [-o bench/results/generation.json]

Both figures are printed, as tokens a second and as a share of what the linear layers' bytes allow where memory is read
at its roof, measured between. Weights are random, int4-g128; one sequence, greedy, bfloat16; the prompt's time is off.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tersor.bench import machine
from tersor.bench.gemm import extras
from tersor.bench.gemm.extras import FORMAT, Llama
from tersor.bench.gemm.peers import torch_held
from tersor.bench.gemm.roofs import Roofs
from tersor.bench.gemm.weights import Matrix
from tersor.nn import QuantEmbedding, QuantLinear

Row = dict[str, Any]
NEW_TOKENS, ROUNDS, THREADS = 16, 3, (1, 2)


def main(arguments: list[str]) -> int:
    """Measure both, print a line each, and write them where -o says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="a small model: shows that it works, not how fast")
    options = parser.parse_args(arguments)
    shape = extras.QUICK_LLAMA if options.quick else Llama()
    roofs = Roofs(quick=options.quick)
    rows = [*extras.model(roofs, shape=shape, threads=THREADS), *generation(roofs, shape)]
    for row in rows:
        share = "no roof" if row["dram_share"] is None else f"{100 * row['dram_share']:.0f} % of memory's roof"
        print(f"{row['case']}, T={row['threads']}: {row['best_tokens_per_s']} tokens/s, {share}")
    if options.output:
        result = {"bench": "generation", "machine": machine.facts(), "rows": rows}
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def generation(roofs: Roofs, shape: Llama) -> list[Row]:
    """Rows as extras.model gives them, of a token of `generate`."""
    model, nbytes = model_of(shape)
    prompt = torch.arange(1, 9).reshape(1, -1)

    def seconds(tokens: int) -> float:
        start = time.perf_counter()
        found = model.generate(prompt, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)
        assert found.shape == (1, prompt.shape[1] + tokens), found.shape
        return time.perf_counter() - start

    rows = []
    for used in THREADS:
        with torch_held(used):
            seconds(2)
            reads, samples = [], []
            for _ in range(ROUNDS):
                reads.append(roofs.sample("dram", used) or 0.0)
                samples.append((seconds(NEW_TOKENS + 1) - seconds(1)) / NEW_TOKENS)
        case = f"the same through transformers' generate, {NEW_TOKENS} tokens"
        rates = extras.token_rates(nbytes, samples, reads)
        rows.append({"what": "generate", "case": case, "threads": used, **rates})
    return rows


def model_of(shape: Llama) -> tuple[Any, int]:
    """The model, never dense, and the bytes of its linear layers. Its embedding is the head's matrix."""
    config = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=False,
        eos_token_id=None,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    # What is no linear layer is made anew: norms of ones, and the angles of positions.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    nbytes, tensors = 0, {}
    for name, module in list(model.named_modules()):
        owner, _, attribute = name.rpartition(".")
        if isinstance(module, torch.nn.Linear):
            size = (module.out_features, module.in_features)
            if size not in tensors:
                tensors[size] = Matrix(rows=size[0], columns=size[1]).quantized(FORMAT)
            layer = QuantLinear.from_quantized(dataclasses.replace(tensors[size], dtype="BF16"))
            nbytes += layer.packed_weight.packed.nbytes
            setattr(model.get_submodule(owner), attribute, layer)
        elif name.endswith("norm"):
            module.weight = torch.nn.Parameter(torch.ones(shape.hidden, dtype=torch.bfloat16), requires_grad=False)
    model.model.embed_tokens = QuantEmbedding(model.lm_head.packed_weight)
    return model.eval(), nbytes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
