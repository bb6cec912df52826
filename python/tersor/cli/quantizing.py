"""`tersor quantize`: a model's matrices in few bits."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from tersor.cli.text import amount, parse_size, read_text

if TYPE_CHECKING:
    from tersor.nn.quantizing import LayerResult
    from tersor.transformers.quantizing import QuantizedModel
    from tersor.weights import LayerRecipe, Recipe

SOLVERS = ("rtn", "hqq", "nupes", "gptq", "cd", "decoupleq", "learned", "discquant")
GRIDS = ("minmax", "mse", "hessian", "search", "hqq", "nupes")
TRANSFORMS = ("awq", "smooth", "hadamard", "permute")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `tersor quantize` takes beside --json, -q and -T."""
    command.add_argument("model", metavar="MODEL", help="a folder of transformers, its weights .safetensors or .tsr")
    command.add_argument("out", metavar="OUT", help="the folder to make")
    what = command.add_argument_group("what each matrix becomes")
    what.add_argument("--bits", metavar="B", type=int, choices=(1, 2, 3, 4, 5, 6, 8), help="1 to 6 or 8 (default: 4)")
    what.add_argument("--group", metavar="G", help="columns a scale: 16 to 256, channel or tensor (default: 128)")
    what.add_argument("--format", metavar="F", help="a format's name instead of both: nf4, mxfp4, int3-g64-zero, ...")
    what.add_argument(
        "--embeddings", metavar="F", help="store embeddings and output head in a format too, as int8-g128"
    )
    what.add_argument("--solver", choices=SOLVERS, help="who chooses the codes (default: cd, without a text rtn)")
    what.add_argument("--grid", choices=GRIDS, help="how scales are chosen (default: the solver's own)")
    what.add_argument("--transform", choices=TRANSFORMS, help="of columns, before they are rounded")
    what.add_argument("--outliers", metavar="P%", type=_share, help="weights kept in 16 bits beside the others, as 1%%")
    what.add_argument("--rank", metavar="R", type=_number, help="of a product of thin matrices that mends the rest")
    what.add_argument("--activations", metavar="A", help="how layers read x: int8, int8-g128, int8-outlier, exact")
    what.add_argument("--recipe", metavar="R", help="a recipe by its name or file; the options above replace its own")
    fit = command.add_argument_group("bits where they matter, 2 to 8 for each layer")
    fit.add_argument("--bpw", metavar="X", type=float, help="bits a weight that all these layers may take")
    fit.add_argument("--target-size", metavar="S", type=parse_size, help="bytes of OUT's weight files, as 12MiB")
    fit.add_argument("--allocator", choices=("dp", "evopress"), help="who chooses (default: dp)")
    text = command.add_argument_group("calibration")
    text.add_argument("--calib", metavar="TEXT", help="a UTF-8 text like those that the model will meet")
    text.add_argument("--samples", metavar="N", type=_number, help="windows of it that solvers see (default: 128)")
    text.add_argument("--length", metavar="N", type=_number, help="tokens a window (default: 512)")
    text.add_argument("--seed", metavar="N", type=_number, help="of windows, signs and codebooks (default: 0)")
    command.add_argument("--resume", action="store_true", help="go on with a run that was cut off, to the same bytes")
    command.add_argument("-f", "--force", action="store_true", help="overwrite OUT")


