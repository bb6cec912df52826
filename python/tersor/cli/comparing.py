"""`tersor eval --compare`: what several models lost against the bytes that they take, as a table and as a page."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tersor.cli import scoring
from tersor.cli.scoring import with_error
from tersor.cli.text import amount, printable

if TYPE_CHECKING:
    from tersor.bench.plot import Point
    from tersor.evaluate.encoder import EncoderScore
    from tersor.evaluate.language import LanguageScore

Row = dict[str, Any]


class _Loss(NamedTuple):
    """What is plotted: its name there and in words. rounding: on a logarithmic axis, what is less is float32's and has
    its place with zero; None for an even axis."""

    label: str
    about: str
    rounding: float | None


_LOSSES = {
    "kl_mean": _Loss("divergence in nats a token", "the mean divergence from the reference", 1e-9),
    "log_perplexity": _Loss("log perplexity in nats a token", "the log perplexity", None),
    "cosine_distance": _Loss("1 - cosine", "1 - the mean cosine to the reference's embedding", 1e-7),
}


def run(arguments: argparse.Namespace) -> int:
    """Score every model, print, write the page. Raises what the files, the models and the scores raise."""
    facts = scoring.facts_of(arguments.compare, arguments.reference)
    if facts[0].is_causal:
        losses = language_losses(list(scoring.language_scores(arguments.compare, arguments)))
    else:
        losses = encoder_losses(list(scoring.encoder_scores(arguments.compare, arguments)))
    rows = [
        {
            "model": folder,
            "name": name,
            "architecture": one.architecture,
            "bytes": one.nbytes,
            "weights": one.weights,
            "bits_per_weight": one.bits_per_weight,
            **row,
        }
        for folder, name, one, row in zip(arguments.compare, short(arguments.compare), facts, losses, strict=True)
    ]
    for row, best in zip(rows, on_front([(row["bytes"], row["loss"]) for row in rows]), strict=True):
        row["on_front"] = best
    result = {
        "kind": scoring.kind_of(facts[0]),
        "text": arguments.text,
        "reference": arguments.reference,
        "models": rows,
    }
    if arguments.output:
        output = Path(arguments.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page(result), encoding="utf-8")
    if arguments.json:
        print(json.dumps(result | {"models": [scoring.finite(row) for row in rows]}))
    else:
        show(result)
    return 0


def language_losses(scores: Sequence[LanguageScore]) -> list[Row]:
    """Each score's numbers and its loss: the divergence where there is a reference, else the log perplexity, whose
    standard error is then that of its difference to the first's."""
    from tersor.evaluate.language import paired_difference

    rows = []
    for score in scores:
        row = scoring.numbers_of(score)
        if score.kl_mean is not None:
            row |= {"measure": "kl_mean", "loss": score.kl_mean, "loss_se": score.kl_se}
        else:
            apart, error = (0.0, None) if score is scores[0] else paired_difference(score, scores[0])
            row |= {"measure": "log_perplexity", "loss": score.loss, "loss_difference": apart, "loss_se": error}
        rows.append(row)
    return rows


def encoder_losses(scores: Sequence[EncoderScore]) -> list[Row]:
    """Each score's numbers and its loss, 1 - cosine; rounding may have put the cosine beyond 1."""
    return [
        scoring.numbers_of(score)
        | {"measure": "cosine_distance", "loss": max(1 - score.cosine_mean, 0.0), "loss_se": score.cosine_se}
        for score in scores
    ]


def short(folders: Sequence[str]) -> list[str]:
    """What a plot has room for: the last parts of the folders' paths, where these differ."""
    names = [os.path.basename(os.path.abspath(folder)) for folder in folders]
    return names if len(set(names)) == len(names) else list(folders)


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """points: (bytes, loss) pairs. True where no other is as good in both and better in one: Pareto's front."""
    return [not any(x <= size and y <= loss and (x, y) != (size, loss) for x, y in points) for size, loss in points]


