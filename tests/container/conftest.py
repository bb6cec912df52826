from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def oracle(load: Callable[[str], ModuleType]) -> ModuleType:
    """The .tsr reader in plain Python, written from the page."""
    return load("tests/container/oracle.py")


@pytest.fixture(scope="session")
def decoders(load: Callable[[str], ModuleType], oracle: ModuleType) -> dict[int, Callable[[bytes, int], bytes]]:
    """A codec's number -> what decodes a chunk of it, in plain Python, too."""
    load("tests/entropy/oracle.py")  # which the next imports
    return {**oracle.STORED, 2: load("tests/lossless/oracle.py").decode_chunk}
