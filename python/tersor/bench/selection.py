"""Which coders a run measures, and why it leaves others out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tersor.bench.harness import AbsentError, Case, Codec

Factory = Callable[[], Codec]
Plan = list[tuple[Case, list[Codec], int]]  # a case, its coders, its rounds
Selection = tuple[Plan, dict[str, str]]


def select(factories: Mapping[str, Factory], impls: Sequence[str] | None) -> tuple[list[Codec], dict[str, str]]:
    """Build the coders whose names hold one of the texts in `impls` (None: all). Returns them and name -> reason for
    those that this machine lacks."""
    codecs: list[Codec] = []
    skipped: dict[str, str] = {}
    for name, factory in factories.items():
        if impls and not any(text in name for text in impls):
            continue
        try:
            codecs.append(factory())
        except AbsentError as reason:
            skipped[name] = str(reason)
    return codecs, skipped
