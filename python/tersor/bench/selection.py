"""Which cases and coders a run measures, and why it leaves others out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tersor.bench.harness import AbsentError, Case, Codec

Factory = Callable[[], Codec]
CaseFactory = Callable[[], Case]
Plan = list[tuple[Case, list[Codec], int]]  # a case, its coders, its rounds
Selection = tuple[Plan, dict[str, str]]


def choose(
    cases: Mapping[str, CaseFactory],
    coders: Callable[[Case], Mapping[str, Factory]],
    *,
    rounds: int,
    only: Sequence[str] | None,
    impls: Sequence[str] | None,
) -> Selection:
    """Build the cases that `only` names (None: all) and the coders of each that `impls` lets in, as `select` does.

    Returns the plan, without cases that no coder is left for, and name -> reason for cases and coders that this machine
    lacks the means for.
    """
    plan: Plan = []
    skipped: dict[str, str] = {}
    for name, factory in cases.items():
        if only and name not in only:
            continue
        try:
            case = factory()
        except AbsentError as reason:
            skipped[name] = str(reason)
            continue
        codecs, absent = select(coders(case), impls)
        skipped.update(absent)
        if codecs:
            plan.append((case, codecs, rounds))
    return plan, skipped


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
