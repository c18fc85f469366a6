"""kill -9 of what a Dask cluster is made of: a worker, the scheduler. They are processes of their own, as on several hosts."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fewshot.errors import FewshotError
from fewshot.runs import ROOT

from .grid import judged, whole
from .kills import EXPECTED, FORK, await_, moment, shared, started

QUIET = ["--no-dashboard", "--host", "127.0.0.1"]


@contextmanager
def cluster(folder: Path, workers: int = 2) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """(address, [scheduler, worker, ...]); workers without a nanny, so that nobody starts them again."""
    file = folder / "scheduler.json"
    processes = [_started("scheduler", "--scheduler-file", str(file), "--port", "0")]
    try:
        alone = ["--scheduler-file", str(file), "--no-nanny", "--nthreads", "1", "--local-directory", str(folder)]
        processes += [_started("worker", *alone) for _ in range(workers)]
        while not file.exists() or not file.read_text().endswith("}"):
            time.sleep(0.01)
        yield json.loads(file.read_text())["address"], processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _started(what: str, *options: str) -> subprocess.Popen:
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # workers import this very module
    return subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{what}", *QUIET, *options],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def worker(folder: Path, rng: random.Random) -> dict:
    """One of two workers is killed: the other one does its run again and goes on, to the end."""
    return _struck(folder, rng, 1 + rng.randrange(2))


def scheduler(folder: Path, rng: random.Random) -> dict:
    """The scheduler is killed: the grid says so, and is resumed here."""
    return _struck(folder, rng, 0)


def _struck(folder: Path, rng: random.Random, victim: int) -> dict:
    path, when = folder / "r.jsonl", moment(rng)
    with cluster(folder) as (address, processes):
        answers = FORK.SimpleQueue()
        process = started(_say, answers, path, address)
        await_(path, **when)
        struck = processes[victim].poll() is None and process.is_alive()
        os.kill(processes[victim].pid, signal.SIGKILL)
        before = whole(path)
        said = answers.get()
        process.join()
    shared(path)
    return when | {"struck": struck, "said": said} | judged(path, before, EXPECTED)


def _say(answers, path: Path, address: str) -> None:
    from distributed import Client

    try:
        shared(path, executor=Client(address).get_executor())
    except FewshotError as error:
        answers.put(str(error).replace(f"{path.parent}{os.sep}", "").replace(address, "tcp://..."))
    else:
        answers.put("")
