"""Grids on processes of this machine: a dead one costs its run an attempt, and nothing else."""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from test_runs import lines, made, shared, some

from fewshot.errors import FewshotError
from fewshot.workers import Here, Processes, engine


def noting(one, log: Path, trouble: dict) -> dict:
    """A row, after a line in the log; the seeds in `trouble` raise, or kill their process; "once": only the first time."""
    seen = log.read_text() if log.exists() else ""
    with log.open("a") as file:
        file.write(f"{one.seed} {os.getpid()}\n")
    what = trouble.get(one.seed, "")
    if what.endswith("once") and f"{one.seed} " in {f"{line.split()[0]} " for line in seen.splitlines()}:
        return made(one)
    if what.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    errors = {"disk": OSError("a disk went away"), "memory": MemoryError(), "mistake": FewshotError("a mistake")}
    if error := errors.get(what.split()[0] if what else ""):
        raise error
    return made(one)


def attempts(log: Path) -> dict[int, list[int]]:
    """seed -> the processes that tried it, in order."""
    found: dict[int, list[int]] = {}
    for line in log.read_text().splitlines():
        seed, pid = map(int, line.split())
        found.setdefault(seed, []).append(pid)
    return found


def seeds(path: Path) -> list[int]:
    return sorted(line["seed"] for line in lines(path))


def test_killed_workers_are_replaced_and_their_runs_made_again(tmp_path, capfd):
    run_one = functools.partial(noting, log=tmp_path / "log", trouble={2: "kill once", 3: "kill"})
    with pytest.raises(FewshotError) as caught:
        shared(some(6), tmp_path / "r.jsonl", run_one, executor=2)
    said = str(caught.value)
    assert "1 of 6 runs failed" in said and "seed 3 (its worker process died, perhaps for want of memory)" in said
    assert seeds(tmp_path / "r.jsonl") == [1, 2, 4, 5, 6]
    tried = attempts(tmp_path / "log")
    assert {seed: len(pids) for seed, pids in tried.items()} == {1: 1, 2: 2, 3: 3, 4: 1, 5: 1, 6: 1}
    (trace,) = (tmp_path / "r.failed").iterdir()
    assert "attempts: 3" in trace.read_text() and "BrokenProcessPool" in trace.read_text()
    assert "seed 2 is tried again (its worker process died" in capfd.readouterr().err


@pytest.mark.parametrize("executor", [None, 1])
def test_what_may_pass_is_tried_again_elsewhere_and_a_mistake_is_not(tmp_path, executor):
    trouble = {1: "disk once", 2: "memory", 3: "mistake"}
    run_one = functools.partial(noting, log=tmp_path / "log", trouble=trouble)
    with pytest.raises(FewshotError, match="2 of 4 runs failed"):
        shared(some(4), tmp_path / "r.jsonl", run_one, executor=executor, retries=1)
    tried = attempts(tmp_path / "log")
    assert {seed: len(pids) for seed, pids in tried.items()} == {1: 2, 2: 2, 3: 1, 4: 1}
    if executor:
        assert len(set(tried[1])) == len(set(tried[2])) == 2, "in a process that knows nothing of the failure"
    assert seeds(tmp_path / "r.jsonl") == [1, 4]
    assert Counter(path.name[:6] for path in (tmp_path / "r.failed").iterdir()) == {"coop-1": 2}
    shared(some(4), tmp_path / "r.jsonl")
    assert seeds(tmp_path / "r.jsonl") == [1, 2, 3, 4] and not list((tmp_path / "r.failed").iterdir())


def test_an_executor_is_found_for_every_word():
    with engine(None) as one, engine("") as two, engine(0) as three:
        assert {type(one), type(two), type(three)} == {Here}
    with engine(2) as several:
        assert isinstance(several, Processes) and several.room() == 2
    with pytest.raises(FewshotError, match="0 or more"), engine(-1):
        pass


def test_the_bar_tells_what_runs_waits_and_failed(tmp_path, monkeypatch):
    import tqdm

    told = []
    monkeypatch.setattr(tqdm.tqdm, "set_postfix", lambda self, counts, refresh=True: told.append(counts))
    run_one = functools.partial(noting, log=tmp_path / "log", trouble={1: "mistake"})
    with pytest.raises(FewshotError):
        shared(some(3), tmp_path / "r.jsonl", run_one)
    assert told[0] == {"running": 0, "waiting": 3, "failed": 0}
    assert told[-1] == {"running": 0, "waiting": 0, "failed": 1}


def test_an_error_that_cannot_be_sent_from_process_to_process_is_told_all_the_same(tmp_path):
    with pytest.raises(FewshotError, match="1 of 1 runs failed.*Odd: 1 and 2"):
        shared(some(1), tmp_path / "r.jsonl", odd, executor=1)


class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def odd(one):
    raise Odd(1, 2)


def test_rows_are_the_same_whoever_computes_them(tmp_path):
    shared(some(5), tmp_path / "here.jsonl")
    shared(some(5), tmp_path / "there.jsonl", executor=2)
    here, there = (sorted((tmp_path / f"{name}.jsonl").read_bytes().splitlines()) for name in ("here", "there"))
    assert here == there and len(here) == 5


def test_every_process_takes_its_own_gpu(monkeypatch):
    import torch

    import fewshot.workers as module

    taken = []
    monkeypatch.setattr(module, "end_with_parent", lambda: None)
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for place in range(4):
        module.start(4, place)
    assert taken == [0, 1, 0, 1]
