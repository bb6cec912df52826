"""What becomes of every layer of a model, as data. Page: docs/weights.md, Recipes."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib.resources
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tersor.weights.config import of_keys, require_types
from tersor.weights.layer_recipe import LayerRecipe

if TYPE_CHECKING:
    import os

    from typing_extensions import Self


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What becomes of the layers whose names match a pattern, as fnmatch has it; layer: None, they stay dense."""

    pattern: str
    layer: LayerRecipe | None = None

    def __post_init__(self) -> None:
        require_types(self)
        if not self.pattern:
            raise ValueError("pattern is empty: no layer is named so")
        _require_layer("layer", self.layer)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What becomes of a model, and what it is calibrated with.

    layer: of every linear layer that no rule names. rules: the first whose pattern matches decides. embeddings: of
    embedding layers and of the output head; None, they stay dense. samples, length: windows of text that solvers see,
    and tokens of each; seed: of their choice. source: of the method.
    Raises ValueError and TypeError: what was found, and what is needed.
    """

    name: str = ""
    source: str = ""
    layer: LayerRecipe
    rules: tuple[Rule, ...] = ()
    embeddings: LayerRecipe | None = None
    samples: int = 128
    length: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        require_types(self)
        for name, value, least in (("samples", self.samples, 1), ("length", self.length, 1), ("seed", self.seed, 0)):
            if value < least:
                raise ValueError(f"{name} is {least} or more, not {value}")
        if not isinstance(self.layer, LayerRecipe):
            raise TypeError(f"layer is a LayerRecipe, not {self.layer!r}")
        object.__setattr__(self, "rules", tuple(self.rules))
        for i, rule in enumerate(self.rules):
            if not isinstance(rule, Rule):
                raise TypeError(f"rules[{i}] is a Rule, not {rule!r}")
        _require_layer("embeddings", self.embeddings)
        if self.embeddings is not None and self.embeddings.needs_statistics:
            raise ValueError("embeddings: what they look up has no statistics, and this recipe of a layer needs some")

    def for_layer(self, name: str, *, is_embedding: bool = False, is_head: bool = False) -> LayerRecipe | None:
        """What becomes of the layer of this name; None: it stays dense."""
        for rule in self.rules:
            if fnmatch.fnmatchcase(name, rule.pattern):
                return rule.layer
        return self.embeddings if is_embedding or is_head else self.layer

    def to_dict(self) -> dict[str, Any]:
        """Every number, also those that are defaults, fit for JSON and YAML."""
        found = dataclasses.asdict(self)
        return {**found, "rules": list(found["rules"])}

    @classmethod
    def from_dict(cls, found: object) -> Self:
        """The recipe of which to_dict gave this; keys with defaults may be missing. Raises ValueError."""
        if not isinstance(found, Mapping):
            raise ValueError(f"a recipe is a mapping, not {found!r}")
        given = dict(found)
        for name in ("layer", "embeddings"):
            if given.get(name) is not None:
                given[name] = of_keys(LayerRecipe, given[name], name)
        if not isinstance(given.get("rules", []), (list, tuple)):
            raise ValueError(f"rules is a list, not {given['rules']!r}")
        given["rules"] = tuple(_rule(rule, f"rules[{i}]") for i, rule in enumerate(given.get("rules", [])))
        return of_keys(cls, given, "recipe")

    def dump(self) -> str:
        """The recipe as YAML, which from_yaml reads."""
        text: str = _yaml().safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=120)
        return text

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """The recipe that a text in YAML describes. Raises ValueError (no YAML, unknown keys: what is known)."""
        yaml = _yaml()
        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"a recipe is YAML: {error}") from None
        return cls.from_dict(found)

    @classmethod
    def load(cls, path_or_name: str | os.PathLike[str]) -> Self:
        """A recipe that is shipped, by its name ("spqr-3bit"), or one of a file. Raises ValueError, OSError."""
        if str(path_or_name) in cls.names():
            return cls.from_yaml((_shipped() / f"{path_or_name}.yaml").read_text("utf-8"))
        path = pathlib.Path(path_or_name)
        if path.suffix not in (".yaml", ".yml") and not path.exists():
            raise ValueError(f"no recipe is named {str(path)!r}: there are {', '.join(cls.names())}, and files (.yaml)")
        try:
            return cls.from_yaml(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @staticmethod
    def names() -> list[str]:
        """The names of the recipes that are shipped."""
        return sorted(one.name.removesuffix(".yaml") for one in _shipped().iterdir() if one.name.endswith(".yaml"))


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise ImportError("recipes as text need PyYAML: pip install 'tersor[transformers]'") from None
    return yaml


def _shipped() -> Any:
    return importlib.resources.files("tersor") / "recipes"


def _rule(found: object, where: str) -> Rule:
    if isinstance(found, Mapping) and found.get("layer") is not None:
        found = {**found, "layer": of_keys(LayerRecipe, found["layer"], f"{where}.layer")}
    return of_keys(Rule, found, where)


def _require_layer(name: str, layer: object) -> None:
    if not isinstance(layer, (LayerRecipe, type(None))):
        raise TypeError(f"{name} is a LayerRecipe or None, not {layer!r}")
