"""Learned codecs before and after one import is changed: the same symbols back, and what the coding takes.

    make peers && .venv/bin/python bench/learned_codec.py IMAGE -o bench/results/learned_codec.json

With -o the table in docs/learned_codecs.md is written anew, too.

The models are CompressAI's, with random weights, since none can be downloaded here; spread_model says how their latents
get the spread of trained ones. docs/learned_codecs.md takes its numbers from the committed results.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import math
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "learned_codecs.md"
BEGIN, END = "<!-- numbers:begin -->", "<!-- numbers:end -->"
ROUNDS = 9
MODELS = {"bmshj2018_hyperprior": "ScaleHyperprior", "mbt2018_mean": "MeanScaleHyperprior"}
WIDTH = (128, 192)  # channels of the networks and of the latents: the models' own for their lower qualities
CONTEXT_PIXELS, CONTEXT_CHANNELS = 256, 192

# CompressAI imports these for data sets and point clouds, which no model here touches.
_STAND_INS: dict[str, dict[str, dict[str, Any]]] = {
    "torchvision": {"torchvision": {}, "torchvision.transforms": {}},
    "torch_geometric": {
        "torch_geometric": {},
        "torch_geometric.transforms": {"BaseTransform": object, "Center": object},
        "torch_geometric.data": {"Data": object},
        "torch_geometric.data.datapipes": {"functional_transform": lambda name: lambda transform: transform},
    },
    "pandas": {"pandas": {}},
}


def import_compressai() -> Any:
    """CompressAI, with empty stand-ins for packages of its that are absent and not used here. Raises ImportError."""
    if importlib.util.find_spec("compressai") is None:
        raise ImportError("compressai is not installed")
    for package, modules in _STAND_INS.items():
        if package in sys.modules or importlib.util.find_spec(package):
            continue
        for name, members in modules.items():
            module = sys.modules[name] = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            module.__dict__.update(members)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
    import compressai
    import compressai.models

    return compressai


def import_torchac() -> Any:
    """torchac's module, which is compiled now. Raises whatever its compiler does."""
    import contextlib
    import os

    if importlib.util.find_spec("torchac") is None:
        raise ImportError("torchac is not installed")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where ninja is
    with open(os.devnull, "w") as silent, contextlib.redirect_stdout(silent):
        import torchac.torchac

    return torchac.torchac


def picture(height: int, width: int) -> Any:
    """[1, 3, height, width] floats in 0..1, smooth with some texture: for a test that has no photo."""
    import torch

    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    waves = [torch.sin(9 * x + 4 * y), torch.cos(7 * y * x + 1), torch.sin(40 * x * y) * x]
    return (torch.stack(waves) / 2 + 0.5)[None]


