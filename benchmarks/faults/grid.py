"""The grid that is broken, and the judgement on what is left of it.

A stub takes the place of training: it waits some milliseconds, and what it returns follows from the run alone, so that the rows
of an undisturbed grid are known beforehand. The rows, their file, the locks and the workers are the real ones.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from fewshot.rows import Rows
from fewshot.runs import Run

SIZE = 40
SECONDS = 0.004  # of a run


def runs(n: int = SIZE) -> list[Run]:
    """n runs that differ in their seed."""
    return [Run("faults", "coop", "toy/oxford_pets", 1, seed) for seed in range(1, n + 1)]


def made(one: Run) -> dict:
    """The row of a run, without running it."""
    asked = {"experiment": one.experiment, "method": one.method, "dataset": one.dataset, "shots": one.shots}
    number = int(one.key, 16)
    found = {"accuracy": number % 10_000 / 100, "nll": 1 / number, "reliability": [[1 / (number + i)] * 3 for i in range(15)]}
    return asked | {"seed": one.seed, "key": one.key, "stamp": "s"} | found


def quick(one: Run) -> dict:
    """The stub."""
    time.sleep(SECONDS)
    return made(one)


def same_stamp(one: Run) -> str:
    return "s"


def whole(path: Path) -> list[dict]:
    """The rows of the lines that are complete, whatever else is in the file."""
    return [row for row in map(_parsed, path.read_bytes().splitlines()) if row is not None] if path.exists() else []


def _parsed(line: bytes) -> dict | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


def judged(path: Path, before: list[dict], expected: list[dict]) -> dict:
    """What is left after the fault and the resumption, against the rows `before` the resumption and those `expected`.

    lost: finished rows that are gone; doubled: runs that stand there twice; torn: lines that are no rows; same: are the rows
    those of an undisturbed grid, every field of them?
    """
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows = whole(path)
    keys = [row["key"] for row in rows]
    reader = Rows(path)
    wanted = [{"schema": 1} | row for row in expected]
    return {
        "rows_before": len(before),
        "rows_after": len(rows),
        "lost": len({row["key"] for row in before} - set(keys)),
        "doubled": len(keys) - len(set(keys)),
        "torn": len(lines) - len(rows),
        "same": sorted(rows, key=_key) == sorted(wanted, key=_key) and len(reader) == len(expected),
    }


def _key(row: dict) -> str:
    return row["key"]
