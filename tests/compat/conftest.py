"""CompressAI and torchac as peers, where they are installed; bench/learned_codec.py knows how they load."""

import pytest


@pytest.fixture(scope="session")
def compressai(load):
    try:
        return load("bench/learned_codec.py").import_compressai()
    except ImportError as error:
        pytest.skip(f"no CompressAI to compare with (make peers): {error}")


@pytest.fixture(scope="session")
def theirs_torchac(load):
    try:
        return load("bench/learned_codec.py").import_torchac()
    except Exception as error:  # it compiles at import: whatever a compiler may do
        pytest.skip(f"no torchac to compare with (make peers): {error}")