def run(arguments: argparse.Namespace) -> int:
    """Quantize, and say what became of the layers. Raises what the files, the recipe and the run raise."""
    from tersor.transformers.quantizing import Target, quantize

    recipe = recipe_of(arguments)
    target = None
    if arguments.bpw is not None or arguments.target_size is not None:
        target = Target(
            bits_per_weight=arguments.bpw, size=arguments.target_size, allocator=arguments.allocator or "dp"
        )
    elif arguments.allocator:
        raise ValueError("--allocator goes with --bpw or --target-size")
    text = None if arguments.calib is None else read_text(arguments.calib)
    progress = _Progress(hidden=arguments.quiet or arguments.json)
    made = quantize(
        arguments.model, arguments.out, recipe, text=text, target=target, resume=arguments.resume,
        overwrite=arguments.force, threads=arguments.threads, progress=progress,
    )  # fmt: skip
    if arguments.json:
        print(json.dumps(_finite(made.to_dict())))
    elif not arguments.quiet:
        show(made)
    return 0


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The recipe that the options describe, or that --recipe names with them in the place of its own."""
    from tersor.formats import IntGroup, parse
    from tersor.weights import LayerRecipe, Recipe

    if arguments.format and (arguments.bits is not None or arguments.group is not None):
        raise ValueError("--format names bits and group already: give it, or --bits and --group")
    chosen = {
        name: value
        for name in ("solver", "grid", "transform", "outliers", "rank", "activations", "seed")
        if (value := getattr(arguments, name)) is not None
    }
    fmt = arguments.format
    if chosen.get("grid") in ("hqq", "nupes"):  # solvers of their own, whose codes are the nearest or GPTQ's
        wanted = chosen.pop("grid")
        if chosen.setdefault("solver", wanted) != wanted:
            raise ValueError(f"--grid {wanted} chooses codes as well: leave out --solver {chosen['solver']}")
    if chosen.get("solver") == "nupes" and fmt is None:
        bits, group = arguments.bits or 4, arguments.group or 128
        fmt = f"codebook{2**bits}-tensor" + ("" if str(group) == "channel" else f"-g{group}")
    if fmt is None and (arguments.bits is not None or arguments.group is not None or not arguments.recipe):
        before = parse(Recipe.load(arguments.recipe).layer.format) if arguments.recipe else None
        of_recipe = (before.bits, before.group) if isinstance(before, IntGroup) else (4, 128)
        bits, group = arguments.bits or of_recipe[0], arguments.group or of_recipe[1]
        fmt = f"int{bits}-{group}" if str(group) in ("channel", "tensor") else f"int{bits}-g{group}"
    if fmt is not None:
        chosen["format"] = fmt
    if arguments.recipe:
        found = Recipe.load(arguments.recipe)
        layer = dataclasses.replace(found.layer, **chosen)
    else:
        # Least-squares scales cost nothing and take rounding to nearest half way to the others.
        start = {"solver": "cd"} if arguments.calib else {"solver": "rtn", "grid": "mse"}
        if "solver" in chosen:
            start = {}
        layer = LayerRecipe(**{**start, **chosen})
        found = Recipe(layer=layer)
    numbers = {
        name: value for name in ("samples", "length", "seed") if (value := getattr(arguments, name)) is not None
    }  # fmt: skip
    embeddings = found.embeddings
    if arguments.embeddings:
        embeddings = LayerRecipe(format=arguments.embeddings, solver="rtn", grid="mse")
    if needs_text(layer) and not arguments.calib:
        raise ValueError(f"this recipe needs --calib TEXT: solver {layer.solver!r}, transform {layer.transform!r}")
    return dataclasses.replace(found, layer=layer, embeddings=embeddings, **numbers)


def needs_text(layer: LayerRecipe) -> bool:
    """Whether solvers want to know a layer's inputs, or go on with the whole model."""
    return layer.needs_statistics


def show(made: QuantizedModel) -> None:
    """A table of formats, and what the whole has come to; the layers were told one by one."""
    from rich.console import Console
    from rich.table import Table

    kinds: dict[tuple[str, str], list[LayerResult]] = {}
    for row in made.layers:
        told = f"as {row.tied_to}" if row.tied_to else row.reason
        kinds.setdefault((row.format or "dense", told), []).append(row)
    table = Table()
    for name, side in (("format", "left"), ("matrices", "right"), ("bytes", "right"), ("largest error", "right"),
                       ("why", "left")):  # fmt: skip
        table.add_column(name, justify=side, overflow="fold")  # type: ignore[arg-type]
    for (fmt, told), rows in kinds.items():
        worst = max((row.output_error or row.error for row in rows), default=0.0)
        size = amount(sum(row.bytes for row in rows))
        table.add_row(fmt, str(len(rows)), size, f"{worst:.4f}" if worst else "", told)
    Console().print(table)
    share = made.bytes / made.bytes_before
    print(f"{made.path}: {amount(made.bytes_before)} -> {amount(made.bytes)} ({100 * share:.1f}%), "
          f"{made.bits_per_weight:.3f} bits/weight where quantized")  # fmt: skip
    loss = made.loss
    if loss is not None and loss.cosine is not None:
        print(f"mean cosine {loss.cosine:.5f} to the dense model on {loss.windows} windows that no solver saw")
    elif loss is not None:
        told = f"divergence {loss.kl_mean:.5f} nats a token from the dense model"
        if loss.perplexity is not None and loss.perplexity_dense is not None:
            told += f", perplexity {loss.perplexity:.3f} instead of {loss.perplexity_dense:.3f}"
        print(f"{told}, on {loss.windows} windows that no solver saw")


class _Progress:
    """A line a layer on stderr, with the time that is left."""

    def __init__(self, *, hidden: bool) -> None:
        self._hidden, self._start, self._first = hidden, time.monotonic(), 0

    def __call__(self, row: LayerResult, done: int, total: int) -> None:
        if self._hidden:
            return
        left = (time.monotonic() - self._start) / done * (total - done)
        what = f"{row.format}, error {row.output_error or row.error:.4f}" if row.format else f"dense: {row.reason}"
        if row.tied_to:
            what = f"as {row.tied_to}"
        print(f"[{done}/{total}] {row.name}: {what} ({left:.0f} s left)", file=sys.stderr, flush=True)


def _finite(found: dict[str, Any]) -> dict[str, Any]:
    """`error` of a layer is that of its outputs where it is known."""
    layers = [{**row, "weight_error": row["error"], "error": row["output_error"] or row["error"]}
              for row in found["layers"]]  # fmt: skip
    return {**found, "layers": layers}


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"a share below 100% is needed, as 1%, not {text}")
    return share


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a number is needed, not {text}")
    return int(text)
