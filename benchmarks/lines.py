"""What a benchmark keeps: one JSON line per measurement, which is not measured again.

Not fewshot.rows: those are runs, each with an accuracy.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from fewshot.runs import hardware, versions


def kept(path: Path | None) -> list[dict]:
    """The lines of a file, none where there is none."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path and path.exists() else []


def keep(path: Path | None, line: dict) -> dict:
    """Print a line with the machine it was measured on, and add it to the file, if there is one."""
    where = {"hardware": hardware(), "cores": os.cpu_count(), "versions": versions()}
    line = line | where | {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
    text = json.dumps(line, sort_keys=True)
    print(text, flush=True)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    return line
