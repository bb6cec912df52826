"""Tasks of EleutherAI's lm-eval, run on a model that is loaded already."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["score_tasks", "tasks_table"]

_BATCH = 8


def score_tasks(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    include_path: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    threads: int = 0,
) -> dict[str, Any]:
    """What lm_eval.simple_evaluate finds, without its samples.

    model, tokenizer: a causal language model of transformers and its own. tasks: names that lm-eval knows, or that the
    YAML files under include_path give. limit: at most so many documents of a task, the first. threads: of torch, from
    here on; 0 leaves them as they are.
    Returns lm-eval's object: "results" has a mapping a task, from "metric,filter" to its value.
    Raises ImportError (no lm-eval; says how it is installed), FileNotFoundError (no include_path), ValueError (a task
    that is not known; a limit below 1), and what a task's data set raises.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is 1 or more, not {limit}")
    if include_path is not None and not os.path.isdir(include_path):
        raise FileNotFoundError(f"{include_path}: a folder with tasks is needed")
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ImportError(f"tasks need lm-eval: pip install 'tersor[lm-eval]' ({error})") from error
    import torch

    if threads:
        torch.set_num_threads(threads)
    manager = TaskManager(include_path=None if include_path is None else os.fspath(include_path))
    known = set(manager.all_tasks)
    if unknown := [task for task in tasks if task not in known]:
        beside = "" if include_path is None else f", with what lies under {include_path},"
        raise ValueError(f"lm-eval{beside} knows no task {', '.join(unknown)}")
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_BATCH),
        tasks=list(tasks),
        task_manager=manager,
        limit=limit,
        log_samples=False,
    )
    return found


def tasks_table(found: dict[str, Any]) -> str:
    """What score_tasks returns, as lm-eval shows it."""
    from lm_eval.utils import make_table

    table: str = make_table(found)
    return table
