"""The part of `make demo` that makes a language model small: bench/language_model to 4 bits, beside itself in bf16."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = Path(__file__).parent / "language_model"
PROMPT = "It was a dark and stormy night"

Command = Callable[..., dict[str, Any]]  # of `tersor`: arguments in, its JSON out


@dataclass
class Told:
    """What is shown of a model."""

    name: str
    nbytes: int  # of its weights as they are run
    tokens_per_second: float
    kl: float  # to the bf16 model, in nats a token
    perplexity: float
    text: str


def quantized(tersor: Command, folder: Path, say: Callable[[str], None]) -> list[Told]:
    """The bf16 model and the one of 4 bits, which is made in `folder`."""
    out = folder / "language-model-4bit"
    shutil.rmtree(out, ignore_errors=True)
    made = tersor(
        "quantize", MODEL, out, "--bits", "4", "--calib", MODEL / "calibration.txt", "--samples", "32",
        "--solver", "decoupleq",
    )  # fmt: skip
    found = [layer for layer in made["layers"] if layer["format"]]
    say(
        f"{len(found)} matrices in {made['bits_per_weight']:.3f} bits/weight, embeddings in bf16: "
        f"{made['bytes'] / 1e6:.2f} MB in {out.relative_to(folder.parents[1])}"
    )
    return [_told(tersor, "bf16", MODEL), _told(tersor, "4 bits", out)]


def _told(tersor: Command, name: str, model: Path) -> Told:
    score = tersor("eval", model, "--text", MODEL / "held_out.txt", "--reference", MODEL)
    spoken = tersor("run", model, "-p", PROMPT, "-n", "48", "--raw")
    return Told(
        name=name,
        nbytes=spoken["weight_bytes"],
        tokens_per_second=spoken["tokens_per_second"],
        kl=score["kl_mean"],
        perplexity=score["perplexity"],
        text=PROMPT + spoken["text"],
    )


HEAD = ("weights", "bytes in memory", "tokens/s", "divergence, nats a token", "perplexity, held out")


def rows(told: list[Told]) -> list[list[str]]:
    """Of the table."""
    return [
        [
            one.name,
            f"{one.nbytes / 1e6:.2f} MB",
            f"{one.tokens_per_second:.0f}",
            f"{one.kl:.5f}",
            f"{one.perplexity:.2f}",
        ]
        for one in told
    ]
