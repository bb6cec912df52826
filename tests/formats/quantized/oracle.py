"""Files of quantized matrices in plain Python, written from docs/formats/quantized.md. The families have their own."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
}


def arrays_of_safetensors(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    metadata = header.pop("__metadata__")
    arrays = {}
    for name, row in header.items():
        begin, end = row["data_offsets"]
        arrays[name] = np.frombuffer(body[begin:end], DTYPES[row["dtype"]]).reshape(row["shape"])
    return arrays, metadata


def arrays_of_tsr(file: Any, decoders: Mapping[int, Any]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """file: of tests/container/oracle.py."""
    arrays = {
        entry.name: np.frombuffer(file.read(number, decoders), DTYPES[entry.dtype]).reshape(entry.shape)
        for number, entry in enumerate(file.entries)
    }
    return arrays, file.metadata


def decode(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], families: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """name -> [N, K] in the value's dtype, of rows without transforms and side terms. families: name -> its oracle."""
    document = json.loads(metadata["tersor.quantized"])
    assert document["version"] == 1
    found = {}
    for name, row in document["tensors"].items():
        assert set(row) == {
            *("format", "shape", "dtype", "codes", "activations", "errors", "parts", "transforms", "side_terms")
        }
        assert not row["transforms"]
        assert not row["side_terms"]
        assert all(math.isfinite(error) for error in row["errors"].values())
        numbers, (rows, columns) = row["format"], row["shape"]
        family = families[numbers["family"]]
        parts = {part: arrays[where] for part, where in row["parts"].items()}
        if row["codes"] == "symbols" and hasattr(family, "packed"):
            parts = family.packed(numbers, parts, rows, columns)
        with np.errstate(over="ignore"):
            found[name] = family.decode(numbers, parts, rows, columns).astype(DTYPES[row["dtype"]])
    return found
