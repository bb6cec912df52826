import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).parent.parent


def _load(name: str, path: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TESTS / path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """The decoder of lossless chunks in plain Python, written from the page."""
    return _load("lossless_oracle", "lossless/oracle.py")


@pytest.fixture(scope="session")
def container() -> ModuleType:
    """The reader of .tsr files, written from its page."""
    return _load("tsr_oracle", "container/oracle.py")


@pytest.fixture(scope="session")
def by_hand() -> ModuleType:
    """The writer of tables and blocks that our encoder never emits."""
    return _load("entropy_by_hand", "entropy/by_hand.py")
