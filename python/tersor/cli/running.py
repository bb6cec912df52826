"""`tersor run`: text from a language model as it comes, how fast it came, and what memory it took."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from tersor.cli.text import amount

_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `tersor run` takes beside --json, -q and -T."""
    command.add_argument("model", metavar="MODEL", help="a folder of transformers, its weights .safetensors or .tsr")
    command.add_argument("-p", "--prompt", metavar="TEXT", required=True, help="what to go on with, or to answer")
    command.add_argument("-n", "--tokens", type=int, default=128, metavar="N", help="at most so many (default: 128)")
    command.add_argument("--temperature", type=float, metavar="T", help="draw tokens (default: 0, the likeliest)")
    command.add_argument("--top-p", type=float, metavar="P", help="among the likeliest of so much probability")
    command.add_argument("--seed", type=int, default=0, metavar="S", help="of what is drawn (default: 0)")
    command.add_argument("--dtype", choices=_DTYPES, help="what to compute in (default: as the weights are stored)")
    command.add_argument(
        "--raw", action="store_true", help="take the prompt as it is where the model has a chat template"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the text. Raises what the files, the model and generate_text raise."""
    from tersor.nn.generation import generate_text, weight_bytes
    from tersor.transformers import load_with_tokenizer

    if arguments.top_p is not None and not arguments.temperature:
        raise ValueError("--top-p says what is drawn, and nothing is: a --temperature above 0 is needed")
    from transformers.utils import logging  # behind ours, which say what is missing

    logging.disable_progress_bar()  # loading is short, and its bar would stand among the text
    model, tokenizer = load_with_tokenizer(arguments.model, _DTYPES.get(arguments.dtype, "auto"))

    def write(piece: str) -> None:
        print(piece, end="", flush=True)

    try:
        made = generate_text(
            model, tokenizer, arguments.prompt, tokens=arguments.tokens, temperature=arguments.temperature or 0.0,
            top_p=1.0 if arguments.top_p is None else arguments.top_p, seed=arguments.seed, raw=arguments.raw,
            threads=arguments.threads, write=None if arguments.json else write,
        )  # fmt: skip
    except KeyboardInterrupt:
        if not arguments.json:
            print(flush=True)  # the line ends, too
        raise
    weights, resident = weight_bytes(model), _resident()
    if arguments.json:
        found = {
            "text": made.text,
            "tokens": made.tokens,
            "prompt_tokens": made.prompt_tokens,
            "prompt_tokens_per_second": made.prompt_tokens_per_second,
            "tokens_per_second": made.tokens_per_second,
            "weight_bytes": weights,
            "resident_bytes": resident,
        }
        print(json.dumps(found))
        return 0
    print(flush=True)
    if not arguments.quiet:
        speed = "" if made.tokens_per_second is None else f" at {made.tokens_per_second:.1f} tokens/s"
        read = f"{made.prompt_tokens} tokens read at {made.prompt_tokens_per_second:.1f} tokens/s"
        memory = f"weights {amount(weights)}, resident {resident / 2**20:.0f} MiB"
        print(f"{read}, {made.tokens} made{speed}; {memory}", file=sys.stderr)
    return 0


def _resident() -> int:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
