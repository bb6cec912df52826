"""The arguments of `tersor bench` and the run behind them. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tersor.bench.gemm import points as gemm_points

CODERS = ("entropy", "lossless", "difference", "indexed")
SUITES = (*CODERS, "gemm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that `run` reads."""
    parser.add_argument("suite", choices=SUITES, help="what is measured")
    parser.add_argument("--peers", action="store_true", help="measure other coders beside ours, those installed")
    parser.add_argument(
        "--quick", action="store_true", help="small inputs and few rounds: shows that it works, not how fast"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the JSON object to FILE")
    parser.add_argument(
        "--html", metavar="FILE", help="write tables and plots to FILE, one page that needs nothing else"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds to take the median over")
    parser.add_argument("--case", action="append", metavar="NAME", help="only this case (may be repeated)")
    parser.add_argument("--impl", action="append", metavar="TEXT", help="only coders with TEXT in their name")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        default=os.environ.get("TERSOR_DATA"),
        help="lossless: every .safetensors file in FOLDER is a case too; difference: those with a base in FOLDER",
    )
    gemm_points.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write. Returns 0, or 1 when nothing could be measured or a coder gave wrong bytes."""
    from tersor.bench import machine, published, table
    from tersor.bench.gemm import table as gemm_table

    if arguments.rounds is not None and arguments.rounds < 1:
        print(f"tersor bench: --rounds takes a number above 0, not {arguments.rounds}", file=sys.stderr)
        return 2
    is_gemm = arguments.suite == "gemm"
    if is_gemm and arguments.html:
        print("tersor bench: gemm has no page: --json or -o FILE", file=sys.stderr)
        return 2
    measured = _gemm(arguments) if is_gemm else _coders(arguments)
    if measured is None:
        return 1
    result: dict[str, Any] = {
        "bench": arguments.suite,
        "quick": arguments.quick,
        "machine": machine.facts(),
        **measured,
        "published": published.FACTS.get(arguments.suite, []) if arguments.peers else [],
    }
    text = json.dumps(result, indent=1, sort_keys=False) + "\n"
    if arguments.output:
        output = Path(arguments.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)
    if arguments.html:
        from tersor.bench import page

        picture = Path(arguments.html)
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text(page.bench_page(result), encoding="utf-8")
    if arguments.json:
        sys.stdout.write(text)
    (gemm_table if is_gemm else table).show(result, file=sys.stderr if arguments.json else sys.stdout)
    return 0


def _coders(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Rows of a suite of coders, and why others are skipped. None: no case is left, or a coder gave wrong bytes."""
    from tersor.bench import harness

    plan, skipped = _plan(arguments)
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    if not plan:
        print("tersor bench: no case is left to measure", file=sys.stderr)
        return None
    rows: list[harness.Row] = []
    for case, codecs, rounds in plan:
        print(
            f"measuring {case.name}: {case.about}; {len(codecs)} coders, {rounds} rounds", file=sys.stderr, flush=True
        )
        try:
            rows += harness.measure(case, codecs, rounds=rounds)
        except harness.WrongBytesError as error:
            print(f"tersor bench: {case.name}: {error}", file=sys.stderr)
            return None
    return {"rows": rows, "skipped": skipped}


def _gemm(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """What `suite.measure` gives; None where it gives nothing."""
    from tersor.bench import harness
    from tersor.bench.gemm import suite

    try:
        measured = suite.measure(arguments)
    except (harness.AbsentError, harness.WrongBytesError, ValueError) as error:
        print(f"tersor bench: gemm: {error}", file=sys.stderr)
        return None
    if not measured["rows"] and not measured["extras"]:
        print("tersor bench: no case is left to measure", file=sys.stderr)
        return None
    print(suite.summary(measured), file=sys.stderr)
    return measured


def _plan(arguments: argparse.Namespace) -> tuple[list[Any], dict[str, str]]:
    from tersor.bench import difference, entropy, indexed, lossless

    suites: dict[str, Any] = {"entropy": entropy, "lossless": lossless, "difference": difference, "indexed": indexed}
    selection: tuple[list[Any], dict[str, str]] = suites[arguments.suite].plan(
        peers=arguments.peers,
        quick=arguments.quick,
        rounds=arguments.rounds,
        cases=arguments.case,
        impls=arguments.impl,
        data=arguments.data,
    )
    return selection


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m tersor.bench`: parse and run."""
    parser = argparse.ArgumentParser(prog="tersor bench", description="Measure tersor beside its peers.")
    add_arguments(parser)
    return run(parser.parse_args(arguments))
