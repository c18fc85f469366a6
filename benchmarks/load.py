"""Does a row cost the same when there are many? python -m benchmarks.load [PART ...] [--rows FILE]

A synthetic grid of 20,000 runs whose training is replaced by a copy of a measured row, so that what is timed is the machinery
alone: claim, look, store. With 0 (here), 1 and 2 workers, on a disk in memory, where storing durably costs nothing, and a
tenth of it on the disk of the temporary folder, where every row waits for the disk (`sync_ms`). Then files of 1,000 to 100,000
rows: opening one, all of it as a table, the means that `fewshot rows` prints, one more row; and a grid that finds everything
done. Every measurement is a process of its own (its memory and its start are its own) and becomes a line of FILE; those that
are there are not measured again. Takes five minutes on a quiet machine; on a busy one the times are not worth keeping.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.lines import keep, kept
from fewshot.cache import writing
from fewshot.grids import run_grid
from fewshot.report import summary
from fewshot.rows import Rows
from fewshot.runs import ROOT, Run, stamp

MEMORY = Path("/dev/shm")  # Linux; elsewhere the grid is only measured on the disk
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
    """The most megabytes that this process has held."""
    try:  # ru_maxrss also holds what the process that started this one had
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def filled(path: Path, n: int) -> None:
    """A file of n rows: every measured one in turn, each time with another seed."""
    rows = templates()
    with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for i in range(n):
            new = {"experiment": "load", "seed": 1 + i, "key": f"{i:016x}"}
            file.write(json.dumps(rows[i % len(rows)] | new, sort_keys=True) + "\n")


# ---- what is measured: functions of (folder, size, workers) that return the fields of a line


def grid(folder: Path, runs: int, workers: int) -> dict:
    """Stub runs on so many processes, or here for 0; the first block, with the start, is not part of the rate."""
    import torch  # noqa: F401  loaded by the first run at the latest, and no part of what runs take

    block = min(1000, runs // 2)
    ticks = [time.perf_counter()]

    def told(done: int, total: int) -> None:
        if done % block == 0:
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
        "per_second": round((len(spent) - 1) * block / (ticks[-1] - ticks[1]), 1),
        "block": block,
        "seconds_of_blocks": [round(one, 3) for one in spent],
        "memory_mb": round(memory() - before, 1),
        "memory_worker_mb": round(children, 1),
        "sync_ms": round(1000 * synced(folder), 3),
    }


def synced(folder: Path) -> float:
    """Seconds until a row's bytes are on the disk: the median of 50."""
    took = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(50):
            start = time.perf_counter()
            file.write(bytes(1000))
            os.fsync(file.fileno())
            took.append(time.perf_counter() - start)
    return statistics.median(took)


def opened(folder: Path, rows: int, workers: int = 0) -> dict:
    """A file of so many rows: opened, 100 more rows one by one, as a table, as means."""
    path, before = folder / "r.jsonl", memory()
    file = Rows(path)
    keys, found = timed(file.keys, "open")
    assert len(keys) == rows
    size = {"memory_mb": round(memory() - before, 1), "file_mb": round(path.stat().st_size / 2**20, 1)}
    new = [template() | {"experiment": "load", "seed": rows + 1 + i, "key": f"more{i:012x}"} for i in range(100)]
    _, more = timed(lambda: [file.append(row) for row in new], "append_100")
    frame, table = timed(file.frame, "table")
    _, means = timed(lambda: summary(frame, ["profile", "dataset", "method", "shots"]), "means")
    return found | table | means | more | size | {"memory_table_mb": round(memory() - before, 1)}


def timed(work: Callable, name: str) -> tuple[object, dict[str, float]]:
    """What it gives; its seconds, and those of computing, which other work on the machine disturbs less."""
    start, computing = time.perf_counter(), time.process_time()
    found = work()
    took = {name: time.perf_counter() - start, f"{name}_cpu": time.process_time() - computing}
    return found, {name: round(seconds, 4) for name, seconds in took.items()}


def resumed(folder: Path, runs: int, workers: int = 0) -> dict:
    """A grid that finds everything done, stamps compared: from the call to the table."""
    with writing(folder / "r.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(made(one)) + "\n" for one in some(runs)))
    asked = some(runs)
    stamp(asked[0])  # loads the CLIP, once and not per run
    frame, found = timed(lambda: run_grid(asked, folder / "r.jsonl", progress=False, run_one=None), "resume")
    assert len(frame) == runs
    return found


PARTS = {"grid": grid, "open": opened, "resume": resumed}


def plan(runs: int) -> list[dict]:
    """What the whole benchmark measures."""
    disks = {"memory": runs, "disk": runs // 10} if MEMORY.is_dir() else {"disk": runs}
    grids = [{"part": "grid", "size": n, "workers": w, "disk": disk} for disk, n in disks.items() for w in (0, 1, 2)]
    files = [{"part": "open", "size": size, "workers": 0, "disk": "disk"} for size in STORED]
    return grids + files + [{"part": "resume", "size": size, "workers": 0, "disk": "disk"} for size in (runs // 10, runs)]


def measured(asked: dict) -> dict:
    """One measurement, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=MEMORY if asked["disk"] == "memory" else None) as folder:
        if asked["part"] == "open":
            filled(Path(folder) / "r.jsonl", asked["size"])
        ask = [asked["part"], folder, str(asked["size"]), str(asked["workers"])]
        command = [sys.executable, "-m", "benchmarks.load", "--measure", *ask]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return asked | json.loads(out.splitlines()[-1]) | {"load_average": round(os.getloadavg()[0], 1)}


def _is(asked: dict, line: dict) -> bool:
    return all(line.get(name) == value for name, value in asked.items())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="keep the measurements in this file")
    parser.add_argument("--runs", type=int, default=20_000, metavar="N", help="of the grid (default: 20,000)")
    parser.add_argument("--disk", choices=("memory", "disk"), help="only what is measured there")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        part, folder, size, workers = options.measure
        print(json.dumps(PARTS[part](Path(folder), int(size), int(workers))))
        return
    asked = [one for one in plan(options.runs) if one["part"] in (options.parts or PARTS)]
    asked = [one for one in asked if options.disk in (None, one["disk"])]
    there = kept(options.rows)
    todo = [one for one in asked if not any(_is(one, line) for line in there)]
    for one in tqdm(todo, unit="measurement", disable=None):
        keep(options.rows, measured(one))


if __name__ == "__main__":
    main()
