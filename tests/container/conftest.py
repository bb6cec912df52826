import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """The .tsr reader in plain Python, written from the page."""
    return _module("tsr_oracle", Path(__file__).with_name("oracle.py"))


@pytest.fixture(scope="session")
def decoders(oracle: ModuleType) -> dict[int, Callable[[bytes, int], bytes]]:
    """A codec's number -> what decodes a chunk of it, in plain Python, too."""
    lossless = _module("lossless_oracle", Path(__file__).parent.parent / "lossless" / "oracle.py")
    return {**oracle.STORED, 2: lossless.decode_chunk}
