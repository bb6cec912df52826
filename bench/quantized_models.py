"""What recipes cost language models: KL to the dense model and perplexity, on a text that no solver saw.

    make build && .venv/bin/python bench/quantized_models.py [--data ../shared/data] [--models lm_a lm_b] [--seeds 0]
        [--only PATTERN] [--limit WINDOWS] [-o bench/results/quantized_models.json]

Calibration: 128 windows of 512 tokens of train.txt, drawn by the seed; verdict: all of valid.txt, as `tersor eval` has
it. `times_rtn` is the divergence beside that of rounding to nearest at the same bits and groups. Rows that the file has
already (model, recipe, seed) are kept and not computed again: a long table is made in several sittings.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import transformers

import tersor.transformers
from tersor.bench import machine
from tersor.evaluate.language import score_language_model, tokens_of
from tersor.transformers.quantizing import Target, quantize
from tersor.weights import LayerRecipe, Recipe

Row = dict[str, Any]


def layer(fmt: str, **options: Any) -> LayerRecipe:
    return LayerRecipe(format=fmt, **options)


# Rounding to nearest without a clip comes first: it is what the others are measured by.
RECIPES: dict[str, tuple[LayerRecipe, float | None]] = {
    "8 bits rtn": (layer("int8-g128", solver="rtn"), None),
    **{
        f"{bits} bits {name}": (layer(f"int{bits}-g128", **options), None)
        for bits in (4, 3)
        for name, options in {
            "rtn": {"solver": "rtn"},
            "rtn mse": {"solver": "rtn", "grid": "mse"},
            "hqq": {"solver": "hqq"},
            "gptq": {"solver": "gptq"},
            "cd": {"solver": "cd"},
            "decoupleq": {"solver": "decoupleq"},
            "awq": {"solver": "rtn", "grid": "mse", "transform": "awq"},
            "hadamard gptq": {"solver": "gptq", "transform": "hadamard"},
            "learned": {"solver": "learned"},
            "discquant": {"solver": "discquant"},
        }.items()
    },
    "3.5 bits gptq g32": (layer("int3-g32", solver="gptq"), None),
    "3.5 bits spqr": (layer("int3-g128", solver="gptq", outliers=0.0096), None),
    "3.25 bits gptq g64": (layer("int3-g64", solver="gptq"), None),
    "3.4 bits eora 8": (layer("int3-g128", solver="gptq", rank=8), None),
    **{f"allocated {bits} bpw": (layer("int4-g128", solver="decoupleq"), bits) for bits in (3.125, 3.5, 4.125, 5.125)},
    "5 bits decoupleq": (layer("int5-g128", solver="decoupleq"), None),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[1] / "../shared/data")
    parser.add_argument("--models", nargs="+", default=["lm_a", "lm_b"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--only", default="*")
    parser.add_argument("--limit", type=int)
    parser.add_argument("-o", dest="output", type=Path)
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    rows: list[Row] = []
    if arguments.output and arguments.output.exists():
        rows = json.loads(arguments.output.read_text("utf-8"))["rows"]
    for model in arguments.models:
        reference, tokenizer = tersor.transformers.load_for_evaluation(arguments.data / "models" / model)
        tokens = tokens_of(tokenizer, (arguments.data / "text/valid.txt").read_text("utf-8"))
        for seed in arguments.seeds:
            for name, (recipe, bits) in RECIPES.items():
                known = any((row["model"], row["case"], row["seed"]) == (model, name, seed) for row in rows)
                if known or not fnmatch.fnmatch(name, arguments.only):
                    continue
                rows.append(_measured(arguments, model, reference, tokens, name, recipe, bits, seed, rows))
                print(_line(rows[-1]), flush=True)
                if arguments.output:
                    found = {"bench": "quantized_models", "machine": machine.facts(), "rows": rows}
                    arguments.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


def _measured(
    arguments: argparse.Namespace, model: str, reference: Any, tokens: Any, name: str, layer: LayerRecipe,
    bits: float | None, seed: int, rows: list[Row],
) -> Row:  # fmt: skip
    source = arguments.data / "models" / model
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        made = quantize(
            source, f"{scratch}/out", Recipe(layer=layer, seed=seed),
            text=(arguments.data / "text/train.txt").read_text("utf-8"),
            target=None if bits is None else Target(bits_per_weight=bits),
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        quantized, _ = tersor.transformers.load_for_evaluation(f"{scratch}/out")
    score = score_language_model(quantized, tokens, reference=reference, limit=arguments.limit)
    nearest = next(
        (row for row in rows if row["model"] == model and row["case"] == f"{name.split()[0]} bits rtn"), None
    )  # fmt: skip
    return {
        "case": name, "model": model, "seed": seed, "bits_per_weight": made.bits_per_weight, "bytes": made.bytes,
        "kl_mean": score.kl_mean, "kl_se": score.kl_se, "perplexity": score.perplexity,
        "perplexity_ratio": score.perplexity_ratio, "perplexity_ratio_se": score.perplexity_ratio_se,
        "times_rtn": None if nearest is None else score.kl_mean / nearest["kl_mean"],
        "predicted": made.predicted, "windows": score.windows, "seconds": seconds,
    }  # fmt: skip


def _line(row: Row) -> str:
    times = "" if row["times_rtn"] is None else f" = {row['times_rtn']:.3f} of rtn"
    predicted = "" if row["predicted"] is None else f", predicted {row['predicted']:.5f}"
    return (
        f"{row['model']} {row['case']}, seed {row['seed']}: {row['bits_per_weight']:.3f} bits/weight, "
        f"KL {row['kl_mean']:.6f} +- {row['kl_se']:.6f}{times}{predicted}, perplexity {row['perplexity']:.3f} "
        f"(x {row['perplexity_ratio']:.5f}), {row['seconds']:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
