"""Does a row cost the same when there are many? python benchmarks/load.py [--rows FILE]

A synthetic grid of 20,000 runs whose training is replaced by a copy of a measured row, so that what is timed is the machinery
alone: claim, look, store durably. With 1 and 2 workers: runs per second, seconds of every thousand, memory. Then files of
1,000 to 100,000 rows: opening one, all of it as a table, the means that `fewshot rows` prints, one more row, and a grid that
finds everything done. Every measurement is a process of its own (its memory and its start are its own); each becomes a line
of FILE, and those that are there are not measured again. The rows lie on the disk of the system's temporary folder.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from fewshot.cache import writing
from fewshot.grids import run_grid
from fewshot.report import summary
from fewshot.rows import Rows
from fewshot.runs import ROOT, Run, hardware, stamp, versions

SOURCE = ROOT / "results" / "method_table-toy.jsonl"
STORED = (1_000, 10_000, 100_000)


@functools.cache
def templates() -> list[dict]:
    """Measured rows of every method of the toy table."""
    return [json.loads(line) for line in SOURCE.read_bytes().splitlines()]


@functools.cache
def template() -> dict:
    return next(row for row in templates() if row["method"] == "coop")


def some(n: int) -> list[Run]:
    """n runs that differ in their seed."""
    first = Run.from_row(template())
    return [replace(first, experiment="load", seed=seed) for seed in range(1, n + 1)]


def made(one: Run) -> dict:
    """The row of a run without the run: a measured one under its key."""
    return template() | {"experiment": one.experiment, "seed": one.seed, "key": one.key}


def same_stamp(one: Run) -> str:
    return template()["stamp"]


def memory() -> float:
    """The most megabytes that this process has held (ru_maxrss)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def filled(path: Path, n: int) -> None:
    """A file of n rows: every measured one in turn, each time with another seed."""
    rows = templates()
    with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for i in range(n):
            row = rows[i % len(rows)]
            new = replace(Run.from_row(row), experiment="load", seed=1 + i)
            file.write(json.dumps(row | {"experiment": "load", "seed": new.seed, "key": f"{i:016x}"}, sort_keys=True) + "\n")


# ---- what is measured: functions of (folder, size, workers) that return the fields of a line


def grid(folder: Path, runs: int, workers: int) -> dict:
    """runs stub runs on so many processes, or here for 0."""
    ticks = [time.perf_counter()]

    def told(done: int, total: int) -> None:
        if done % 1000 == 0:
            ticks.append(time.perf_counter())

    ask = functools.partial(run_grid, some(runs), folder / "r.jsonl", progress=told, run_one=made, stamp_of=same_stamp)
    before = memory()
    if workers:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as executor:
            frame = ask(executor=executor)
    else:
        frame = ask()
    assert len(frame) == runs and frame["seed"].is_unique
    spent = [b - a for a, b in zip(ticks, ticks[1:])]
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 if workers else 0.0
    return {
        "per_second": round(runs / (ticks[-1] - ticks[0]), 1),
        "seconds_per_1000": [round(one, 3) for one in spent],
        "memory_mb": round(memory() - before, 1),
        "memory_worker_mb": round(children, 1),
    }


def opened(folder: Path, rows: int, workers: int = 0) -> dict:
    """A file of so many rows: opened, as a table, as means; then 100 more rows."""
    path = folder / "r.jsonl"
    before, start = memory(), time.perf_counter()
    file = Rows(path)
    assert len(file.keys()) == rows
    took = {"open": time.perf_counter() - start}
    opened_mb = memory() - before
    start = time.perf_counter()
    frame = file.frame()
    took["table"] = time.perf_counter() - start
    start = time.perf_counter()
    summary(frame, ["profile", "dataset", "method", "shots"])
    took["means"] = time.perf_counter() - start
    start = time.perf_counter()
    for i in range(100):
        file.append(template() | {"key": f"more{i:012x}"})
    took["append"] = (time.perf_counter() - start) / 100
    size = path.stat().st_size / 2**20
    return {name: round(value, 4) for name, value in took.items()} | {
        "memory_mb": round(opened_mb, 1), "memory_table_mb": round(memory() - before, 1), "file_mb": round(size, 1)
    }  # fmt: skip


def resumed(folder: Path, runs: int, workers: int = 0) -> dict:
    """A grid that finds everything done, stamps compared: seconds from the call to the table."""
    with writing(folder / "r.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(made(one)) + "\n" for one in some(runs)))
    asked = some(runs)
    stamp(asked[0])  # loads the CLIP, once and not per run
    start = time.perf_counter()
    frame = run_grid(asked, folder / "r.jsonl", progress=False, run_one=None)
    assert len(frame) == runs
    return {"resume": round(time.perf_counter() - start, 3)}


PARTS = {"grid": grid, "open": opened, "resume": resumed}


def plan(runs: int) -> list[dict]:
    """What the whole benchmark measures."""
    grids = [{"part": "grid", "size": runs, "workers": workers} for workers in (0, 1, 2)]
    files = [{"part": "open", "size": size, "workers": 0} for size in STORED]
    return grids + files + [{"part": "resume", "size": size, "workers": 0} for size in (1_000, runs)]


def measured(asked: dict) -> dict:
    """One line, measured in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        if asked["part"] == "open":
            filled(Path(folder) / "r.jsonl", asked["size"])
        command = [sys.executable, __file__, "--part", asked["part"], folder, str(asked["size"]), str(asked["workers"])]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    where = {"hardware": hardware(), "cores": os.cpu_count(), "versions": versions()}
    when = {"load_average": round(os.getloadavg()[0], 1), "finished": datetime.now(UTC).isoformat(timespec="seconds")}
    return asked | json.loads(out.splitlines()[-1]) | where | when


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, help="keep the lines in this file")
    parser.add_argument("--runs", type=int, default=20_000, help="of the grid (default: 20,000)")
    parser.add_argument("--part", nargs=4, metavar=("PART", "FOLDER", "SIZE", "WORKERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part, folder, size, workers = options.part
        print(json.dumps(PARTS[part](Path(folder), int(size), int(workers))))
        return
    for asked in tqdm(plan(options.runs), unit="measurement"):
        line = json.dumps(measured(asked), sort_keys=True)
        print(line)


if __name__ == "__main__":
    main()
