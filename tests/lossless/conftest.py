from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def oracle(load: Callable[[str], ModuleType]) -> ModuleType:
    """The decoder of lossless chunks in plain Python, written from the page."""
    load("tests/entropy/oracle.py")  # which it imports
    return load("tests/lossless/oracle.py")


@pytest.fixture(scope="session")
def by_hand(load: Callable[[str], ModuleType]) -> ModuleType:
    """The writer of tables and blocks that our encoder never emits."""
    return load("tests/entropy/by_hand.py")
