"""`tersor eval`: how well a language model predicts a text."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from typing import TYPE_CHECKING

from tersor.cli.progress import ProgressLine
from tersor.cli.text import read_text

if TYPE_CHECKING:
    from tersor.evaluate.language import LanguageScore


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `tersor eval` takes beside --json."""
    command.add_argument("model", metavar="MODEL", help="a folder of transformers, its weights .safetensors or .tsr")
    command.add_argument("--text", metavar="F", required=True, help="a UTF-8 text that the model has not seen")
    command.add_argument("--reference", metavar="REF", help="the model that it was made from, to measure what was lost")
    command.add_argument("--length", type=_count, default=512, metavar="N", help="tokens a window (default: 512)")
    command.add_argument("--limit", type=_count, metavar="N", help="only the first N windows (default: all)")


def run(arguments: argparse.Namespace) -> int:
    """Print the score. Raises what the files, the models and score_language_model raise."""
    from tersor.evaluate.language import score_language_model, tokens_of
    from tersor.transformers import load_for_evaluation

    text = read_text(arguments.text)
    model, tokenizer = load_for_evaluation(arguments.model)
    reference = None if arguments.reference is None else load_for_evaluation(arguments.reference)[0]
    with ProgressLine(arguments.model, hidden=arguments.quiet or arguments.json) as progress:
        score = score_language_model(
            model, tokens_of(tokenizer, text), reference=reference, length=arguments.length, limit=arguments.limit,
            threads=arguments.threads, progress=progress,
        )  # fmt: skip
    found = {name: value for name, value in dataclasses.asdict(score).items() if value is not None}
    print(json.dumps(_finite(found)) if arguments.json else _sentences(score))
    return 0


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    """JSON has no infinity: null stands for it."""
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def _sentences(score: LanguageScore) -> str:
    def number(value: float | None, error: float | None, digits: int) -> str:
        return f"{value:.{digits}f}" + ("" if error is None else f" +- {error:.{digits}f}")

    shown = number(score.perplexity, score.perplexity_se, 4)
    lines = [f"perplexity {shown} ({score.tokens:,} tokens, {score.windows} windows)"]
    if score.kl_mean is not None:
        lines += [
            f"times the reference's {number(score.perplexity_ratio, score.perplexity_ratio_se, 5)}",
            f"divergence {number(score.kl_mean, score.kl_se, 6)} nats a token, median {score.kl_median:.6f}, "
            f"99.9 % {score.kl_p999:.6f}",
            f"same likeliest token {100 * (score.same_top1 or 0):.2f} %",
        ]
    return "\n".join(lines)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 on is needed, not {text}")
    return int(text)
