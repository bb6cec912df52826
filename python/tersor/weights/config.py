"""What recipes have in common as data: their types, and their keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def require_types(config: Any) -> None:
    """Refuse text and numbers of another type than is declared; a whole number does for a float, and becomes one.

    Fields of other types are left to their class. Raises TypeError.
    """
    for field in dataclasses.fields(config):
        needed = {"str": str, "int": int, "float": float}.get(str(field.type))  # annotations are postponed: names
        value = getattr(config, field.name)
        if needed is float and type(value) is int:
            object.__setattr__(config, field.name, float(value))
        elif needed is not None and type(value) is not needed:
            raise TypeError(f"{field.name} is {needed.__name__}, not {value!r} ({type(value).__name__})")


def of_keys(kind: type[T], found: object, where: str) -> T:
    """The configuration with these keys and values. Raises ValueError: what is unknown, and all that is known."""
    if not isinstance(found, Mapping):
        raise ValueError(f"{where} is a mapping, not {found!r}")
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := [key for key in found if key not in known]:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}, keys are {', '.join(known)}")
    missing = [
        name
        for name, field in known.items()
        if name not in found and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where}: {missing[0]} is missing")
    try:
        return kind(**found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
