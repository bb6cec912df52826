"""What the tests of formats share: the families' oracles and cases, and weights."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="session")
def oracles(load: Callable[[str], ModuleType]) -> dict[str, ModuleType]:
    """A family's name -> its reader in plain NumPy, written from the page."""
    return {path.parent.name: load(f"tests/formats/{path.parent.name}/oracle.py") for path in HERE.glob("*/case.py")}


@pytest.fixture(scope="session")
def read_file(
    load: Callable[[str], ModuleType],
    oracles: dict[str, ModuleType],
    container: ModuleType,
    decoders: dict[int, Callable[[bytes, int], bytes]],
) -> Callable[[pathlib.Path], dict[str, np.ndarray]]:
    """The reader of files of quantized matrices in plain Python, written from the page: name -> [N, K]."""
    oracle = load("tests/formats/quantized/oracle.py")

    def read(path: pathlib.Path) -> dict[str, np.ndarray]:
        data = path.read_bytes()
        if path.suffix == ".tsr":
            arrays, metadata = oracle.arrays_of_tsr(container.read(data), decoders)
        else:
            arrays, metadata = oracle.arrays_of_safetensors(data)
        found: dict[str, np.ndarray] = oracle.decode(arrays, metadata, oracles)
        return found

    return read


@pytest.fixture(scope="session")
def edges() -> dict[str, np.ndarray]:
    """Weights at the borders: sizes, and values that break careless arithmetic."""
    rng = np.random.default_rng(7)
    made = {f"{n} x {k}": rng.standard_normal((n, k)) for n, k in [(1, 1), (1, 2), (5, 1), (3, 7), (2, 17), (7, 257)]}
    made |= {"48 x 192": rng.standard_normal((48, 192)), "2 x 4304": rng.standard_normal((2, 4304))}
    some = rng.standard_normal((4, 300))
    made["zeros"] = np.zeros((3, 70))
    made["negative zeros"] = np.full((3, 70), -0.0)
    made["a group of zeros"] = np.where(np.arange(300) < 256, 0, some)
    made["all the same"] = np.full((3, 70), 0.7)
    made["all positive"] = np.abs(some) + 100
    made["all negative"] = -np.abs(some)
    made["both ends alike"] = np.tile([1.0, -1.0, 0.5], (2, 30))
    made["one outlier"] = np.where(np.arange(1200).reshape(4, 300) == 650, 1000, some)
    made["tiny"] = some * 1e-40
    made["large"] = some * 1e3
    arrays = {name: array.astype(np.float32) for name, array in made.items()}
    arrays["halves"] = some.astype(np.float16)
    arrays["bf16"] = some.astype(ml_dtypes.bfloat16)
    arrays["columns first"] = np.asfortranarray(arrays["48 x 192"])
    return arrays


@pytest.fixture(scope="session")
def gaussian() -> np.ndarray:
    """[48, 640] float32."""
    return np.random.default_rng(0).standard_normal((48, 640)).astype(np.float32)
