"""Scores of folders with models on one text: what `tersor eval` prints of one, and compares of several."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tersor.cli.progress import ProgressLine
from tersor.cli.text import read_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tersor.evaluate.encoder import EncoderScore
    from tersor.evaluate.language import LanguageScore
    from tersor.transformers import ModelFacts

LANGUAGE, ENCODER = "causal language model", "encoder"


def kind_of(facts: ModelFacts) -> str:
    """LANGUAGE or ENCODER."""
    return LANGUAGE if facts.is_causal else ENCODER


def facts_of(folders: Sequence[str], reference: str | None) -> list[ModelFacts]:
    """Of each folder, before any is loaded: what cannot be compared is found at once, not after an hour.

    Raises ValueError (models of both kinds; an encoder without a reference), and what model_facts raises.
    """
    from tersor.transformers import model_facts

    names = [*folders, *([] if reference is None else [reference])]
    found = [model_facts(name) for name in names]
    for name, facts in zip(names, found, strict=True):
        if facts.is_causal != found[0].is_causal:
            kinds = f"{names[0]} is of the kind {kind_of(found[0])} ({found[0].architecture})"
            raise ValueError(f"{kinds}, {name} {kind_of(facts)} ({facts.architecture}): one kind is needed")
    if reference is None and not found[0].is_causal:
        raise ValueError(f"{names[0]} is an {ENCODER} ({found[0].architecture}): it is measured beside a --reference")
    return found[: len(folders)]


def language_scores(folders: Sequence[str], arguments: argparse.Namespace) -> Iterator[LanguageScore]:
    """One a folder, each loaded when the one before is gone.

    Raises ValueError (folders whose tokenizers part the text in other ways: their losses a token do not compare), and
    what the files, the models and score_language_model raise.
    """
    import numpy as np

    from tersor.evaluate.language import score_language_model, tokens_of
    from tersor.transformers import load_for_evaluation

    text, tokens, reference = read_text(arguments.text), None, None
    first = arguments.reference or folders[0]
    if arguments.reference is not None:
        reference, tokenizer = load_for_evaluation(arguments.reference)
        tokens = tokens_of(tokenizer, text)
    for folder in folders:
        model, tokenizer = load_for_evaluation(folder)
        found = tokens_of(tokenizer, text)
        tokens = found if tokens is None else tokens
        if not np.array_equal(found, tokens):
            raise ValueError(f"{folder} parts the text into other tokens than {first}: their losses do not compare")
        with ProgressLine(folder, hidden=arguments.quiet or arguments.json) as progress:
            yield score_language_model(
                model, tokens, reference=reference, length=arguments.length, limit=arguments.limit,
                threads=arguments.threads, progress=progress,
            )  # fmt: skip
        del model


def encoder_scores(folders: Sequence[str], arguments: argparse.Namespace) -> Iterator[EncoderScore]:
    """One a folder, each loaded when the one before is gone. Raises what the files, the models and the scores raise."""
    from tersor.evaluate.encoder import embeddings_of, score_encoder, sentences_of
    from tersor.transformers import load_for_evaluation

    sentences = sentences_of(read_text(arguments.text), arguments.limit)

    def embeddings(folder: str) -> NDArray[np.float32]:
        with ProgressLine(folder, hidden=arguments.quiet or arguments.json) as progress:
            return embeddings_of(
                *load_for_evaluation(folder), sentences, length=arguments.length, threads=arguments.threads,
                progress=progress,
            )  # fmt: skip

    reference = embeddings(arguments.reference)
    for folder in folders:
        yield score_encoder(embeddings(folder), reference)


def numbers_of(score: LanguageScore | EncoderScore) -> dict[str, Any]:
    """By name: not what is None, nor the losses of each window."""
    found = dataclasses.asdict(score)
    return {name: value for name, value in found.items() if value is not None and name != "window_losses"}


def finite(numbers: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: null stands for it."""
    infinite = (name for name, value in numbers.items() if isinstance(value, float) and not math.isfinite(value))
    return numbers | dict.fromkeys(infinite)


def with_error(value: float | None, error: float | None, digits: int) -> str:
    """A number and its standard error, of which either may be missing."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" + ("" if error is None else f" +- {error:.{digits}f}")