def show(result: dict[str, Any]) -> None:
    """Print the table on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    head, cells = _table(result)
    table = Table()
    for i, name in enumerate(head):
        table.add_column(Text(name), justify="right" if i else "left", overflow="fold")
    for row, line in zip(result["models"], cells, strict=True):
        table.add_row(*map(Text, line), style="bold" if row["on_front"] else None)
    console.print(table)
    console.print(Text(_about(result)))


def page(result: dict[str, Any]) -> str:
    """The same as HTML, with plots of the loss against bytes and against bits a weight."""
    import tersor
    from tersor.bench import page, plot

    rows, loss = result["models"], _LOSSES[result["models"][0]["measure"]]
    pairs = [
        (plot.Axis(label="MB on disk"), "Loss against bytes", _points(rows, lambda row: row["bytes"] / 1e6)),
        (plot.Axis(label="bits/weight"), "Loss against bits", _points(rows, lambda row: row["bits_per_weight"])),
    ]
    head, cells = _table(result)
    front = [row["on_front"] for row in rows]
    facts = {"text": result["text"], "reference": result["reference"] or "none", "tersor": tersor.__version__}
    lead = f"Each a {result['kind']} in float32, whatever it is stored in. Better is down and to the left."
    return page.document(
        "tersor eval",
        lead,
        [
            plot.plots(pairs, plot.Axis(label=loss.label, logarithmic=loss.rounding is not None), joined=True),
            page.table(head, [[cell.replace("+-", "±") for cell in line] for line in cells], front),
            page.paragraph(
                _about(result).replace("+-", "±") + " An error bar that is not seen is shorter than its mark."
            ),
            page.facts((name, printable(fact)) for name, fact in facts.items()),
        ],
    )


def _points(rows: Sequence[Row], place: Callable[[Row], float]) -> list[Point]:
    """Of those that have a loss to show."""
    from tersor.bench.plot import Point

    points = []
    for row in rows:
        rounding = _LOSSES[row["measure"]].rounding
        seen = rounding is None or row["loss"] > rounding
        loss, error = (row["loss"], row["loss_se"]) if seen else (0.0, None)
        if math.isfinite(loss):
            points.append(Point(name=printable(row["name"]), x=place(row), y=loss, marked=row["on_front"], error=error))
    return points


def _table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of text."""
    lines = [_cells(row) for row in result["models"]]
    return list(lines[0]), [list(line.values()) for line in lines]


def _cells(row: Row) -> dict[str, str]:
    cells = {
        "model": printable(row["name"]),
        "size": amount(row["bytes"]),
        "bits/weight": f"{row['bits_per_weight']:.3f}",
    }
    if row["measure"] == "cosine_distance":
        cells |= {
            "cosine": with_error(row["cosine_mean"], row.get("cosine_se"), 7),
            "1 %": f"{row['cosine_p01']:.6f}",
            "least": f"{row['cosine_min']:.6f}",
            "rank correlation": with_error(row.get("rank_correlation"), None, 6),
        }
    else:
        cells["perplexity"] = with_error(row["perplexity"], row.get("perplexity_se"), 3)
    if row["measure"] == "log_perplexity":
        cells["nats over the first's"] = with_error(row["loss_difference"], row["loss_se"], 5)
    if row["measure"] == "kl_mean":
        cells |= {
            "times the reference's": with_error(row["perplexity_ratio"], row.get("perplexity_ratio_se"), 5),
            "divergence": with_error(row["kl_mean"], row.get("kl_se"), 6),
            "median": f"{row['kl_median']:.6f}",
            "99.9 %": f"{row['kl_p999']:.4f}",
            "same token": f"{100 * row['same_top1']:.2f} %",
        }
    return cells | {"front": "*" if row["on_front"] else ""}


def _about(result: dict[str, Any]) -> str:
    row = result["models"][0]
    if row["measure"] == "cosine_distance":
        over, errors = f"{row['sentences']:,} sentences", "standard errors over sentences"
    else:
        over = f"{row['tokens']:,} tokens in {row['windows']} windows"
        other = "reference's" if row["measure"] == "kl_mean" else "first's"
        errors = f"standard errors over windows; of what is beside the {other}, paired with it"
    loss = _LOSSES[row["measure"]].about
    return f"{over}. Loss: {loss}. +-: {errors}. Front (*): no other is smaller and as good, or better and as small."
