"""Write the tables of book/reliability.md: faults tried, bad input refused, load carried. python book/reliability.py

From the lines that `python -m benchmarks.faults` and `python -m benchmarks.load` keep in results/reliability/, and from the tests
that pytest collects. A test fails when the page and these differ.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import marks
from status import table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks/ is in the checkout and not installed
from benchmarks.faults.__main__ import FAULTS  # noqa: E402

PAGE = ROOT / "book" / "reliability.md"
LINES = ROOT / "results" / "reliability"
TESTS = {
    "tests/test_bad_input.py": "input of every entry point that is wrong or odd",
    "tests/test_security.py": "files, names and servers that mean harm",
    "tests/test_trouble.py": "no room, no memory, no place to write, a clock that jumps, numbers that are none",
    "tests/test_properties.py": "properties that hypothesis tries on invented cases (each a test, dozens of cases)",
}
DISKS = {"memory": "in memory", "disk": "on the disk"}


def lines(name: str, folder: Path = LINES) -> list[dict]:
    """The kept lines of a benchmark."""
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_bytes().splitlines()]


def totals(trials: list[dict]) -> dict[str, int]:
    """What faults have cost: rows lost and doubled, files and lines torn, trials whose numbers were not the undisturbed ones."""
    costs = {name: sum(trial.get(name, 0) for trial in trials) for name in ("lost", "doubled", "torn")}
    return costs | {"other numbers": sum(not trial["same"] for trial in trials)}


def faults_table(folder: Path = LINES) -> str:
    """A line per fault: how often, in how many the victim was still at work, and what it cost; "not run" where it was not."""
    trials = lines("faults", folder)
    rows = []
    for fault in [*FAULTS, "**all**"]:
        group = [trial for trial in trials if fault in (trial["fault"], "**all**")]
        if not group:
            rows.append([fault, "not run", *["–"] * 6])
            continue
        struck = [trial["struck"] for trial in group if "struck" in trial]
        stored = [trial["rows_before"] for trial in group if "rows_before" in trial]
        span = f"{min(stored)} to {max(stored)}" if stored else "–"
        kills = f"{sum(struck)} of {len(struck)}" if struck else "–"
        rows.append([fault, len(group), kills, span, *totals(group).values()])
    heading = ["Fault", "Trials", "Killed at work", "Rows stored by then"]
    return table([*heading, "Rows lost", "Rows doubled", "Torn", "Other numbers"], rows)


def cases() -> Counter:
    """(file, test) -> cases, as pytest collects them."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-n", "0", *TESTS]
    environment = os.environ | {"PYTEST_ADDOPTS": ""}
    out = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    return Counter(re.findall(r"^(tests/\w+\.py)::(\w+)", out, re.M))


def input_table() -> str:
    """A line per file of tests."""
    found = cases()
    rows = []
    for file, about in TESTS.items():
        own = {test: n for (name, test), n in found.items() if name == file}
        rows.append([f"`{file}`", about, len(own), sum(own.values())])
    rows.append(["**all**", "", sum(row[2] for row in rows), sum(row[3] for row in rows)])
    return table(["File", "What is given", "Tests", "Cases"], rows)


def grid_table(folder: Path = LINES) -> str:
    """Runs per second of the synthetic grid, and whether the last thousand cost what the second did."""
    rows = []
    for line in lines("load", folder):
        if line["part"] == "grid":
            blocks = line["seconds_of_blocks"][1:]
            per = 1000 / line["block"]  # ms of a run from the seconds of a block
            half = len(blocks) // 2
            means = [sum(part) / len(part) * per if half else None for part in (blocks[:half], blocks[half:])]
            worker = f", {line['memory_worker_mb']:.0f} in a worker" if line["workers"] else ""
            rows.append(
                [f"{line['size']:,}", line["workers"] or "none", f"{DISKS[line['disk']]} ({line['sync_ms']:.2f})"]
                + [f"{line['per_second']:.0f}", *("–" if mean is None else f"{mean:.2f}" for mean in means)]
                + [f"{line['memory_mb']:.0f}{worker}"]
            )
    heading = ["Runs", "Workers", "Rows lie (ms until one is durable)", "Runs per second", "ms a run, first half"]
    return table([*heading, "ms a run, second half", "Memory, MB"], rows)


def open_table(folder: Path = LINES) -> str:
    """What a file of rows costs to open, to read as a table, to sum up and to add to."""
    rows = []
    for line in lines("load", folder):
        if line["part"] == "open":
            costs = [_costs(line, name, line["size"]) for name in ("open", "table", "means")]
            memory = [f"{line['memory_mb']:.0f}", f"{line['memory_table_mb']:.0f}"]
            more = [_costs(line, "append_100", 100)]
            rows.append([f"{line['size']:,}", f"{line['file_mb']:.1f}", *costs, *more, *memory])
    heading = ["Rows", "File, MB", "Open", "As a table", "Means over seeds", "100 more rows"]
    return table([*heading, "Memory open, MB", "with the table, MB"], rows)


def _costs(line: dict, name: str, count: int) -> str:
    """Seconds, and computing alone: seconds in all and microseconds of a row."""
    seconds, computing = line[name], line[f"{name}_cpu"]
    return f"{seconds:.2f} s; {computing:.2f} s, {1e6 * computing / count:.0f} µs"


def resume_table(folder: Path = LINES) -> str:
    """A grid that finds everything done."""
    resumed = [line for line in lines("load", folder) if line["part"] == "resume"]
    rows = [[f"{line['size']:,}", _costs(line, "resume", line["size"])] for line in resumed]
    return table(["Runs, all done", "To their table"], rows)


def machine(folder: Path = LINES) -> str:
    """Where the load was measured."""
    found = {(line["hardware"], line["cores"], line["finished"][:10]) for line in lines("load", folder)}
    (hardware, cores, day), *others = sorted(found)
    loads = [line["load_average"] for line in lines("load", folder)]
    assert not others or {one[:2] for one in others} == {(hardware, cores)}, "the lines are of two machines"
    return f"Measured on {day}: {hardware} on {cores} cores; load average {min(loads):.1f} to {max(loads):.1f} at the ends."


TABLES = {
    "faults": faults_table,
    "input": input_table,
    "grid": grid_table,
    "open": open_table,
    "resume": resume_table,
    "machine": machine,
}


def renewed(page: str) -> str:
    """The page with today's tables."""
    return marks.renewed(page, TABLES)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
