"""How close the embeddings of an encoder lie to those of the model that it was made from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["EncoderScore", "embeddings_of", "score_encoder", "sentences_of"]

_RANKED = 2000  # sentences whose pairs are ranked, at most: two million pairs
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class EncoderScore:
    """Of so many sentences, each embedded by the model and by the reference.

    cosine: between the two, by its mean with its standard error (None for one sentence), the percentile that 1 % lie
    below, and its minimum. rank_correlation: Spearman's, of the similarities of all pairs of sentences by the one and
    by the other: whether a search would sort alike; of the first 2,000 sentences, and None where fewer than three, or
    similarities that are all the same, give it nothing to rank.
    """

    sentences: int
    cosine_mean: float
    cosine_se: float | None
    cosine_p01: float
    cosine_min: float
    rank_correlation: float | None


def sentences_of(text: str, limit: int | None = None) -> list[str]:
    """One a line, blank ones left out; at most so many, the first. Raises ValueError (none; a limit below 1)."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit is 1 or more, not {limit}")
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise ValueError("the text has no sentences, one a line is needed")
    return found[:limit]


def embeddings_of(
    model: Any,
    tokenizer: Any,
    sentences: Sequence[str],
    *,
    length: int = 512,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """A sentence's last hidden states, their mean over its tokens and special ones, at unit length: [sentences, width].

    So does sentence-transformers (Reimers, Gurevych, arXiv:1908.10084) where it pools by the mean. model, tokenizer:
    of transformers, in evaluation mode and in float32. length: of a sentence in tokens, what lies behind is cut off; no
    more than the two take. threads: of torch, from here on; 0 leaves them as they are. progress: called with sentences
    done and sentences in all.
    Raises ValueError (a length below 1; embeddings that are NaN or 0; a token of another vocabulary; a model with a
    decoder, too).
    """
    import torch

    if length < 1:
        raise ValueError(f"length is 1 or more, not {length}")
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(f"{type(model).__name__} has a decoder behind its encoder: an encoder alone is needed")
    if threads:
        torch.set_num_threads(threads)
    most = min(length, tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", length))
    vocabulary = model.get_input_embeddings().num_embeddings
    batch = _BATCH if tokenizer.pad_token is not None else 1
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))  # alike in length, little is padded
    found: dict[int, NDArray[np.float32]] = {}
    with torch.inference_mode():
        for first in range(0, len(order), batch):
            some = order[first : first + batch]
            given = tokenizer(
                [sentences[i] for i in some], padding=batch > 1, truncation=True, max_length=most, return_tensors="pt"
            )
            if int(given["input_ids"].max()) >= vocabulary:
                raise ValueError(f"the text has token {int(given['input_ids'].max())}, the model knows {vocabulary}")
            mask = given["attention_mask"][:, :, None].float()
            means = (model(**given).last_hidden_state * mask).sum(1) / mask.sum(1)
            found |= zip(some, means.numpy(), strict=True)
            if progress is not None:
                progress(first + len(some), len(order))
    return _at_unit_length(np.stack([found[i] for i in range(len(sentences))])).astype(np.float32)


def score_encoder(embeddings: NDArray[np.float32], reference: NDArray[np.float32]) -> EncoderScore:
    """embeddings, reference: of the same sentences, [sentences, width], of any length but 0.

    Raises ValueError (other numbers of sentences or widths; no sentences; a length of 0, or none).
    """
    if embeddings.shape != reference.shape or embeddings.ndim != 2 or not len(embeddings):
        raise ValueError(f"the model gives embeddings {embeddings.shape}, the reference {reference.shape}")
    ours, theirs = _at_unit_length(embeddings), _at_unit_length(reference)
    cosines = (ours * theirs).sum(1)
    return EncoderScore(
        sentences=len(ours),
        cosine_mean=float(cosines.mean()),
        cosine_se=float(cosines.std(ddof=1) / math.sqrt(len(ours))) if len(ours) > 1 else None,
        cosine_p01=float(np.quantile(cosines, 0.01)),
        cosine_min=float(cosines.min()),
        rank_correlation=_rank_correlation(_similarities(ours[:_RANKED]), _similarities(theirs[:_RANKED])),
    )


def _at_unit_length(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = embeddings.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)
    if not (np.isfinite(norms) & (norms > 0)).all():
        i = int((~(np.isfinite(norms) & (norms > 0))).argmax())
        raise ValueError(f"sentence {i} has an embedding of length {norms[i]}, one that is finite and not 0 is needed")
    unit: NDArray[np.float64] = wide / norms[:, None]
    return unit


def _similarities(embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each pair once."""
    pairs: NDArray[np.float64] = (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]
    return pairs


def _rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    ours, theirs = _ranks(first), _ranks(second)
    if len(first) < 2 or not ours.std() or not theirs.std():
        return None
    return float(np.corrcoef(ours, theirs)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 1 on; equals share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
