"""How fast a matrix is packed: TERSOR_MEASURE=1 pytest -s tests/gemm/test_pack.py. What is packed: pack_check.cpp."""

import os
import time

import numpy as np
import pytest

import tersor
from tersor import _core, gemm
from tersor.formats.format import rows_of

FORMATS = ["int1-g128", "ternary", "int2-g128", "int3-g128", "int4-g128", "int5-g128", "int6-g128", "int8"]


@pytest.mark.skipif(not os.environ.get("TERSOR_MEASURE"), reason="measures: TERSOR_MEASURE=1 pytest -s -k speed")
def test_speed():
    """Bytes of the packed matrix a second, one thread, its pages there; with the check of the stored parts."""
    weight = np.random.default_rng(0).standard_normal((4096, 4096), np.float32)
    for name in [*FORMATS, "nvfp4", "q4_k"]:
        tensor = tersor.quantize(weight, name)
        packed = gemm.PackedMatrix.of(tensor)
        given = (tensor.format.to_dict(), *tensor.shape, rows_of(tensor.parts))
        seconds = []
        for _ in range(9):
            begin = time.perf_counter()
            _core.gemm_pack(*given, packed.data.ctypes.data, packed.nbytes, 1)
            seconds.append(time.perf_counter() - begin)
        print(f"{name}: {packed.nbytes / min(seconds) / 1e9:.2f} GB/s")
