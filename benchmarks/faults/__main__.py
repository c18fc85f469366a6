"""The command: every fault so many times, each trial from its own seed; what is in the file is not tried again."""

from __future__ import annotations

import argparse
import functools
import random
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from benchmarks.lines import keep, kept

from . import __doc__ as about
from . import disks, engines, kills, numbers

FAULTS = {
    "main process killed": (kills.main_process, 50),
    "main process of a pool killed": (kills.main_with_workers, 20),
    "worker of a pool killed": (kills.worker, 20),
    "one of two processes killed": (functools.partial(kills.several, n=2), 10),
    "one of eight processes killed": (functools.partial(kills.several, n=8), 10),
    "Dask worker killed": (engines.worker, 5),
    "Dask scheduler killed": (engines.scheduler, 3),
    "real trainings killed": (numbers.real_runs, 3),
    "writer of weights killed": (kills.writer_of_weights, 20),
    "disk full, rows": (disks.full_of_rows, 6),
    "disk out of names, rows": (disks.out_of_names, 6),
    "disk full, weights": (disks.full_of_weights, 1),
    "disk full, features": (disks.full_of_features, 1),
    "disk full, notebook": (disks.full_of_notebook, 1),
    "read-only, rows": (disks.read_only_rows, 1),
    "read-only, weights": (disks.read_only_weights, 1),
    "read-only, features": (disks.read_only_features, 1),
    "read-only, notebook": (disks.read_only_notebook, 1),
    "clock jumps": (numbers.clock, 10),
    "numbers that are none": (numbers.not_finite, 5),
    "memory too small": (numbers.memory, 2),
}


def tried(fault: str, trial: int) -> dict:
    """One trial, in a folder of its own."""
    function, _ = FAULTS[fault]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = function(Path(folder), random.Random(f"{fault} {trial}"))
    return {"fault": fault, "trial": trial, "seconds": round(time.perf_counter() - start, 2)} | found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=about)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"default: all, which are {', '.join(FAULTS)}")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="keep the trials in this file")
    parser.add_argument("--trials", type=int, metavar="N", help="of each fault (default: 1 to 50)")
    options = parser.parse_args()
    if unknown := set(options.faults) - set(FAULTS):
        parser.error(f"there is no fault {sorted(unknown)[0]!r}")
    there = {(line["fault"], line["trial"]) for line in kept(options.rows)}
    todo = []
    for fault in options.faults or FAULTS:
        function, trials = FAULTS[fault]
        if getattr(function, "__module__", "").endswith("disks") and not disks.possible():
            print(f"skipped: {fault}, which needs root on Linux (it makes a disk of its own)", file=sys.stderr)
            continue
        todo += [(fault, trial) for trial in range(options.trials or trials) if (fault, trial) not in there]
    for fault, trial in tqdm(todo, unit="trial", disable=None):
        keep(options.rows, tried(fault, trial))


if __name__ == "__main__":
    main()
