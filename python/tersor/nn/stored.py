"""Matrices that stay entropy-coded in memory, in blocks of rows that decode alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

import tersor.torch
from tersor import checkpoint

# Rows of an embedding are decoded in blocks of about so many bytes: half of it costs 0.3 % of the raw size more in
# tables, twice as much decodes twice the rows that nobody asked for.
BLOCK_BYTES = 48 << 10
_SCRATCH_BYTES = 4 << 20  # rows are gathered from so much at a time, however many are asked for


class Container:
    """The `.tsr` bytes of several matrices, so that one native call decodes them all, in parallel."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.file = checkpoint.open_bytes(data)

    def __reduce__(self) -> tuple[Any, ...]:
        return Container, (self.data,)


class StoredWeight:
    """One matrix [rows, columns] of a container. What it is can be replaced; its shape and dtype stay."""

    def __init__(self, container: Container, entries: Sequence[int], like: torch.Tensor, block_rows: int) -> None:
        """entries: indices in the container, each block_rows of the matrix (the last may have fewer), in order."""
        self.shape, self.dtype, self.nbytes = tuple(like.shape), like.dtype, like.nbytes
        self.container, self.entries, self.block_rows = container, tuple(entries), block_rows

    def coded_bytes(self) -> int:
        """What its blocks take in the container."""
        entries = self.container.file.entries
        return sum(entries[index].stored for index in self.entries)

    def jobs(self, out: torch.Tensor) -> list[tuple[int, int, int, int]]:
        """What the container's file must read to fill `out`, contiguous and of this shape and dtype."""
        return self._jobs(range(len(self.entries)), out, whole=True)

    def decoded(self, threads: int) -> torch.Tensor:
        """A fresh tensor."""
        out = torch.empty(self.shape, dtype=self.dtype, device="cpu")
        self.container.file.read(self.jobs(out), threads)
        return out

    def rows(self, index: torch.Tensor, threads: int) -> torch.Tensor:
        """Rows [*index.shape, columns], fresh; only blocks with a row in `index` are decoded. Raises IndexError."""
        flat = index.reshape(-1).to(torch.int64)
        out = torch.empty(flat.numel(), self.shape[1], dtype=self.dtype, device="cpu")
        if flat.numel() and not 0 <= int(flat.min()) <= int(flat.max()) < self.shape[0]:
            found = f"{int(flat.min())}..{int(flat.max())}"
            raise IndexError(f"index out of range: rows are 0..{self.shape[0] - 1}, found {found}")
        needed, position = torch.unique(flat // self.block_rows, return_inverse=True)
        within = flat % self.block_rows
        at_once = max(1, _SCRATCH_BYTES // (self.block_rows * self.shape[1] * self.dtype.itemsize))
        for begin in range(0, len(needed), at_once):
            blocks = needed[begin : begin + at_once].tolist()
            scratch = torch.empty(len(blocks) * self.block_rows, self.shape[1], dtype=self.dtype, device="cpu")
            self.container.file.read(self._jobs(blocks, scratch, whole=False), threads)
            picked = (position - begin) * self.block_rows + within
            if len(needed) <= at_once:
                torch.index_select(scratch, 0, picked, out=out)
                break
            here = (position >= begin) & (position < begin + len(blocks))
            out[here] = scratch[picked[here]]
        return out.view(*index.shape, self.shape[1])

    def replace(self, weight: torch.Tensor, level: int | None) -> None:
        """Take other values."""
        (fresh,) = store([(weight.detach().to(dtype=self.dtype, device="cpu").contiguous(), self.block_rows)], level)
        self.container, self.entries = fresh.container, fresh.entries

    def _jobs(self, blocks: Iterable[int], out: torch.Tensor, *, whole: bool) -> list[tuple[int, int, int, int]]:
        pitch = self.block_rows * self.shape[1] * self.dtype.itemsize
        jobs = []
        for i, block in enumerate(blocks):
            size = min(pitch, self.nbytes - block * pitch)
            jobs.append((self.entries[block], 0, out.data_ptr() + (block if whole else i) * pitch, size))
        return jobs


def store(weights: Sequence[tuple[torch.Tensor, int]], level: int | None) -> list[StoredWeight]:
    """Code matrices into one container. weights: contiguous CPU tensors [rows, columns], each with its rows a block."""
    parts: dict[str, torch.Tensor] = {}
    names: list[list[str]] = []
    for i, (weight, block_rows) in enumerate(weights):
        blocks = weight.detach().split(block_rows)
        names.append([f"{i:06d}.{j:09d}" for j in range(len(blocks))])
        parts |= zip(names[-1], blocks, strict=True)
    # On a thread that ends: a coder's scratch memory, some 15 MB, is its thread's, and here memory is what counts.
    with ThreadPoolExecutor(1) as coder:
        elements = tersor.torch._elements(parts)
        container = Container(coder.submit(checkpoint.save, elements, None, None, level, 1).result())
    index = {entry.name: entry.index for entry in container.file.entries}
    return [
        StoredWeight(container, [index[name] for name in of_one], weight, block_rows)
        for of_one, (weight, block_rows) in zip(names, weights, strict=True)
    ]
