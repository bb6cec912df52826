"""The one buffer that a model's blocks decode their weights into, one after the other."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

import tersor.torch
from tersor import _core
from tersor.nn.stored import StoredWeight

_ALIGNMENT = 64  # bytes: a cache line, and what torch's own memory has
_decoders: dict[int, ThreadPoolExecutor] = {}  # by process: threads do not survive a fork


class Place:
    """Where a weight of a block lies in the buffer."""

    def __init__(self, stored: StoredWeight, begin: int) -> None:
        self.stored, self.begin, self.end = stored, begin, begin + int(stored.nbytes)
        self.ready = False  # the buffer holds this weight here
        self.used = False  # the running block is done with it
        self.job: Future[None] | None = None  # decodes it into its place

    def __reduce__(self) -> tuple[Any, ...]:
        return Place, (self.stored, self.begin)

    def overlaps(self, other: Place) -> bool:
        """Whether they cannot hold both."""
        return self.begin < other.end and other.begin < self.end


class Group:
    """The weights that are decoded together: a block's, or those of one layer outside of any block."""

    def __init__(self, weights: Iterable[StoredWeight]) -> None:
        self.places, end = [], 0
        for stored in weights:
            self.places.append(Place(stored, end))
            end = -(-self.places[-1].end // _ALIGNMENT) * _ALIGNMENT
        self.nbytes = end

    def place_of(self, stored: StoredWeight) -> Place | None:
        """None for a weight of another group."""
        return next((place for place in self.places if place.stored is stored), None)


class Buffer:
    """Memory for the largest group. A group holds it while its block runs; other threads wait for their turn.

    Behind a layer that is done its room is free, and the group that came next the last time is decoded into it already:
    so the same memory serves the block that runs and the one that follows.
    """

    def __init__(self, groups: Sequence[Group], *, prefetch: bool | None) -> None:
        """prefetch: None decodes ahead where torch leaves a core free, since a busy core gains nothing by it."""
        self._groups, self._prefetches = list(groups), prefetch
        self.nbytes = max((group.nbytes for group in groups), default=0)
        self._begin()

    def __getstate__(self) -> dict[str, Any]:
        return {"_groups": self._groups, "_prefetches": self._prefetches, "nbytes": self.nbytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._owner = 0
        self._ahead = False
        self._running: list[Group] = []  # the first holds the buffer, those inside it do not
        self._last: Group | None = None
        self._next: dict[int, Group] = {}  # id of a group -> the one that came after it
        self._memory: torch.Tensor | None = None
        for place in (place for group in self._groups for place in group.places):
            place.ready, place.job = False, None

    def _begin_after_fork(self) -> None:
        """The thread that decodes ahead, or one that holds the lock, is not in the child: nobody may wait for it."""
        if os.getpid() != self._process:
            self._begin()

    def enter(self, group: Group) -> None:
        """Decode a group's weights and hold them until `leave`. Raises FormatError (memory was damaged)."""
        self._begin_after_fork()
        self._lock.acquire()
        self._owner = threading.get_ident()
        self._running.append(group)
        if len(self._running) > 1:
            return  # a block inside a block: what it needs is decoded apart, where it is asked for
        try:
            self._settle()
            if self._last is not None:
                self._next[id(self._last)] = group
            self._last = group
            spare = torch.get_num_threads() < _core.default_threads()
            self._ahead = spare if self._prefetches is None else self._prefetches
            self._decode([place for place in group.places if not place.ready], tersor.torch._threads())
            for place in group.places:
                place.used = False
        except BaseException:
            self.leave(group)
            raise

    def leave(self, group: Group) -> None:
        """End what `enter` began; nothing happens where that failed."""
        if self._running and self._running[-1] is group and self._owner == threading.get_ident():
            self._running.pop()
            self._lock.release()

    def view(self, stored: StoredWeight) -> torch.Tensor | None:
        """The decoded weight in the buffer, good until the group leaves; None where the buffer does not hold it."""
        place = self._held(stored)
        return None if place is None or not place.ready else self._room(place)

    def done(self, stored: StoredWeight) -> None:
        """Say that the running group needs a weight no more; what comes next may take its room."""
        place = self._held(stored)
        if place is None or not self._ahead:
            return
        place.used = True
        following = self._next.get(id(self._running[0]))
        if following is None or following is self._running[0]:
            return
        needed = [place for place in self._running[0].places if not place.used]
        free = [
            place
            for place in following.places
            if not place.ready and place.job is None and not any(place.overlaps(other) for other in needed)
        ]
        if free:
            self._claim(free)
            job = _decoder().submit(self._read, free, 1)
            for place in free:
                place.job = job

    def replace(self, stored: StoredWeight, fresh: StoredWeight) -> None:
        """Let the weight become `fresh` when nothing is being decoded, and forget what the buffer holds of it."""
        self._begin_after_fork()
        with self._lock:
            self._settle()
            stored.become(fresh)
            for place in (place for group in self._groups for place in group.places):
                place.ready = place.ready and place.stored is not stored

    def _held(self, stored: StoredWeight) -> Place | None:
        if not self._running or self._owner != threading.get_ident():
            return None
        return self._running[0].place_of(stored)

    def _room(self, place: Place) -> torch.Tensor:
        if self._memory is None:
            self._memory = torch.empty(self.nbytes, dtype=torch.uint8, device="cpu")
        return self._memory[place.begin : place.end].view(place.stored.dtype).view(place.stored.shape)

    def _settle(self) -> None:
        """Wait for what is being decoded: from here on nobody but the caller writes into the buffer."""
        for place in (place for group in self._groups for place in group.places):
            if place.job is not None:
                with contextlib.suppress(Exception):  # whoever needs the weight decodes it again, and hears of it
                    place.job.result()
                    place.ready = True
                place.job = None

    def _claim(self, places: Sequence[Place]) -> None:
        for other in (place for group in self._groups for place in group.places if place.ready):
            other.ready = not any(place.overlaps(other) for place in places)

    def _decode(self, places: Sequence[Place], threads: int) -> None:
        self._claim(places)
        self._read(places, threads)
        for place in places:
            place.ready = True

    def _read(self, places: Sequence[Place], threads: int) -> None:
        jobs: dict[int, tuple[Any, list[Any]]] = {}
        for place in places:
            file = place.stored.container.file
            jobs.setdefault(id(file), (file, []))[1].extend(place.stored.jobs(self._room(place)))
        for file, several in jobs.values():
            file.read(several, threads, torch_threads=True)


def _decoder() -> ThreadPoolExecutor:
    """One thread that decodes ahead, for all models."""
    process = os.getpid()
    if process not in _decoders:
        _decoders.clear()
        _decoders[process] = ThreadPoolExecutor(1, thread_name_prefix="tersor-decode")
    return _decoders[process]
