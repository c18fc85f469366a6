"""kill -9: of the process that runs a grid, of its workers, of one among several that share the file."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from fewshot.errors import FewshotError
from fewshot.grids import run_grid

from .grid import SIZE, judged, made, quick, runs, same_stamp, whole

EXPECTED = [made(one) for one in runs()]
FORK = multiprocessing.get_context("fork")  # a victim that starts at once; nothing here has threads


def shared(path: Path, **more):
    return run_grid(runs(), path, progress=False, run_one=quick, stamp_of=same_stamp, **more)


def moment(rng: random.Random, n: int = 1) -> dict:
    """When to strike: so many rows are stored, and so many seconds more have gone; sooner where n processes make them."""
    under_way = n if n > 1 else 0  # rows that the others have begun and that come in the same instant
    return {"at_rows": rng.randrange(SIZE - 5 - under_way), "then_s": round(rng.uniform(0, 0.02 / n), 4)}


def await_(path: Path, at_rows: int, then_s: float) -> None:
    """Wait for that moment."""
    limit = time.monotonic() + 600
    while at_rows and (not path.exists() or path.read_bytes().count(b"\n") < at_rows):
        if time.monotonic() > limit:
            raise RuntimeError(f"{path} does not grow.")
        time.sleep(0.0005)
    time.sleep(then_s)


def started(work: Callable, *arguments) -> multiprocessing.Process:
    """A process, with its sentences thrown away."""
    process = FORK.Process(target=_silent, args=(work, *arguments))
    process.start()
    return process


def _silent(work: Callable, *arguments) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    work(*arguments)


def main_process(folder: Path, rng: random.Random) -> dict:
    """The process that runs the grid is killed; another one goes on."""
    path, when = folder / "r.jsonl", moment(rng)
    process = started(shared, path)
    await_(path, **when)
    process.kill()
    process.join()
    before = whole(path)
    shared(path)
    return when | {"struck": process.exitcode == -signal.SIGKILL} | judged(path, before, EXPECTED)


def with_two_workers(path: Path, pids: Path) -> None:
    """A grid on a pool of two processes, which write down who they are."""
    with ProcessPoolExecutor(2, FORK, _write_pid, (pids,)) as executor:
        shared(path, executor=executor)


def _write_pid(pids: Path) -> None:
    (pids / str(os.getpid())).touch()


def _there(pids: Path, n: int) -> list[int]:
    """The workers' numbers, once they are all there."""
    while len(found := list(pids.iterdir())) < n:
        time.sleep(0.001)
    return sorted(int(path.name) for path in found)


def main_with_workers(folder: Path, rng: random.Random) -> dict:
    """The main process of a pool is killed; its workers finish what they hold while another process goes on."""
    path, pids, when = folder / "r.jsonl", folder / "pids", moment(rng)
    pids.mkdir()
    process = started(with_two_workers, path, pids)
    workers = _there(pids, 2)
    await_(path, **when)
    process.kill()
    process.join()
    before = whole(path)
    shared(path)
    found = when | {"struck": process.exitcode == -signal.SIGKILL} | judged(path, before, EXPECTED)
    for pid in workers:  # they wait for work that nobody sends
        _kill(pid)
    return found


def worker(folder: Path, rng: random.Random) -> dict:
    """A worker of a pool is killed; the grid goes on or says what is missing, and is resumed."""
    path, pids, when = folder / "r.jsonl", folder / "pids", moment(rng)
    pids.mkdir()
    answers = FORK.SimpleQueue()
    process = started(_say, answers, path, pids)
    workers = _there(pids, 2)
    await_(path, **when)
    struck, before = _kill(workers[rng.randrange(2)]), whole(path)
    said = answers.get()
    process.join()
    shared(path)
    return when | {"struck": struck, "said": said} | judged(path, before, EXPECTED)


def _say(answers, path: Path, pids: Path) -> None:
    try:
        with_two_workers(path, pids)
    except FewshotError as error:
        answers.put(str(error).replace(f"{path.parent}{os.sep}", ""))
    else:
        answers.put("")


def answer_of(work: Callable[..., dict], *arguments) -> dict:
    """What it returns, in a process of its own: what it loads and sets is gone with it."""
    answers = FORK.SimpleQueue()
    process = started(_put, answers, work, *arguments)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} of {arguments} failed; call it by itself to see why.")
    return answers.get()


def _put(answers, work: Callable[..., dict], *arguments) -> None:
    answers.put(work(*arguments))


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def several(folder: Path, rng: random.Random, n: int) -> dict:
    """n processes run the same grid on one file at once, and one of them is killed; the others go on to the end."""
    path, when = folder / "r.jsonl", moment(rng, n)
    processes = [started(shared, path) for _ in range(n)]
    await_(path, **when)
    victim = processes[rng.randrange(n)]
    victim.kill()
    before = whole(path)
    for process in processes:
        process.join()
    shared(path)
    return when | {"struck": victim.exitcode == -signal.SIGKILL} | judged(path, before, EXPECTED)


def writer_of_weights(folder: Path, rng: random.Random) -> dict:
    """A process that saves weights again and again is killed; the file is the old one or the new one, whole."""
    path = folder / "m.safetensors"
    _save(path, 1)
    process = started(_save, path, 10**9)
    when = rng.uniform(0, 0.1)
    time.sleep(when)
    process.kill()
    process.join()
    found = _state(path)
    _save(path, 1)
    return {"then_s": round(when, 4), "struck": True, "torn": int(found is None), "same": found == _state(path)}


def _save(path: Path, times: int) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from fewshot.cache import writing

    for _ in range(times):
        with writing(path) as temporary:
            save_file({"a": np.arange(100_000.0)}, temporary)


def _state(path: Path) -> str | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return json.dumps(load_file(path)["a"].sum().item())
    except SafetensorError:
        return None
