from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def oracle(container: ModuleType) -> ModuleType:
    """The .tsr reader in plain Python, written from the page."""
    return container
