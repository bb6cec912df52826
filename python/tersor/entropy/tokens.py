"""Tokens of codebook codecs (residual and finite scalar quantizers) by small integer contexts. Page:
docs/formats/tokens.md.

coder = TokenCoder([1024] * 8)
data = coder.encode(tokens)                                 # [frames, 8]; the model travels in the stream
assert (coder.decode(data) == tokens).all()

coder = TokenCoder.fit(training_clips, [1024] * 8)          # a model that both sides hold: coder.to_bytes()
data = coder.encode(tokens)
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tersor import _core
from tersor.lossless import elements_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Buffer

    Tokens = NDArray[np.uint16]

__all__ = ["DamagedChunk", "RecoveredTokens", "TokenCoder", "TokenDecoder", "TokenEncoder"]


class DamagedChunk(NamedTuple):
    """A chunk that cannot be decoded: frames first_frame..first_frame + frames - 1 are lost, and no others."""

    number: int
    first_frame: int
    frames: int
    reason: str


class RecoveredTokens(NamedTuple):
    """tokens: [frames, books] uint16, 0 where a chunk is damaged. damaged: those chunks, in order."""

    tokens: Tokens
    damaged: list[DamagedChunk]


class TokenCoder:
    """Codes tokens, [frames, books] integers, below their raw bits. Immutable.

    A token that repeats the one of the frame before costs a flag, whose probability depends on the flags around it.
    Others have a table, which a class of the frame before's token or of the book before's may choose. Chunks of
    frames_per_chunk (a second, for most codecs) are independent and have a checksum each.

    books: the sizes of the codebooks, or the levels of a finite scalar quantizer's dimensions; 1..64 of 2..65536.
    frames_per_chunk: 1..65535. Raises ValueError (one of these), TypeError (no integers).
    """

    def __init__(self, books: Sequence[int], *, frames_per_chunk: int = 75) -> None:
        self.books = tuple(operator.index(size) for size in books)
        self.frames_per_chunk = operator.index(frames_per_chunk)
        self._model: _core.TokenModel | None = None
        if not 1 <= len(self.books) <= 64 or not all(2 <= size <= 65536 for size in self.books):
            raise ValueError(f"1 to 64 books of 2 to 65536 tokens are needed, found {list(self.books)}")
        if not 1 <= self.frames_per_chunk <= 65535:
            raise ValueError(f"a chunk has 1 to 65535 frames, not {frames_per_chunk}")

    @classmethod
    def _of_model(cls, model: _core.TokenModel) -> TokenCoder:
        coder = cls(model.sizes, frames_per_chunk=model.chunk_frames)
        coder._model = model
        return coder

    @classmethod
    def fit(
        cls, training: ArrayLike | Sequence[ArrayLike], books: Sequence[int], *, frames_per_chunk: int = 75
    ) -> TokenCoder:
        """Make a coder whose model is known on both sides, from tokens of the same codec; streams hold its id alone.

        training: [frames, books] integers, or a sequence of such clips. It can code every token, of training or not.
        books, frames_per_chunk: as the class takes them.
        Raises ValueError (sizes; tokens outside their book), TypeError (no integers).
        Source: classes by exchange, Martin, Liermann and Ney, Speech Communication 24, 1998.
        """
        coder = cls(books, frames_per_chunk=frames_per_chunk)
        several = isinstance(training, (list, tuple)) and all(np.ndim(clip) == 2 for clip in training)
        clips: Any = training if several else [training]
        return cls._of_model(coder._native_model([coder._checked(clip) for clip in clips], prior=True))

    @classmethod
    def from_bytes(cls, data: Buffer) -> TokenCoder:
        """Read what to_bytes wrote. Raises FormatError."""
        source = elements_of(data)
        return cls._of_model(_core.TokenModel.unpack(source.address, source.nbytes))

    def to_bytes(self) -> bytes:
        """The model of a coder that was fitted. Raises ValueError for one that was not."""
        return self._fitted("to_bytes").pack()

    def encode(self, tokens: ArrayLike) -> bytes:
        """Code tokens, [frames, books] integers.

        Without a model, one is made for these tokens and travels in the stream. Raises ValueError (tokens outside
        their book; another number of books), TypeError (no integers).
        """
        checked = self._checked(tokens)
        inside = self._model is None
        model = self._native_model([checked]) if self._model is None else self._model
        return model.encode(checked.ctypes.data, checked.size, inside)

    def decode(self, data: Buffer) -> Tokens:
        """Give back the tokens, [frames, books] uint16.

        data: what encode returned, of this coder or, with its model inside, of any coder of the same books.
        Raises FormatError (damaged; its text names the first damaged chunk and its frames), ValueError (another
        model, or other books).
        """
        tokens, damaged = self._decode(data, whole=True)
        if damaged:
            first = damaged[0]
            raise _core.FormatError(
                f"tokens stream: chunk {first.number} (frames {first.first_frame} to "
                f"{first.first_frame + first.frames - 1}): {first.reason}; {len(damaged)} damaged in all"
            )
        return tokens

    def recover(self, data: Buffer) -> RecoveredTokens:
        """Give back what is left of a damaged stream: a damaged chunk costs its own frames.

        Of a stream that is cut off, tokens end with the last whole chunk; the lost ones are told of as damaged.
        Raises FormatError (damage to the head, without which nothing can be read), ValueError as decode does.
        """
        return self._decode(data, whole=False)

    def encoder(self) -> TokenEncoder:
        """Frames in, chunks out, as they come. Raises ValueError where no model was fitted."""
        return TokenEncoder(self, self._fitted("encoder"))

    def decoder(self) -> TokenDecoder:
        """Chunks in, frames out, as they come. Raises ValueError where no model was fitted."""
        return TokenDecoder(self, self._fitted("decoder"))

    def _fitted(self, what: str) -> _core.TokenModel:
        if self._model is None:
            raise ValueError(f"{what} needs a model: make the coder with TokenCoder.fit or from_bytes")
        return self._model

    def _native_model(self, clips: Sequence[Tokens], *, prior: bool = False) -> _core.TokenModel:
        tokens = clips[0] if len(clips) == 1 else np.concatenate([np.empty((0, len(self.books)), np.uint16), *clips])
        return _core.TokenModel.fit(
            tokens.ctypes.data, tokens.size, [len(clip) for clip in clips], self.books, self.frames_per_chunk, prior
        )

    def _checked(self, tokens: ArrayLike) -> Tokens:
        array = np.asarray(tokens)
        if array.dtype.kind not in "iu":
            raise TypeError(f"tokens are integers, not {array.dtype}")
        if array.ndim != 2 or array.shape[1] != len(self.books):
            raise ValueError(f"tokens have shape [frames, {len(self.books)}], not {list(array.shape)}")
        if array.dtype != np.uint16 and array.size and not 0 <= int(array.min()) <= int(array.max()) < max(self.books):
            raise ValueError(f"tokens from {array.min()} to {array.max()}, books of at most {max(self.books)}")
        return np.ascontiguousarray(array, dtype=np.uint16)

    def _decode(self, data: Buffer, *, whole: bool) -> RecoveredTokens:
        source = elements_of(data)
        stream = _core.TokenStream(source.address, source.nbytes, self._model, whole)
        if tuple(stream.sizes) != self.books:
            raise ValueError(f"the stream's books have the sizes {stream.sizes}, the coder's {list(self.books)}")
        tokens: Tokens = np.empty((stream.frames, len(self.books)), np.uint16)
        damaged = stream.decode(tokens.ctypes.data, tokens.size)
        return RecoveredTokens(tokens, [DamagedChunk(*told) for told in damaged])


class TokenEncoder:
    """Codes frames as they come; each chunk can be decoded as soon as it is there. Made by TokenCoder.encoder."""

    def __init__(self, coder: TokenCoder, model: _core.TokenModel) -> None:
        self._coder, self._model = coder, model
        self._held: Tokens = np.empty((0, len(coder.books)), np.uint16)
        self._number = 0

    def push(self, frames: ArrayLike) -> list[bytes]:
        """Take frames, [n, books] integers; return the chunks that are full, none where that needs more frames.

        Raises ValueError and TypeError as TokenCoder.encode does.
        """
        self._held = np.concatenate([self._held, self._coder._checked(frames)])
        whole = len(self._held) // self._coder.frames_per_chunk * self._coder.frames_per_chunk
        return self._chunks(whole)

    def finish(self) -> list[bytes]:
        """Return the last chunk, which may be shorter; none where no frames are held. More may be pushed behind it."""
        return self._chunks(len(self._held))

    def _chunks(self, frames: int) -> list[bytes]:
        step = self._coder.frames_per_chunk
        chunks: list[bytes] = []
        for at in range(0, frames, step):
            part = self._held[at : min(at + step, frames)]
            chunks.append(self._model.encode_chunk(part.ctypes.data, part.size, self._number + len(chunks)))
        self._held = self._held[frames:]
        self._number += len(chunks)
        return chunks


class TokenDecoder:
    """Decodes chunks as they come. Made by TokenCoder.decoder."""

    def __init__(self, coder: TokenCoder, model: _core.TokenModel) -> None:
        self._coder, self._model = coder, model
        self._number = 0

    def push(self, chunk: Buffer, number: int | None = None) -> Tokens:
        """Decode one chunk: [frames, books] uint16.

        number: its place among the encoder's chunks, from 0; None for the one behind the last pushed. A chunk that
        does not arrive is passed over by giving the next one's number.
        Raises FormatError (damaged, or not the chunk of that number): only its own frames are lost, and the next chunk
        may be pushed.
        """
        own = self._number if number is None else number
        self._number = own + 1
        source = elements_of(chunk)
        try:
            frames = self._model.frames_in(source.address, source.nbytes)
            tokens: Tokens = np.empty((frames, len(self._coder.books)), np.uint16)
            self._model.decode_chunk(source.address, source.nbytes, own, tokens.ctypes.data, tokens.size)
        except _core.FormatError as error:
            raise _core.FormatError(f"tokens stream: chunk {own}: {error}") from None
        return tokens
