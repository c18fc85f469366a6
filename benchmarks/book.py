"""How long does `make book` take from nothing? python -m benchmarks.book --rows results/speed/book.jsonl [COMMIT ...]

Every commit (default: HEAD) is cloned into a folder of its own and its packages are installed; then the clock starts, and
`make book` runs with an empty cache. A commit that has a line is not built again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.lines import keep, kept
from fewshot.runs import ROOT


def built(commit: str, folder: Path) -> dict:
    """The line of one commit: seconds of the whole and of each notebook. Its packages are not in the seconds."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    subprocess.run(["git", "-C", str(clone), "checkout", "-q", commit], check=True)
    said = subprocess.run(["git", "-C", str(clone), "log", "-1", "--format=%h %cs"], check=True, capture_output=True, text=True)
    name, day = said.stdout.split()
    subprocess.run(["make", "-C", str(clone), ".venv/.ready"], check=True)
    own = {k: v for k, v in os.environ.items() if not k.startswith("FEWSHOT_")} | {"FEWSHOT_CACHE": str(folder / "cache")}
    start = time.perf_counter()
    subprocess.run(["make", "-C", str(clone), "book"], check=True, env=own)
    seconds = time.perf_counter() - start
    timings = json.loads((clone / "_build" / "stage" / "timings.json").read_text())
    notebooks = {stem: one["seconds"] for stem, one in timings["notebooks"].items()}
    return {"commit": name, "of": day, "seconds": round(seconds, 1), "pages": timings["book"]["seconds"], "notebooks": notebooks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commits", nargs="*", default=["HEAD"], metavar="COMMIT")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="append here and skip what is there")
    asked = parser.parse_args()
    there = {line["commit"] for line in kept(asked.rows)}
    for commit in asked.commits:
        short = subprocess.run(["git", "rev-parse", "--short", commit], check=True, capture_output=True, text=True, cwd=ROOT)
        if short.stdout.strip() not in there:
            with tempfile.TemporaryDirectory() as folder:
                keep(asked.rows, built(commit, Path(folder)))


if __name__ == "__main__":
    main()
