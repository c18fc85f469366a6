"""The tables of the status page: what ran, how long it took, which rows and which versions the book rests on."""

import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from execute import results_folder

from fewshot.report import computing_seconds, status_table
from fewshot.rows import Rows

PACKAGES = ("fewshot-clip-book", "torch", "torchvision", "open_clip_torch", "numpy", "scikit-learn", "pandas", "jupyter-book")
TABLE, TOY_MINUTES = "method_table-toy", 120  # on two cores
NIGHT = 10  # hours on two cores for the rows of all experiments


def table(heading: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    heading = list(heading)
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def notebook_table(timings: dict) -> str:
    rows = [
        [f"{{doc}}`../notebooks/{name}`", f"{entry['seconds']:.0f}", entry["finished"].replace("T", " ")[:16]]
        for name, entry in sorted(timings.get("notebooks", {}).items())
    ]
    if "book" in timings:
        rows.append(["all pages, the last time", f"{timings['book']['seconds']:.0f}", ""])
    return table(("Notebook", "Seconds", "Run (UTC)"), rows) if rows else "None yet."


def rows_tables(folder: Path) -> str:
    """For every file of measured rows what is in it, per method: how many, at what cost, on which hardware."""
    parts = []
    for file in sorted(folder.glob("*.jsonl")):
        frame = Rows(file).frame()
        if not frame.empty:
            inside = f'<div class="pst-scrollable-table-container">\n{status_table(frame).html()}\n</div>'
            time = toy_time(frame) if file.stem == TABLE else ""
            parts.append(f"### `{file.name}`\n\n{time}{inside}\n")
    return "\n".join(parts) or "None yet.\n"


def toy_time(frame) -> str:
    """The time of the toy rows, shared by two cores, against the time they are meant to take."""
    toy = frame[frame["profile"] == "toy"]
    if toy.empty:
        return ""
    minutes = computing_seconds(toy) / 60
    verdict = "within" if minutes / 2 <= TOY_MINUTES else "**more than**"
    return (
        f"The toy rows took {minutes:.0f} minutes of computing, {minutes / 2:.0f} when two cores share them: {verdict} the "
        f"{TOY_MINUTES} minutes on two cores that a toy table may take. The column *minutes in all* says where they went.\n\n"
    )


def fresh_text(folder: Path) -> str:
    """How long it took to measure every row again from nothing, and what moved."""
    file = folder / "fresh.json"
    if not file.exists():
        frames = {rows.stem: Rows(rows).frame() for rows in sorted(folder.glob("*.jsonl"))}
        seconds = {stem: computing_seconds(frame) for stem, frame in frames.items() if len(frame)}
        one_by_one = sum(value for stem, value in seconds.items() if stem.startswith("training_time"))
        hours = ((sum(seconds.values()) - one_by_one) / 2 + one_by_one) / 3600
        verdict = "within" if hours <= NIGHT else "**more than**"
        return (
            "`make book FRESH=1` measures all rows again. It has not been timed as a whole on these rows; when they were "
            f"stored they took {sum(seconds.values()) / 3600:.1f} hours of computing (the sum of their own seconds). On two "
            f"cores, the times of training one by one and everything else two at a time, that is {hours:.1f} hours: "
            f"{verdict} the night of {NIGHT} hours that all experiments together may take.\n"
        )
    took = json.loads(file.read_text())
    return (
        f"`make book FRESH=1` measured {took['rows']} rows from nothing in {took['minutes']} minutes ({took['workers']} workers, "
        f"{took['hardware']}, {took['date']}); the largest difference from the committed rows was "
        f"{took['largest_difference']} points.\n"
    )


def versions_table() -> str:
    rows = [["Python", platform.python_version()]]
    for name in PACKAGES:
        try:
            rows.append([name, version(name)])
        except PackageNotFoundError:
            rows.append([name, "not installed"])
    rows.append(["Machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"])
    return table(("Built with", "Version"), rows)


def write(root: Path, stage: Path, timings: dict) -> None:
    """Write `book/status_tables.md` into the stage, for the status page to include."""
    parts = [
        "## Notebooks\n",
        notebook_table(timings),
        "\n## Measured rows\n",
        fresh_text(results_folder(root)),
        rows_tables(results_folder(root)),
        "## Versions\n",
        versions_table(),
    ]
    (stage / "book" / "status_tables.md").write_text("\n".join(parts) + "\n", encoding="utf-8")
