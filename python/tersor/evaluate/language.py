"""How well a language model predicts a text, alone and beside the model that it was made from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.evaluate.divergence import Piece, compared

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["LanguageScore", "paired_difference", "score_language_model", "tokens_of"]


@dataclass(frozen=True, kw_only=True)
class LanguageScore:
    """Means over all predicted tokens; standard errors are those of the means of windows, whose tokens depend on each
    other.

    perplexity: exp of the mean of -log p(token), infinite beyond what floats hold. tokens: how many were predicted, in
    so many windows; one window alone has no standard errors, they are None. window_losses: each window's mean, in nats
    a token. Beside a reference, None without one: kl is the divergence of the model's prediction from the reference's,
    in nats a token, by its mean with its standard error, its median and its quantile of 99.9 %; same_top1 the share of
    tokens whose likeliest is the same; perplexity_ratio that of the two on the same tokens, with its paired standard
    error.
    """

    perplexity: float
    perplexity_se: float | None
    tokens: int
    windows: int
    window_losses: tuple[float, ...]
    kl_mean: float | None = None
    kl_se: float | None = None
    kl_median: float | None = None
    kl_p999: float | None = None
    same_top1: float | None = None
    perplexity_ratio: float | None = None
    perplexity_ratio_se: float | None = None

    @property
    def loss(self) -> float:
        """The log of the perplexity, in nats a token."""
        return float(np.mean(self.window_losses))


def tokens_of(tokenizer: Any, text: str) -> NDArray[np.int64]:
    """The text's tokens by a tokenizer of transformers, no special ones among them."""
    return np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], np.int64)


def score_language_model(
    model: Any,
    tokens: NDArray[np.int64],
    *,
    reference: Any = None,
    length: int = 512,
    limit: int | None = None,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LanguageScore:
    """Predict every window's tokens from that window alone.

    model, reference: causal language models of transformers, in evaluation mode and in float32, of one vocabulary.
    tokens: of the text, see tokens_of; windows of `length` follow each other, each predicts the token behind each of
    its own, and what fills no window is left out. limit: at most so many windows, the first. threads: of torch, from
    here on; 0 leaves them as they are. progress: called with windows done and windows in all.
    Raises ValueError (a length or limit below 1, or a length beyond the model's positions; a text of less than a window
    and a token; predictions that are NaN; a token, or a reference, of another vocabulary).
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    for name, value in {"length": length, "limit": limit}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is 1 or more, not {value}")
    windows = (len(tokens) - 1) // length
    if windows < 1:
        raise ValueError(f"the text has {len(tokens)} tokens, {length + 1} are needed for one window")
    windows = windows if limit is None else min(windows, limit)
    pieces: list[list[Piece]] = []  # of a window's tokens
    with torch.inference_mode():
        for window in range(windows):
            ids = torch.from_numpy(tokens[window * length : (window + 1) * length + 1])
            given = _logits(model, ids)
            wanted = None if reference is None else _logits(reference, ids)
            if wanted is not None and wanted.shape != given.shape:
                raise ValueError(f"the model predicts {given.shape[1]} tokens, the reference {wanted.shape[1]}")
            pieces.append(list(compared(given, wanted, ids[1:])))
            if progress is not None:
                progress(window + 1, windows)

    def joined(name: str) -> list[NDArray[np.float64]]:
        return [np.concatenate([getattr(piece, name) for piece in window]) for window in pieces]

    losses = joined("loss")
    means = np.array([loss.mean() for loss in losses])
    if np.isnan(means).any():
        raise ValueError(f"window {int(np.isnan(means).argmax())} is predicted with NaN")
    perplexity = _exp(means.mean())
    score: dict[str, Any] = {
        "perplexity": perplexity,
        "perplexity_se": _standard_error(means, perplexity),
        "tokens": windows * length,
        "windows": windows,
        "window_losses": tuple(means.tolist()),
    }
    if reference is not None:
        divergences = joined("divergence")
        apart = means - np.array([loss.mean() for loss in joined("reference_loss")])
        ratio = _exp(apart.mean())
        score |= {
            "kl_mean": float(np.concatenate(divergences).mean()),
            "kl_se": _standard_error(np.array([one.mean() for one in divergences])),
            "kl_median": float(np.median(np.concatenate(divergences))),
            "kl_p999": float(np.quantile(np.concatenate(divergences), 0.999)),
            "same_top1": float(np.concatenate(joined("same")).mean()),
            "perplexity_ratio": ratio,
            "perplexity_ratio_se": _standard_error(apart, ratio),
        }
    return LanguageScore(**score)


def paired_difference(score: LanguageScore, other: LanguageScore) -> tuple[float, float | None]:
    """How much more a token costs than by the other, in nats, with its standard error, paired window by window.

    Raises ValueError (scores of other windows).
    """
    if (score.tokens, score.windows) != (other.tokens, other.windows):
        raise ValueError(
            f"{score.tokens} tokens in {score.windows} windows are not paired with {other.tokens} in {other.windows}"
        )
    apart = np.subtract(score.window_losses, other.window_losses)
    return float(apart.mean()), _standard_error(apart)


def _logits(model: Any, ids: Any) -> Any:
    """Of the token behind each of a window's: [length, vocabulary]."""
    vocabulary = model.get_input_embeddings().num_embeddings
    if int(ids.max()) >= vocabulary:
        raise ValueError(f"the text has token {int(ids.max())}, the model knows {vocabulary}")
    try:
        return model(ids[None, :-1]).logits[0]
    except IndexError as error:  # a table of positions that ends
        most = getattr(model.config, "max_position_embeddings", "fewer")
        raise ValueError(f"windows are of {len(ids) - 1} tokens, the model has places for {most}") from error


def _exp(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(np.float64(value)))


def _standard_error(means: NDArray[np.float64], factor: float = 1.0) -> float | None:
    """`factor` times that of the mean of independent numbers; None for one alone."""
    return factor * float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None
