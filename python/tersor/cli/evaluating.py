"""`tersor eval`: how well a model does on a text or on tasks, and what it lost beside the one it was made from."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from tersor.cli import scoring

if TYPE_CHECKING:
    from tersor.evaluate.encoder import EncoderScore
    from tersor.evaluate.language import LanguageScore


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `tersor eval` takes beside --json."""
    folder = "a folder of transformers, its weights .safetensors or .tsr"
    command.add_argument("model", metavar="MODEL", nargs="?", help=folder)
    command.add_argument("--compare", metavar="M", nargs="+", help="several in place of MODEL: one table of them all")
    command.add_argument(
        "--text", metavar="F", help="a UTF-8 text that the model has not seen; for encoders a line a sentence"
    )
    command.add_argument("--reference", metavar="REF", help="the model that it was made from, to measure what was lost")
    command.add_argument("--tasks", type=_names, metavar="T1,T2", help="tasks of lm-eval in place of a text")
    command.add_argument("--include-path", metavar="DIR", help="a folder with tasks of your own, as lm-eval reads them")
    length = "tokens a window, or at most of a sentence (default: 512)"
    command.add_argument("--length", type=_count, default=512, metavar="N", help=length)
    limit = "only the first N windows, sentences or documents of a task (default: all)"
    command.add_argument("--limit", type=_count, metavar="N", help=limit)
    command.add_argument("-o", dest="output", metavar="F.html", help="with --compare: a page with the table and a plot")


def run(arguments: argparse.Namespace) -> int:
    """Print the score. Raises ValueError (arguments that do not fit), and what the files, models and scores raise."""
    if reason := _misuse(arguments):
        raise ValueError(reason)
    if arguments.compare:
        from tersor.cli import comparing

        return comparing.run(arguments)
    return _tasks(arguments) if arguments.tasks else _text(arguments)


def _misuse(arguments: argparse.Namespace) -> str | None:
    """Why the arguments do not fit together."""
    if (arguments.model is None) == (arguments.compare is None):
        return "one MODEL is needed, or several behind --compare"
    if (arguments.text is None) == (arguments.tasks is None):
        return "one of --text and --tasks is needed"
    if arguments.tasks and (arguments.compare or arguments.reference):
        return "--tasks measures one MODEL alone: leave out --compare and --reference"
    if arguments.include_path and not arguments.tasks:
        return "--include-path goes with --tasks"
    if arguments.output and not arguments.compare:
        return "-o goes with --compare"
    return None


def _text(arguments: argparse.Namespace) -> int:
    (facts,) = scoring.facts_of([arguments.model], arguments.reference)
    score: LanguageScore | EncoderScore
    if facts.is_causal:
        (score,) = scoring.language_scores([arguments.model], arguments)
        sentences = _of_language(score)
    else:
        (score,) = scoring.encoder_scores([arguments.model], arguments)
        sentences = _of_encoder(score)
    kind = scoring.kind_of(facts)
    if arguments.json:
        found = {"kind": kind, "architecture": facts.architecture, **scoring.numbers_of(score)}
        print(json.dumps(scoring.finite(found)))
    else:
        print("\n".join((f"{kind}, {facts.architecture}", *sentences)))
    return 0


def _tasks(arguments: argparse.Namespace) -> int:
    from tersor.evaluate.tasks import score_tasks, tasks_table
    from tersor.transformers import load_for_evaluation, model_facts

    facts = model_facts(arguments.model)
    if not facts.is_causal:
        kind = f"{scoring.kind_of(facts)} ({facts.architecture})"
        raise ValueError(f"{arguments.model} is an {kind}: tasks need a {scoring.LANGUAGE}")
    found = score_tasks(
        *load_for_evaluation(arguments.model), arguments.tasks, include_path=arguments.include_path,
        limit=arguments.limit, threads=arguments.threads,
    )  # fmt: skip
    kept = ("results", "groups", "versions", "n-shot", "n-samples", "higher_is_better", "lm_eval_version")
    print(json.dumps({name: found[name] for name in kept if name in found}) if arguments.json else tasks_table(found))
    return 0


def _of_language(score: LanguageScore) -> list[str]:
    shown = scoring.with_error(score.perplexity, score.perplexity_se, 4)
    lines = [f"perplexity {shown} ({score.tokens:,} tokens, {score.windows} windows)"]
    if score.kl_mean is not None:
        lines += [
            f"times the reference's {scoring.with_error(score.perplexity_ratio, score.perplexity_ratio_se, 5)}",
            f"divergence {scoring.with_error(score.kl_mean, score.kl_se, 6)} nats a token, "
            f"median {score.kl_median:.6f}, 99.9 % {score.kl_p999:.6f}",
            f"same likeliest token {100 * (score.same_top1 or 0):.2f} %",
        ]
    return lines


def _of_encoder(score: EncoderScore) -> list[str]:
    ranked = "none" if score.rank_correlation is None else f"{score.rank_correlation:.6f}"
    return [
        f"cosine to the reference's {scoring.with_error(score.cosine_mean, score.cosine_se, 7)}, 1 % below "
        f"{score.cosine_p01:.6f}, least {score.cosine_min:.6f} ({score.sentences:,} sentences)",
        f"rank correlation of the similarities of pairs {ranked}",
    ]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 on is needed, not {text}")
    return int(text)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"names parted by commas are needed, not {text!r}")
    return names
