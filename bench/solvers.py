"""Solvers of `tersor.weights` beside GPTQ written plainly in PyTorch: time of a large layer, errors of a real model's.

    make build && .venv/bin/python bench/solvers.py [--data ../shared/data] [-o bench/results/solvers.json]

Errors are tr((W - Q) H (W - Q)^T), the squared error of the layer's outputs over the inputs that H was gathered from,
as a share of what rounding to nearest leaves: of a model the geometric mean of all linear layers of its blocks. Times
are without the gathering of H, and the least of the rounds; solvers take turns.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tersor.bench import machine
from tersor.calibrate import Statistics
from tersor.weights import GPTQ, HQQ, CoordinateDescent, DecoupleQ, Nearest, Solver

Row = dict[str, Any]
Layer = tuple[np.ndarray, Statistics]
Run = Callable[[np.ndarray, str, Statistics], np.ndarray]
PLAIN = "plain GPTQ, PyTorch"
SOLVERS: dict[str, Solver] = {
    "Nearest": Nearest(),
    "Nearest, mse": Nearest(clip="mse"),
    "HQQ": HQQ(),
    "GPTQ, none": GPTQ(clip="none"),
    "GPTQ": GPTQ(),
    "GPTQ, hessian": GPTQ(clip="hessian"),
    "GPTQ, search": GPTQ(clip="search"),
    "CoordinateDescent, mse": CoordinateDescent(clip="mse"),
    "CoordinateDescent": CoordinateDescent(),
    "DecoupleQ": DecoupleQ(),
}
TIMED = {"GPTQ": 2, PLAIN: 2, "CoordinateDescent": 1, "DecoupleQ": 1}  # rounds


def main(arguments: list[str]) -> int:
    """Measure, print a line each, and write them where -o says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="with models/lm_b and text/train.txt")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="a small layer, one model's block: shows that it works")
    options = parser.parse_args(arguments)
    rows = large_layer(256 if options.quick else 4096)
    if (options.data / "models" / "lm_b").is_dir():
        layers = model_layers(options.data, windows=4 if options.quick else 64)
        layers = dict(list(layers.items())[:7]) if options.quick else layers
        for name in ("int4-g128", "int3-g128"):
            rows += real_layers(layers, name)
    else:
        print(f"no models/lm_b in {options.data}: real layers are left out")
    if options.output:
        result = {"bench": "solvers", "machine": machine.facts(), "rows": rows}
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def plain_gptq(weight: np.ndarray, fmt: str, statistics: Statistics) -> np.ndarray:
    """Columns as they stand, blocks of 128; scales when a group is reached, from the weights as they were moved."""
    bits, group, block = int(fmt[3]), int(fmt.split("-g")[1]), 128
    work, hessian = torch.from_numpy(weight.copy()), torch.from_numpy(statistics.hessian)
    hessian.diagonal().add_(0.01 * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True)
    found, scale = torch.empty_like(work), torch.ones(len(work))
    for first in range(0, work.shape[1], block):
        last = min(first + block, work.shape[1])
        errors = torch.empty(len(work), last - first)
        for k in range(first, last):
            if k % group == 0:
                scale = work[:, k : k + group].abs().amax(1).clamp_min(1e-12) / (2 ** (bits - 1) - 1)
            codes = (work[:, k] / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            found[:, k] = codes * scale
            errors[:, k - first] = (work[:, k] - found[:, k]) / upper[k, k]
            work[:, k:last] -= errors[:, k - first, None] * upper[k, k:last]
        work[:, last:] -= errors @ upper[first:last, last:]
    return found.numpy()


def run_of(name: str) -> Run:
    """What stores a matrix and gives it back."""
    if name == PLAIN:
        return plain_gptq
    return lambda weight, fmt, statistics: SOLVERS[name].solve(weight, fmt, statistics).dequantize(np.float32)


def output_error(weight: np.ndarray, found: np.ndarray, hessian: np.ndarray) -> float:
    """tr((W - Q) H (W - Q)^T)."""
    off = weight - found
    return float(np.einsum("nk,nk->n", off @ hessian, off).sum(dtype=np.float64))


def large_layer(size: int) -> list[Row]:
    """Random weights, inputs of very different size that share a direction."""
    random = np.random.default_rng(0)
    statistics = Statistics(size)
    for _ in range(2):
        x = random.standard_normal((size, size), np.float32) + random.standard_normal((size, 1), np.float32)
        statistics.update(x * np.exp(random.standard_normal(size)).astype(np.float32))
    weight, fmt = random.standard_normal((size, size), np.float32), "int4-g128"
    hessian = statistics.hessian
    nearest = output_error(weight, run_of("Nearest")(weight, fmt, statistics), hessian)
    seconds, shares = {name: math.inf for name in TIMED}, {}
    for turn in range(max(TIMED.values())):
        for name, rounds in TIMED.items():
            if turn >= rounds:
                continue
            start = time.perf_counter()
            found = run_of(name)(weight, fmt, statistics)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
            shares[name] = output_error(weight, found, hessian) / nearest
    return [row(f"{size} x {size}, {fmt}", name, seconds[name], shares[name]) for name in TIMED]


def model_layers(data: Path, windows: int) -> dict[str, Layer]:
    """Every linear layer of the blocks of lm_b and the inputs that it meets over so many windows of 512 tokens."""
    import transformers

    path = data / "models" / "lm_b"
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(path)(
        (data / "text" / "train.txt").read_text(encoding="utf-8"), add_special_tokens=False, return_tensors="pt"
    ).input_ids[0]
    step = max(1, len(tokens) // 512 // windows)
    some = tokens[: len(tokens) // 512 * 512].view(-1, 512)[::step][:windows]
    found: dict[str, Layer] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layers." in name:
            statistics = Statistics(module.in_features)
            found[name] = (module.weight.detach().numpy(), statistics)
            module.register_forward_pre_hook(lambda _, inputs, into=statistics: into.update(inputs[0]))
    with torch.no_grad():
        for first in range(0, len(some), 16):
            model.model(some[first : first + 16])
    return found


def real_layers(layers: Mapping[str, Layer], fmt: str) -> list[Row]:
    """A row a solver, of all layers."""
    seconds: dict[str, float] = {}
    logs: dict[str, list[float]] = {}
    for weight, statistics in layers.values():
        hessian, nearest = statistics.hessian, 0.0
        for name in [*SOLVERS, PLAIN]:
            start = time.perf_counter()
            found = run_of(name)(weight, fmt, statistics)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
            error = output_error(weight, found, hessian)
            nearest = nearest or error  # of the first, which rounds to nearest
            logs.setdefault(name, []).append(math.log(error / nearest))
    return [row(f"lm_b, {fmt}", name, seconds[name], math.exp(np.mean(logs[name]))) for name in logs]


def row(case: str, impl: str, seconds: float, error: float) -> Row:
    """A result, printed."""
    print(f"{case:24s} {impl:26s} {seconds:7.2f} s  error {error:.4f} of rounding to nearest", flush=True)
    return {"case": case, "impl": impl, "seconds": round(seconds, 3), "error": round(error, 4)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
