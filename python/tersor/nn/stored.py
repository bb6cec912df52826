"""Matrices that stay entropy-coded in memory, in blocks of rows that decode alone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

import tersor.torch
from tersor import checkpoint

# Rows of an embedding are decoded in blocks of about so many bytes: half of it costs 0.3 % of the raw size more in
# tables, twice as much decodes twice the rows that nobody asked for.
BLOCK_BYTES = 48 << 10


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
        pitch = self.block_rows * self.shape[1] * self.dtype.itemsize
        return [
            (entry, 0, out.data_ptr() + i * pitch, min(pitch, self.nbytes - i * pitch))
            for i, entry in enumerate(self.entries)
        ]

    def decoded(self, threads: int) -> torch.Tensor:
        """A fresh tensor."""
        out = torch.empty(self.shape, dtype=self.dtype, device="cpu")
        self.container.file.read(self.jobs(out), threads, torch_threads=True)
        return out

    def rows(self, index: torch.Tensor, threads: int) -> torch.Tensor:
        """Rows [*index.shape, columns], fresh; only blocks with a row in `index` are decoded. Raises IndexError."""
        flat = index.reshape(-1).to(torch.int64)
        if flat.numel() and not 0 <= int(flat.min()) <= int(flat.max()) < self.shape[0]:
            span = f"{int(flat.min())}..{int(flat.max())}"
            raise IndexError(f"index out of range: rows are 0..{self.shape[0] - 1}, found {span}")
        # In their order, so that rows of one block follow one another and it is decoded once.
        needed, position = torch.unique(flat, return_inverse=True)
        found = torch.empty(len(needed), self.shape[1], dtype=self.dtype, device="cpu")
        pitch, target = self.shape[1] * self.dtype.itemsize, found.data_ptr()
        jobs = [
            (self.entries[row // self.block_rows], row % self.block_rows * pitch, target + i * pitch, pitch)
            for i, row in enumerate(needed.tolist())
        ]
        self.container.file.read(jobs, threads, torch_threads=True)
        return found.index_select(0, position).view(*index.shape, self.shape[1])

    def coded_anew(self, weight: torch.Tensor, level: int | None) -> StoredWeight:
        """Other values of the same shape, dtype and blocks."""
        (fresh,) = store([(weight.detach().to(dtype=self.dtype, device="cpu").contiguous(), self.block_rows)], level)
        return fresh

    def become(self, fresh: StoredWeight) -> None:
        """Take the values of `fresh`, while nobody reads."""
        self.container, self.entries = fresh.container, fresh.entries


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
