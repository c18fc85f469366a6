"""A run with a fresh process for itself: what it costs when nothing else is going on and nothing was there before.

For the study of training time (fewshot/studies/training_time.py); everything else shares processes and caches.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from fewshot.methods import get_method
from fewshot.methods.method import Method
from fewshot.runs import Run, _fit, run
from fewshot.workers import end_with_parent

THREADS = 1  # of a run; pictures are read by one more
WARM = 64  # test pictures of the zero-shot run before the clock


def run_alone(one: Run) -> dict:
    """The row of a run that had a fresh process for itself, with THREADS thread; a second one on this machine waits.

    Before the clock: libraries, weights and pictures are loaded and a zero-shot run on WARM pictures is made. In
    `seconds_fit`: class prompts, the features of every view that the method looks at, all training steps, and the choice of
    settings where the method makes one. In `seconds_evaluate`: the test, with the features of its pictures. The folder of
    image features is empty at first, so that every method pays for what it needs; drawn or downloaded pictures stay.

    More columns than other rows have: `steps` and `training_images` (pictures that the training loop has seen, repeats
    counted; 0 where there is no such loop), `n_classes` and `seconds_text` (from the class names to the scores of one
    picture, median of three; None where a method reads no names), `load` (the machine's load average before the clock),
    `waited` (share of the fit and the test in which this process was ready and had no processor; None outside Linux).
    `peak_memory_mb` is that of the run's own process, everything that was imported included; on a GPU the largest allocation.
    """
    from fewshot.cache import cache_dir

    with FileLock(cache_dir() / "training_time.lock"), _environment(OMP_NUM_THREADS=THREADS, MKL_NUM_THREADS=THREADS):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as executor:
            return executor.submit(_alone, one).result()


def _alone(one: Run) -> dict:
    import torch

    from fewshot.data import features

    torch.set_num_threads(THREADS)
    kept = {}

    def fit(one: Run, task, clock):
        model, seconds = _fit(one, task, clock)
        kept.update(model=model, test=task.test, clock=clock)
        return model, seconds

    with TemporaryDirectory(prefix="fewshot-features-") as empty:
        features.cache_dir = lambda: Path(empty)
        run(replace(one, method="zero_shot", shots=0, config={}, selection=None, limit=WARM))
        cls = get_method(one.method)
        if one.method == "linear_probe":
            import sklearn.linear_model  # noqa: F401  (it would be imported by the fit)
        seen = _counting(cls)
        load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
        start, waited = time.perf_counter(), seconds_waited()
        row = run(one, fit)
        share = share_waited(waited, time.perf_counter() - start)
        row |= seen | {"n_classes": len(kept["model"].classnames), "seconds_text": _seconds_text(**kept)}
        row |= {"load": load, "waited": share}
    if row["peak_memory_of"].startswith("process") and (peak := _own_peak()) is not None:
        row |= {"peak_memory_mb": peak, "peak_memory_of": "process of this run (VmHWM)"}
    return row


def _counting(cls: type[Method]) -> dict[str, int]:
    """Steps and pictures of the training loop, counted from now on, for the rest of this process."""
    seen = {"steps": 0, "training_images": 0}
    backward = cls.backward

    def counted(self, x, labels):
        seen["steps"] += 1
        seen["training_images"] += len(labels)
        return backward(self, x, labels)

    cls.backward = counted
    return seen


def _seconds_text(model: Method, test, clock: Callable[[], float]) -> float | None:
    import torch

    if type(model).set_classes is Method.set_classes:
        return None
    x = next(iter(model._inputs(test.subset([0]))))
    seconds = []
    with torch.no_grad():
        for _ in range(3):
            start = clock()
            model.set_classes(model.classnames)
            model.logits(x)
            seconds.append(clock() - start)
    return round(statistics.median(seconds), 5)


def share_waited(before: float | None, passed: float) -> float | None:
    """Share of the `passed` seconds for which this thread has waited since `before`, a count of seconds_waited."""
    return None if before is None else round((seconds_waited() - before) / passed, 4)


def seconds_waited() -> float | None:
    """Seconds for which this thread could have run and another one had its processor."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # no Linux, or one without this count
        return None


def _own_peak() -> float | None:
    """Largest memory of this process in MB. Linux only: ru_maxrss also holds what the process that started it had."""
    if not sys.platform.startswith("linux"):
        return None
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return None if kilobytes is None else round(int(kilobytes) / 1024, 1)


@contextmanager
def _environment(**values) -> Iterator[None]:
    """Environment variables for the processes that are started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
