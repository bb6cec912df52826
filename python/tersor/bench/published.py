"""Figures of coders that no package registry has: facts to stand beside a table, never part of a ratio.

"other machine": measured by us once, on 2 cores of Zen 4 (AVX-512), the same three sources; "published": as their
authors state them. Speeds in GB/s of raw bytes, `over` in percent above the entropy.
"""

from __future__ import annotations

from typing import Any

_ZEN4 = "other machine (Zen 4), not measured here"

FACTS: dict[str, list[dict[str, Any]]] = {
    "entropy": [
        {
            "impl": "FSE, tANS 12 bit",
            "case": "geo",
            "encode_gbps": 0.521,
            "decode_gbps": 0.735,
            "over": 0.14,
            "origin": _ZEN4,
        },
        {
            "impl": "hypersonic-rANS 32x64, AVX2",
            "case": "geo",
            "encode_gbps": 0.316,
            "decode_gbps": 1.950,
            "over": 0.27,
            "origin": _ZEN4,
        },
        {
            "impl": "hypersonic-rANS 32x64, AVX2",
            "case": "near",
            "encode_gbps": 0.187,
            "decode_gbps": 1.940,
            "over": 0.06,
            "origin": _ZEN4,
        },
        {
            "impl": "ryg_rans rans64, scalar",
            "case": "geo",
            "encode_gbps": 0.353,
            "decode_gbps": 0.384,
            "over": 0.19,
            "origin": _ZEN4,
        },
        {"impl": "huff0", "case": "geo", "encode_gbps": 1.318, "decode_gbps": 2.820, "over": 4.82, "origin": _ZEN4},
        {"impl": "huff0", "case": "near", "encode_gbps": 1.270, "decode_gbps": 1.534, "over": 0.37, "origin": _ZEN4},
        {
            "impl": "hypersonic-rANS, own README, Ryzen 7950X",
            "case": "enwik8",
            "decode_gbps": 3.3,
            "origin": "published, not measured here",
        },
        {
            "impl": "TurboANX, in hypersonic-rANS's README, Ryzen 7950X",
            "case": "enwik8",
            "decode_gbps": 2.96,
            "origin": "published, not measured here",
        },
    ],
    "lossless": [
        {
            "impl": "DietGPU floats, A100",
            "case": "bf16",
            "decode_gbps": 250.0,
            "origin": "published (250 to 600 GB/s), not measured here",
        },
        {
            "impl": "zipnn 0.5.4",
            "case": "gbf16",
            "encode_gbps": 0.557,
            "decode_gbps": 2.68,
            "bits": 10.597,
            "origin": _ZEN4,
        },
        {"impl": "fpzip", "case": "mlf32", "encode_gbps": 0.066, "decode_gbps": 0.073, "bits": 29.66, "origin": _ZEN4},
    ],
}
