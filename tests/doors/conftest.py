"""What the doors' tests share."""

import numpy as np
import pytest
import safetensors.numpy


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """A .safetensors file that takes more than a second to compress at level 9 by one thread."""
    path = tmp_path_factory.mktemp("large") / "large.safetensors"
    weights = np.random.default_rng(0).standard_normal(8_000_000, np.float32)
    safetensors.numpy.save_file({f"w{i}": np.roll(weights, i) for i in range(8)}, path)
    yield path
    path.unlink()
