"""Numbers that are none, a clock that jumps, a memory that is too small; and real trainings that are killed."""

from __future__ import annotations

import itertools
import os
import random
import time
import warnings
from pathlib import Path

from fewshot.grids import run_grid
from fewshot.runs import Run, run

from .disks import said_by
from .grid import judged, quick, runs, same_stamp, whole
from .kills import EXPECTED, answer_of, await_, moment, shared, started

CLOCKED = ("seconds_fit", "seconds_evaluate", "peak_memory_mb", "finished")  # what no two runs have in common


def not_finite(folder: Path, rng: random.Random) -> dict:
    """Some runs give NaN: they are not stored, are named, and are stored when they give a number."""
    path, bad = folder / "r.jsonl", set(rng.sample(range(1, 41), 5))

    def wrong(one: Run) -> dict:
        return quick(one) | ({"nll": float("nan")} if one.seed in bad else {})

    said = said_by(lambda p: run_grid(runs(), p, progress=False, run_one=wrong, stamp_of=same_stamp), path)
    before = whole(path)
    assert not bad & {row["seed"] for row in before} and len(before) == 35
    shared(path)
    return {"said": said} | judged(path, before, EXPECTED)


def clock(folder: Path, rng: random.Random) -> dict:
    """The clock jumps by years between two looks, and files come from the future and the past; the grid is killed as well."""
    path, when = folder / "r.jsonl", moment(rng)
    process = started(_with_jumps, path, [rng.uniform(0, 4e9) for _ in range(7)])
    await_(path, **when)
    process.kill()
    process.join()
    before = whole(path)
    for file in [path, *folder.rglob("*")]:
        if file.exists():
            os.utime(file, (rng.uniform(0, 4e9),) * 2)
    _with_jumps(path, [rng.uniform(0, 4e9) for _ in range(7)])
    return when | judged(path, before, EXPECTED)


def _with_jumps(path: Path, moments: list[float]) -> None:
    right, jumps = time.time, itertools.cycle(moments)
    time.time = lambda: next(jumps)
    try:
        shared(path, minutes=60)
    finally:
        time.time = right


LEARNED = {"gda": {"augment_epoch": 1}, "lpplusplus": {}, "coop": {"epochs": 2}}
REAL = [Run("faults", "zero_shot", "toy/eurosat", 0, limit=50)] + [
    Run("faults", method, "toy/eurosat", 1, seed, config, limit=50) for method, config in LEARNED.items() for seed in (1, 2)
]


def real_runs(folder: Path, rng: random.Random) -> dict:
    """A grid of real toy trainings is killed, and goes on; its rows are those of an undisturbed one, bit for bit."""
    whole_path, path = folder / "whole.jsonl", folder / "r.jsonl"
    answer_of(_real, whole_path)
    when = {"at_rows": rng.randrange(len(REAL) - 1), "then_s": round(rng.uniform(0, 0.3), 4)}
    process = started(_real, path)
    await_(path, **when)
    process.kill()
    process.join()
    before = whole(path)
    answer_of(_real, path)
    found = judged(path, before, whole(whole_path))
    return when | found | {"same": _numbers(path) == _numbers(whole_path)}


def _real(path: Path) -> dict:
    import torch

    torch.set_num_threads(1)
    run_grid(REAL, path, progress=False)
    return {}


def _numbers(path: Path) -> dict[str, dict]:
    return {row["key"]: {name: value for name, value in row.items() if name not in CLOCKED} for row in whole(path)}


def memory(folder: Path, rng: random.Random) -> dict:
    """A device whose memory holds the prompts of a few classes only: they go in smaller groups, and it says so."""
    most = rng.randint(2, 5)
    return {"classes_that_fit": most} | answer_of(_crowded, most)


def _crowded(most: int) -> dict:
    import torch

    from fewshot.clip import TextTower

    torch.set_num_threads(1)
    one = next(one for one in REAL if one.method == "coop")
    expected = run(one)
    plain, tried = TextTower.run, []

    def small(self, prefix, suffix, eot, **rest):
        tried.append(len(suffix))
        if tried[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(self, prefix, suffix, eot, **rest)

    TextTower.run = small
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        row = run(one)
    said = [str(w.message) for w in told if "do not fit into the memory" in str(w.message)]
    assert max(tried) > most, "everything fitted, so nothing was tried"
    return {"said": " ".join(said), "same": row["accuracy"] == expected["accuracy"] and len(said) == 1}


