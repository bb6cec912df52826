"""How far a model's predictions are from a reference's, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_ROWS = 64  # of logits in float64 at once


def mean_divergence(given: Any, wanted: Any, ids: NDArray[np.int64]) -> tuple[float, float, float]:
    """Of one window: the divergence of a model's predictions from the reference's, and both their losses, in nats.

    given, wanted: logits [length, vocabulary] of the token behind each of ids [length]; the last has none and is left
    out.
    """
    import torch

    pieces = list(compared(given[:-1], wanted[:-1], torch.as_tensor(ids)[1:]))
    kl, ours, theirs = (
        float(np.concatenate([getattr(piece, name) for piece in pieces]).mean())
        for name in ("divergence", "loss", "reference_loss")
    )
    return kl, ours, theirs


class Piece(NamedTuple):
    """Of some tokens: -log p by the model and by the reference, what parts the two, whether their likeliest agree."""

    loss: NDArray[np.float64]
    reference_loss: NDArray[np.float64]
    divergence: NDArray[np.float64]
    same: NDArray[np.bool_]


def compared(given: Any, wanted: Any, targets: Any) -> Iterator[Piece]:
    """In float64, some rows at a time: a large vocabulary takes as much memory as the model's own logits do."""
    import torch

    for first in range(0, len(targets), _ROWS):
        some = slice(first, first + _ROWS)
        ours = torch.log_softmax(given[some].double(), 1)
        loss = -ours.gather(1, targets[some, None])[:, 0].numpy()
        if wanted is None:
            yield Piece(loss, loss, np.zeros_like(loss), np.ones(len(loss), bool))
            continue
        theirs = torch.log_softmax(wanted[some].double(), 1)
        yield Piece(
            loss,
            -theirs.gather(1, targets[some, None])[:, 0].numpy(),
            torch.where(theirs.exp() > 0, theirs.exp() * (theirs - ours), 0.0).sum(1).numpy(),
            (theirs.argmax(1) == ours.argmax(1)).numpy(),
        )