def photo(path: Path) -> Any:
    """[1, 3, height, width] floats in 0..1, cut to multiples of 64."""
    import numpy as np
    import torch
    from PIL import Image

    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    return pixels[..., : pixels.shape[-2] // 64 * 64, : pixels.shape[-1] // 64 * 64]


def _scale_table() -> list[float]:
    return [math.exp(math.log(0.11) + i * (math.log(256) - math.log(0.11)) / 63) for i in range(64)]  # CompressAI's


def spread_model(model_class: Any, x: Any, width: tuple[int, int] = WIDTH) -> Any:
    """A model with weights from seed 0, whose last layers are scaled so that the latents of x have a spread.

    Channel by channel the latents y get mean 0 and standard deviations from 0.2 to 10, evenly in the logarithm, z gets
    2, and the scales that are predicted for y lie around its own deviation, a fifth of it up and down with z;
    predicted means move as much. An untrained model's latents would all be rounded to 0.
    """
    import torch

    torch.manual_seed(0)
    model = model_class(*width).eval()
    deviations = torch.logspace(math.log10(0.2), 1, width[1])
    predictor = getattr(model, "entropy_parameters", model.h_s)
    predicting = [layer for layer in predictor if hasattr(layer, "weight")][-1]
    with torch.no_grad():
        _scale_outputs(model, model.g_a[-1], x, deviations)
        _scale_outputs(model, model.h_a[-1], x, torch.tensor(2.0))
        repeats = predicting.bias.numel() // width[1]  # scales, and means where the model has them
        _scale_outputs(model, predicting, x, deviations.repeat(repeats) / 5)
        predicting.bias[: width[1]] += deviations
        model.entropy_bottleneck.quantiles[..., 0], model.entropy_bottleneck.quantiles[..., 2] = -12, 12
    model.update(scale_table=_scale_table(), force=True)
    return model


def _scale_outputs(model: Any, layer: Any, x: Any, deviations: Any) -> None:
    """Give each output channel of a convolution mean 0 and a standard deviation over what the model makes of x."""
    seen: list[Any] = []
    hook = layer.register_forward_hook(lambda layer, inputs, output: seen.append(output.clone()))  # ReLU works in place
    model(x)
    hook.remove()
    gain = deviations / seen[-1].std((0, 2, 3)).clamp(1e-9)
    layer.weight.mul_(gain[:, None, None, None])
    layer.bias.sub_(seen[-1].mean((0, 2, 3))).mul_(gain)


def packed(compressed: dict[str, Any]) -> dict[str, Any]:
    """What decompress takes of what compress returns."""
    return {name: compressed[name] for name in ("strings", "shape")}


# ---- timing ----------------------------------------------------------------------------------------------------------


class Stopwatch:
    """Seconds inside the entropy models of one model, and those that do the same without a coder."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - begin

        return timed


def coding_seconds(model: Any, x: Any) -> tuple[float, float, list[bytes], Any]:
    """Seconds in EntropyModel.compress and in decompress less those for quantizing, for checks and for dequantizing.

    What is left is coding and whatever the data has to go through for it: lists, in CompressAI's case.
    Returns both, the strings and the image.
    """
    import torch

    coding, other = Stopwatch(), Stopwatch()
    parts = (model.entropy_bottleneck, model.gaussian_conditional)
    for part in parts:
        # EntropyBottleneck's own methods build indexes and medians, then call EntropyModel's
        part.compress, part.decompress = coding.around(part.compress), coding.around(part.decompress)
        for name in ("quantize", "dequantize", "_build_indexes"):
            if hasattr(part, name):
                setattr(part, name, other.around(getattr(part, name)))
    try:
        with torch.no_grad():
            compressed = model.compress(x)
            first = coding.seconds - other.seconds
            image = model.decompress(**packed(compressed))["x_hat"]
    finally:
        for part in parts:
            for name in ("compress", "decompress", "quantize", "dequantize", "_build_indexes"):
                part.__dict__.pop(name, None)
    strings = [string for group in compressed["strings"] for string in group]
    return first, coding.seconds - other.seconds - first, strings, image


def medians(rounds: int, functions: Sequence[Callable[[], Any]]) -> list[float]:
    """Seconds of each function, median over rounds in which each runs once."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, seconds, strict=True):
            begin = time.perf_counter()
            function()
            taken.append(time.perf_counter() - begin)
    return [statistics.median(taken) for taken in seconds]


def row(case: str, theirs: Sequence[float], ours: Sequence[float], **more: Any) -> dict[str, Any]:
    """One line of the table. theirs, ours: seconds to encode and to decode."""
    return {
        "case": case,
        "theirs_encode_ms": 1e3 * theirs[0],
        "theirs_decode_ms": 1e3 * theirs[1],
        "ours_encode_ms": 1e3 * ours[0],
        "ours_decode_ms": 1e3 * ours[1],
        "times": sum(theirs) / sum(ours),
        **more,
    }


def measure_model(name: str, x: Any) -> tuple[list[dict[str, Any]], Any]:
    """A model as it is used, then its coder alone on the latents y: with lists that are ready, with tensors."""
    import compressai.models
    import torch

    from tersor.compat import compressai_ans

    model_class = getattr(compressai.models, MODELS[name])
    theirs = spread_model(model_class, x)
    with compressai_ans.installed():
        ours = spread_model(model_class, x)
        found = []
        for _ in range(ROUNDS):
            found.append((coding_seconds(theirs, x), coding_seconds(ours, x)))
    a, b = found[-1]
    if not torch.equal(a[3], b[3]):
        raise AssertionError(f"{name}: the images differ")
    seconds = [[statistics.median(pair[side][k] for pair in found) for k in (0, 1)] for side in (0, 1)]
    sizes = {"theirs_bytes": sum(map(len, a[2])), "ours_bytes": sum(map(len, b[2]))}
    rows = [row(f"{name}, as used", *seconds, **sizes)]

    conditional = theirs.gaussian_conditional
    symbols, indexes = latents(theirs, x)
    tensors = (conditional.quantized_cdf, conditional.cdf_length, conditional.offset)
    facts = {"symbols": symbols.numel(), "escapes": escapes(symbols, indexes, *tensors)}
    rows += measure_coder(f"{name}, y alone", symbols, indexes, tensors, facts)
    return rows, (symbols, indexes, tensors)


def latents(model: Any, x: Any) -> tuple[Any, Any]:
    """Symbols and indexes of y as the model hands them to its coder: [n] int32 each."""
    seen: list[Any] = []
    conditional = model.gaussian_conditional
    kept = conditional.compress
    conditional.compress = lambda y, indexes, means=None: (
        seen.append((conditional.quantize(y, "symbols", means), indexes)) or kept(y, indexes, means)
    )
    try:
        model.compress(x)
    finally:
        del conditional.compress
    return seen[0][0].reshape(-1), seen[0][1].reshape(-1).int()


def escapes(symbols: Any, indexes: Any, cdfs: Any, sizes: Any, offsets: Any) -> int:
    at = indexes.long()
    distance = symbols - offsets[at]
    return int(((distance < 0) | (distance >= sizes[at] - 2)).sum())


def measure_coder(case: str, symbols: Any, indexes: Any, tensors: Any, facts: dict[str, Any]) -> list[dict[str, Any]]:
    theirs = sys.modules["compressai.ans"]
    from tersor.compat import compressai_ans as ours

    lists = tuple(tensor.tolist() for tensor in tensors)
    values, at = symbols.tolist(), indexes.tolist()
    string = theirs.RansEncoder().encode_with_indexes(values, at, *lists)
    stream = ours.RansEncoder().encode_with_indexes(values, at, *lists)
    their_decoder, encoder, decoder = theirs.RansDecoder(), ours.RansEncoder(), ours.RansDecoder()
    back = decoder.decode_with_indexes(stream, at, *lists)
    if not back == values == their_decoder.decode_with_indexes(string, at, *lists):
        raise AssertionError(f"{case}: other symbols came back")
    seconds = medians(
        ROUNDS,
        [
            lambda: theirs.RansEncoder().encode_with_indexes(values, at, *lists),
            lambda: their_decoder.decode_with_indexes(string, at, *lists),
            lambda: encoder.encode_with_indexes(values, at, *lists),
            lambda: decoder.decode_with_indexes(stream, at, *lists),
            lambda: encoder.encode_with_indexes(symbols, indexes, *tensors),
            lambda: decoder.decode_with_indexes(stream, indexes, *tensors),
        ],
    )
    sizes = {"theirs_bytes": len(string), "ours_bytes": len(stream), **facts}
    return [
        row(f"{case}, lists that are ready", seconds[:2], seconds[2:4], **sizes),
        row(f"{case}, lists that are ready / tensors", seconds[:2], seconds[4:], **sizes),
    ]


def measure_context(symbols: Any, indexes: Any, tensors: Any) -> list[dict[str, Any]]:
    """What a context model asks for: one buffered call for all, then decode_stream for each pixel's channels."""
    theirs = sys.modules["compressai.ans"]
    from tersor.compat import compressai_ans as ours

    count = CONTEXT_PIXELS * CONTEXT_CHANNELS
    lists = tuple(tensor.tolist() for tensor in tensors)

    def encode(module: Any, values: Any, at: Any, tables: Any) -> bytes:
        encoder = module.BufferedRansEncoder()
        encoder.encode_with_indexes(values, at, *tables)
        return encoder.flush()

    def decode(module: Any, stream: bytes, at: Sequence[Any], tables: Any) -> list[Any]:
        decoder = module.RansDecoder()
        decoder.set_stream(stream)
        return [decoder.decode_stream(pixel, *tables) for pixel in at]

    values, at = symbols[:count].tolist(), indexes[:count].tolist()
    pixels = [at[i : i + CONTEXT_CHANNELS] for i in range(0, count, CONTEXT_CHANNELS)]
    parts = list(indexes[:count].split(CONTEXT_CHANNELS))
    string, stream = encode(theirs, values, at, lists), encode(ours, values, at, lists)
    if not decode(ours, stream, pixels, lists) == decode(theirs, string, pixels, lists):
        raise AssertionError("context model: other symbols came back")
    seconds = medians(
        3,
        [
            lambda: encode(theirs, values, at, lists),
            lambda: decode(theirs, string, pixels, lists),
            lambda: encode(ours, values, at, lists),
            lambda: decode(ours, stream, pixels, lists),
            lambda: encode(ours, symbols[:count], indexes[:count], tensors),
            lambda: decode(ours, stream, parts, tensors),
        ],
    )
    sizes = {"theirs_bytes": len(string), "ours_bytes": len(stream), "symbols": count}
    case = f"context model, {CONTEXT_PIXELS} calls of decode_stream, {CONTEXT_CHANNELS} symbols each"
    return [
        row(f"{case}, lists", seconds[:2], seconds[2:4], **sizes),
        row(f"{case}, lists / tensors", seconds[:2], seconds[4:], **sizes),
    ]


def measure_torchac(symbols: int, length: int) -> dict[str, Any]:
    """Integer cdfs of `length` values, one for each symbol, and the floats that torchac makes them of."""
    import torch

    from tersor.compat import torchac as ours

    theirs = import_torchac()
    generator = torch.Generator().manual_seed(0)
    mass = torch.rand(symbols, length - 1, generator=generator) ** 4 + 1e-6
    cdf = torch.cat([torch.zeros(symbols, 1), (mass / mass.sum(-1, keepdim=True)).cumsum(-1)], -1).clamp(0, 1)
    values = (cdf[:, 1:-1] <= torch.rand(symbols, 1, generator=generator)).sum(-1).to(torch.int16)
    slots = theirs._convert_to_int_and_normalize(cdf, True)
    if not torch.equal(slots, ours._to_slots(cdf, True)):
        raise AssertionError("torchac: other slots")
    string = theirs.encode_int16_normalized_cdf(slots, values)
    stream = ours.encode_int16_normalized_cdf(slots, values)
    back = ours.decode_int16_normalized_cdf(slots, stream)
    if not (torch.equal(back, values) and torch.equal(theirs.decode_int16_normalized_cdf(slots, string), values)):
        raise AssertionError("torchac: other symbols came back")
    seconds = medians(
        ROUNDS,
        [
            lambda: theirs.encode_int16_normalized_cdf(slots, values),
            lambda: theirs.decode_int16_normalized_cdf(slots, string),
            lambda: ours.encode_int16_normalized_cdf(slots, values),
            lambda: ours.decode_int16_normalized_cdf(slots, stream),
        ],
    )
    sizes = {"theirs_bytes": len(string), "ours_bytes": len(stream), "symbols": symbols}
    return row(f"torchac, {symbols} symbols, {length - 1} values each", seconds[:2], seconds[2:], **sizes)


def page(text: str, result: dict[str, Any]) -> str:
    """docs/learned_codecs.md with this table between its marks."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{table(result)}\n{END}{rest.split(END)[1]}"


def table(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    machine, peers = result["machine"], result["machine"]["peers"]
    lines = [
        "| case | theirs: encode + decode ms | bytes | ours: encode + decode ms | bytes | times |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for line in result["rows"]:
        cells = [
            line["case"],
            f"{line['theirs_encode_ms']:.2f} + {line['theirs_decode_ms']:.2f}",
            f"{line['theirs_bytes']}",
            f"{line['ours_encode_ms']:.2f} + {line['ours_decode_ms']:.2f}",
            f"{line['ours_bytes']}",
            f"{line['times']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    escaped = {line["case"].split(",")[0]: line["escapes"] for line in result["rows"] if "escapes" in line}
    symbols = next(line["symbols"] for line in result["rows"] if "escapes" in line)
    lines += [
        "",
        f"{result['image']}, {result['shape'][3]} x {result['shape'][2]}, {symbols} symbols of y, of which escape "
        + ", ".join(f"{count} ({name})" for name, count in escaped.items())
        + f"; CompressAI {peers['compressai']}, torchac {peers.get('torchac', 'absent')}, torch {peers['torch']}; "
        f"{machine['cpu']}, Python {machine['python']}, one thread, medians of {result['rounds']} interleaved rounds.",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("image", nargs="?", type=Path, help="a photo; without it a drawn picture of 512 x 768 pixels")
    parser.add_argument("-o", "--output", type=Path, help="where the results go, as JSON")
    options = parser.parse_args()
    import_compressai()
    import torch

    import tersor
    from tersor.bench.machine import facts

    torch.set_num_threads(1)
    tersor.set_num_threads(1)
    x = photo(options.image) if options.image else picture(512, 768)
    rows = []
    for name in MODELS:
        found, coder = measure_model(name, x)
        rows += found
    rows += measure_context(*coder)
    skipped = []
    try:
        rows += [measure_torchac(200_000, length) for length in (26, 257)]
    except Exception as error:  # it compiles at import
        skipped.append(f"torchac: {error!r:.200}")
    machine = facts()
    machine["peers"] |= {name: importlib.metadata.version(name) for name in ("compressai", "torchac") if _has(name)}
    image = options.image.name if options.image else "drawn"
    result = {"bench": "learned_codec", "image": image, "shape": list(x.shape), "rounds": ROUNDS, "threads": 1}
    result |= {"rows": rows, "skipped": skipped, "machine": machine}
    print(table(result))
    print(*skipped, sep="\n")
    if options.output:
        PAGE.write_text(page(PAGE.read_text(), result))
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


if __name__ == "__main__":
    sys.exit(main())
