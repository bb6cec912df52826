from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def oracle(load: Callable[[str], ModuleType]) -> ModuleType:
    """The reader of tables and rans8 streams in plain Python, written from the pages."""
    return load("tests/entropy/oracle.py")


@pytest.fixture(scope="session")
def indexed_oracle(oracle: ModuleType, load: Callable[[str], ModuleType]) -> ModuleType:
    """The builder of tables and reader of indexed streams; it needs the one above."""
    return load("tests/entropy/indexed_oracle.py")


@pytest.fixture(scope="session")
def by_hand(load: Callable[[str], ModuleType]) -> ModuleType:
    """The writer of streams that our encoder never emits."""
    return load("tests/entropy/by_hand.py")
