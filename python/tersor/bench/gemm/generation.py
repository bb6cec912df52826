"""A model's own `generate` over low-bit layers: beside the bare products of extras.model, what transformers adds."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

from tersor.bench.gemm.extras import FORMAT, Llama
from tersor.bench.gemm.peers import torch_held
from tersor.bench.gemm.roofs import Roofs
from tersor.bench.gemm.weights import Matrix
from tersor.bench.harness import AbsentError

Row = dict[str, Any]
NEW_TOKENS = 16


def generation(roofs: Roofs, *, shape: Llama, threads: tuple[int, ...] = (1, 2), rounds: int = 3) -> list[Row]:
    """Tokens a second of `generate` with one sequence, greedy, bfloat16, random weights in int4-g128 from the start.

    The prompt's time is taken off. dram_share: of what the linear layers' bytes allow where memory is read at its roof,
    measured between. Raises AbsentError (no torch or transformers).
    """
    try:
        import torch
    except ImportError as reason:
        raise AbsentError(str(reason)) from None
    model, nbytes = _model(shape)
    prompt = torch.arange(1, 9).reshape(1, -1)

    def seconds(tokens: int) -> float:
        start = time.perf_counter()
        found = model.generate(prompt, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)
        assert found.shape == (1, prompt.shape[1] + tokens), found.shape
        return time.perf_counter() - start

    rows = []
    for used in threads:
        with torch_held(used):
            seconds(2)
            reads, samples = [], []
            for _ in range(rounds):
                reads.append(roofs.sample("dram", used) or 0.0)
                samples.append((seconds(NEW_TOKENS + 1) - seconds(1)) / NEW_TOKENS)
        rows.append(
            {
                "what": "generate",
                "case": f"the same through transformers' generate, {NEW_TOKENS} tokens",
                "threads": used,
                "bytes": nbytes,
                "tokens_per_s": round(1 / statistics.median(samples), 2),
                "best_tokens_per_s": round(1 / min(samples), 2),
                "gbps": round(nbytes / min(samples) / 1e9, 2),
                "dram_share": round(nbytes / min(samples) / max(reads), 4) if max(reads) else None,
            }
        )
    return rows


def _model(shape: Llama) -> tuple[Any, int]:
    """The model, never dense, and the bytes of its linear layers. Its embedding is the head's matrix."""
    try:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from tersor.nn import QuantEmbedding, QuantLinear
    except ImportError as reason:
        raise AbsentError(str(reason)) from None
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
