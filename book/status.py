"""The tables of the status page: what ran, how long it took, which rows and which versions the book rests on."""

import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from execute import results_folder

PACKAGES = ("fewshot-clip-book", "torch", "torchvision", "open_clip_torch", "numpy", "scikit-learn", "pandas", "jupyter-book")


def table(heading: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    heading = list(heading)
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def notebook_table(timings: dict) -> str:
    rows = [
        [f"{{doc}}`../notebooks/{name}`", f"{entry['seconds']:.0f}", entry["finished"].replace("T", " ")[:16]]
        for name, entry in sorted(timings.get("notebooks", {}).items())
    ]
    return table(("Notebook", "Seconds", "Run (UTC)"), rows)


def rows_table(folder: Path) -> str:
    """One line per file of measured rows: how many, of what, with how many seeds, on which hardware."""
    lines = []
    for file in sorted(folder.glob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]

        def kinds(field, rows=rows):
            return len({str(row.get(field)) for row in rows})

        hardware = sorted({str(row.get("hardware", "not recorded")) for row in rows})
        last = max((str(row.get("finished", "")) for row in rows), default="")
        counts = [len(rows), kinds("method"), kinds("dataset"), kinds("seed")]
        lines.append([f"`{file.name}`", *counts, last[:10], "; ".join(hardware)])
    return table(("Rows", "Number", "Methods", "Data sets", "Seeds", "Last measured", "Hardware"), lines)


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
        rows_table(results_folder(root)),
        "\n## Versions\n",
        versions_table(),
    ]
    (stage / "book" / "status_tables.md").write_text("\n".join(parts) + "\n", encoding="utf-8")
