"""ZIP-FIT: choose the texts that compress best together with those of a target. Obbad et al., arXiv:2410.18194."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor import entropy

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CONTEXT = 2  # bytes; longer contexts come back too rarely in texts of a few hundred bytes


def zip_fit(candidates: Sequence[str | bytes], target: Sequence[str | bytes], k: int) -> NDArray[np.int64]:
    """Choose the k candidates that are nearest to the target by normalized compression distance.

    candidates, target: texts (str is taken as UTF-8) or bytes; the target has one or more. k: 0 to len(candidates).
    With C = `compressed_bytes`, and xy the bytes of x followed by those of y,

        NCD(x, y) = (C(xy) - min(C(x), C(y))) / max(C(x), C(y))
        alignment(x) = 1 - mean over y in target of NCD(x, y)

    Returns int64 indices [k] into candidates, highest alignment first; of equals the earlier one. The paper's C is
    gzip's. Takes len(candidates) * len(target) compressions, of 0.1 ms and more each.
    Raises TypeError (neither str nor bytes), ValueError (an empty target; k).
    Source: Obbad et al., ZIP-FIT, arXiv:2410.18194; the distance: Li et al., The similarity metric, IEEE TIT 2004.
    """
    texts, wanted = _as_bytes("candidates", candidates), _as_bytes("target", target)
    if not wanted:
        raise ValueError("the target needs one text or more, found none")
    if not 0 <= k <= len(texts):
        raise ValueError(f"k is 0 to {len(texts)}, the number of candidates, not {k}")
    alone = [(y, compressed_bytes(y)) for y in wanted]
    alignment = np.array([_alignment(x, alone) for x in texts])
    return np.argsort(-alignment, kind="stable")[:k].astype(np.int64)


def compressed_bytes(text: bytes) -> int:
    """The bytes that a text takes when its repetitions and its letters are coded with rANS: zip_fit's C.

    Every byte is guessed to be what followed the last two bytes when they last stood together; whether that holds is
    one stream of symbols, the bytes that were not guessed are another. An entropy coder alone would see letters only,
    and how often they occur. Two streams of `tersor.entropy.encode`, tables included.
    Source of the guess: Bloom, LZP: a new data compression algorithm, DCC 1996.
    """
    plain = np.frombuffer(text, np.uint8)
    guess = _what_followed(plain)
    guessed = guess >= 0
    right = guess == plain
    return len(entropy.encode(right[guessed].astype(np.uint8))) + len(entropy.encode(plain[~right]))


def _what_followed(plain: NDArray[np.uint8]) -> NDArray[np.int16]:
    """For every byte the one after the last earlier place with the same bytes before it; -1 where there is none."""
    guess = np.full(plain.size, -1, np.int16)
    if plain.size <= _CONTEXT:
        return guess
    context: NDArray[Any] = np.zeros(plain.size - _CONTEXT, np.uint16)
    for i in range(_CONTEXT):
        context = context << 8 | plain[i : i + context.size]
    order = np.argsort(context, kind="stable")  # equal contexts side by side, each in the order of the text
    again = context[order[1:]] == context[order[:-1]]
    guess[_CONTEXT + order[1:][again]] = plain[_CONTEXT + order[:-1][again]]
    return guess


def _alignment(x: bytes, target: list[tuple[bytes, int]]) -> float:
    alone = compressed_bytes(x)
    distances = [(compressed_bytes(x + y) - min(alone, c)) / max(alone, c) for y, c in target]
    return 1 - sum(distances) / len(distances)


def _as_bytes(name: str, texts: Sequence[Any]) -> list[bytes]:
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"{name} is a sequence of texts, found one {type(texts).__name__}")
    for text in texts:
        if not isinstance(text, (str, bytes)):
            raise TypeError(f"{name} are str or bytes, found {type(text).__name__}")
    return [text.encode() if isinstance(text, str) else text for text in texts]
