"""Runs on several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor

from fewshot.errors import FewshotError
from fewshot.grids import complete
from fewshot.runs import Run, run


def on_workers(
    runs: list[Run],
    rows: str | os.PathLike,
    workers: int = 0,
    stored: Iterable[str | os.PathLike] = (),
    run_one: Callable[[Run], dict] = run,
):
    """The rows of `runs`: what neither `rows` nor the files `stored` hold is run, here (0 workers) or on so many processes.

    Raises FewshotError for a negative number of workers, and what `fewshot.grids.complete` raises.
    """
    check_workers(workers)
    if not workers:
        return complete(runs, rows, stored, run_one=run_one)
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, context, start, (workers,)) as executor:
        return complete(runs, rows, stored, executor, run_one=run_one)


def check_workers(workers: int) -> None:
    """FewshotError for a negative number."""
    if workers < 0:
        raise FewshotError("--workers must be 0 or more.")


def start(workers: int) -> None:
    """In each process: finish and store the run under way after Ctrl-C, and share the cores."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
