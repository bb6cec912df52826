import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str, path: Path) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """The reader of tables and rans8 streams in plain Python, written from the pages."""
    return _load("entropy_oracle", Path(__file__).with_name("oracle.py"))


@pytest.fixture(scope="session")
def by_hand() -> ModuleType:
    """The writer of streams that our encoder never emits."""
    return _load("entropy_by_hand", Path(__file__).with_name("by_hand.py"))
