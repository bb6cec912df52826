"""What tests of small models share."""

import pytest


@pytest.fixture
def one_thread():
    """Torch on one thread: those of operators as small as the tests' only wait for one another."""
    torch = pytest.importorskip("torch", reason="PyTorch is not here")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
