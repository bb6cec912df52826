"""Text from a language model as it comes, and how fast. Needs transformers >= 5 beside PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tersor.nn.exact import exact_bytes
from tersor.nn.experts import QuantExperts
from tersor.nn.quantized import PackedWeight, QuantEmbedding, QuantLinear


@dataclass(frozen=True, kw_only=True)
class GeneratedText:
    """What came behind a prompt."""

    text: str  # without special tokens
    tokens: int
    prompt_tokens: int
    prompt_seconds: float  # until the first token came
    seconds: float  # from the first to the last

    @property
    def prompt_tokens_per_second(self) -> float:
        """Of the prompt, while it was read."""
        return self.prompt_tokens / max(self.prompt_seconds, 1e-9)

    @property
    def tokens_per_second(self) -> float | None:
        """Of the tokens behind the first; None where there are none."""
        return (self.tokens - 1) / max(self.seconds, 1e-9) if self.tokens > 1 else None


def generate_text(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    tokens: int = 128,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    raw: bool = False,
    threads: int = 0,
    write: Callable[[str], None] | None = None,
) -> GeneratedText:
    """Go on with a prompt, or answer it.

    model, tokenizer: of transformers, the model in evaluation mode. prompt: the message of a user where the tokenizer
    has a chat template, unless it is to be taken `raw`. tokens: at most so many; the model may end sooner.
    temperature: 0 takes the likeliest token each time, else they are drawn by `seed`, among the likeliest that together
    have the probability `top_p`. threads: of torch, from here on; 0 leaves them as they are. write: called with every
    piece of text as it comes, and with what is left when Ctrl-C ends it, before KeyboardInterrupt is raised.
    Raises ValueError (tokens below 1; temperature, top_p; a prompt without tokens).
    """
    if tokens < 1:
        raise ValueError(f"tokens are 1 or more, not {tokens}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature is 0 or more, not {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is in (0, 1], not {top_p}")
    if threads:
        torch.set_num_threads(threads)
    ids = _ids(tokenizer, prompt, raw=raw)
    stream = _stream_type()(tokenizer, write)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(seed)
        try:
            made = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                streamer=stream,
                generation_config=_settings(model, tokenizer, tokens, temperature, top_p),
            )
        except KeyboardInterrupt:
            stream.end()
            raise
    began, first, *_ = stream.times
    return GeneratedText(
        text=tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True),
        tokens=made.shape[1] - ids.shape[1],
        prompt_tokens=ids.shape[1],
        prompt_seconds=first - began,
        seconds=stream.times[-1] - first,
    )


def weight_bytes(model: torch.nn.Module) -> int:
    """What parameters, buffers and packed or compressed weights of a model take in memory, shared ones once."""
    plain: dict[int, int] = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    packed: dict[int, int] = {}
    for module in model.modules():
        held: list[PackedWeight] = []
        if isinstance(module, (QuantLinear, QuantEmbedding)):
            held = [module.packed_weight]
        elif isinstance(module, QuantExperts):
            held = [one for experts in module.packed.values() for one in experts]
        packed |= {id(one): one.data.nbytes for one in held}
    exact = exact_bytes(model)
    return sum(plain.values()) + sum(packed.values()) + exact.coded + exact.buffer


def _ids(tokenizer: Any, prompt: str, *, raw: bool) -> torch.Tensor:
    """[1, tokens]."""
    if getattr(tokenizer, "chat_template", None) and not raw:
        message = [{"role": "user", "content": prompt}]
        given = tokenizer.apply_chat_template(
            message, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
    else:
        given = tokenizer(prompt, return_tensors="pt")
    ids: torch.Tensor = given["input_ids"].to(torch.int64)
    if not ids.numel():
        raise ValueError("the prompt has no tokens, one or more is needed")
    return ids


def _settings(model: Any, tokenizer: Any, tokens: int, temperature: float, top_p: float) -> Any:
    """Numbers of ours, so that none that the model came with draws tokens unasked; where a text ends is the model's."""
    import transformers

    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    first_end = ends[0] if isinstance(ends, list) and ends else ends
    return transformers.GenerationConfig(
        max_new_tokens=tokens,
        do_sample=temperature > 0,
        temperature=temperature or 1.0,
        top_p=top_p,
        top_k=0 if temperature else 50,  # 50 is transformers' own for "not set"
        eos_token_id=ends,
        pad_token_id=first_end if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    )


def _stream_type() -> Any:
    import transformers

    class Stream(transformers.TextStreamer):  # type: ignore[misc]
        """Hands pieces of text on and notes when tokens came; the first are the prompt."""

        def __init__(self, tokenizer: Any, write: Callable[[str], None] | None) -> None:
            super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
            self.write, self.times = write, list[float]()

        def put(self, value: Any) -> None:
            self.times.append(time.perf_counter())
            super().put(value)

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            if self.write is not None and text:
                self.write(text)

    return Stream
