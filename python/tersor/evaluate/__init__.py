"""Selecting and measuring data and models by how well they compress. Methods and their sources: docs/evaluate.md."""

from __future__ import annotations

from tersor.evaluate.zip_fit import compressed_bytes, zip_fit

__all__ = ["compressed_bytes", "zip_fit"]
