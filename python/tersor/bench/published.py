"""Figures of coders that no package registry has: facts to stand beside a table, never part of a ratio.

Some we measured once on another machine, the same sources on 2 cores of Zen 4 with AVX-512; others are as their authors
state them. Speeds in GB/s of raw bytes, `over` in percent above the entropy, `bits` a weight;
of linear layers microseconds and 1e9 operations a second.
"""

from __future__ import annotations

from typing import Any

ZEN4 = "measured on another machine (Zen 4), not here"
AUTHORS = "published by its authors, not measured here"


def _fact(impl: str, case: str, origin: str, **figures: float) -> dict[str, Any]:
    return {"impl": impl, "case": case, **figures, "origin": origin}


FACTS: dict[str, list[dict[str, Any]]] = {
    "entropy": [
        _fact("huff0", "geo", ZEN4, encode_gbps=1.318, decode_gbps=2.820, over=4.82),
        _fact("huff0", "near", ZEN4, encode_gbps=1.270, decode_gbps=1.534, over=0.37),
        _fact("FSE, tANS of 12 bits", "geo", ZEN4, encode_gbps=0.521, decode_gbps=0.735, over=0.14),
        _fact("hypersonic-rANS 32x64, AVX2", "geo", ZEN4, encode_gbps=0.316, decode_gbps=1.950, over=0.27),
        _fact("hypersonic-rANS 32x64, AVX2", "near", ZEN4, encode_gbps=0.187, decode_gbps=1.940, over=0.06),
        _fact("ryg_rans rans64, scalar", "geo", ZEN4, encode_gbps=0.353, decode_gbps=0.384, over=0.19),
        _fact("hypersonic-rANS, Ryzen 7950X", "enwik8", AUTHORS, decode_gbps=3.3),
        _fact(
            "TurboANX, Ryzen 7950X",
            "enwik8",
            "published in hypersonic-rANS's README, not measured here",
            decode_gbps=2.96,
        ),
    ],
    "lossless": [
        _fact("zipnn 0.5.4", "gbf16", ZEN4, encode_gbps=0.557, decode_gbps=2.68, bits=10.597),
        _fact("zipnn 0.5.4", "mlbf16", ZEN4, encode_gbps=0.561, decode_gbps=2.71, bits=10.654),
        _fact("pcodec 1.1.0 -8", "gbf16", ZEN4, encode_gbps=0.112, decode_gbps=0.576, bits=10.546),
        _fact("fpzip", "mlf32", ZEN4, encode_gbps=0.066, decode_gbps=0.073, bits=29.66),
        _fact("DietGPU, A100, floats", "bf16", AUTHORS + " (250 to 600 GB/s)", decode_gbps=250.0),
    ],
    # 4096x4096, one thread, weights in huge pages.
    "gemm": [
        _fact("ik_llama.cpp 8337e4c, AVX-512, q4_0_r8", "int4 M=1", ZEN4, us=270.0),
        _fact("ik_llama.cpp 8337e4c, AVX-512, q4_0_r8", "int4 M=4", ZEN4, us=825.0),
        _fact("ik_llama.cpp 8337e4c, AVX-512, q4_0_r8", "int4 M=128", ZEN4, gops=201.0),
        _fact("ik_llama.cpp 8337e4c, AVX-512, mxfp4_r8", "mxfp4 M=1", ZEN4, us=318.0),
        _fact("ik_llama.cpp 8337e4c, AVX-512, mxfp4_r8", "mxfp4 M=128", ZEN4, gops=218.0),
        _fact("ik_llama.cpp 8337e4c, AVX-512, q8_0_r8", "int8 M=1", ZEN4, us=425.0),
        _fact("ik_llama.cpp 8337e4c, AVX-512, q2_k_r4", "int2 M=1", ZEN4, us=278.0),
        _fact("ggml d99724f, AVX-512, q4_0 repacked", "int4 M=1", ZEN4, us=448.0),
        _fact("ggml d99724f, AVX-512, q4_0 repacked", "int4 M=128", ZEN4, gops=137.0),
        _fact("ggml d99724f, AVX-512, iq2_xs", "2-bit vectors M=1", ZEN4 + ", 4 KB pages", us=1048.0),
    ],
}
