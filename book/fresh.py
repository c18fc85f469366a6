"""Measure every committed row again from nothing: no stored row, no cached feature is looked at."""

import json
import multiprocessing
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

WORKERS = 2


def measure(committed: Path, folder: Path, say=print) -> Path:
    """Repeat the rows in `committed`/*.jsonl into `folder`/results, say how far they differ, and return that folder.

    `fresh.json` in it says how long that took and how large the largest difference was; copied to `committed`, it is what
    the status page shows.

    Rows of weights or pictures that do not ship with the package are copied as they are, and counted. An interrupted
    measurement goes on where it stopped; a finished one starts again from nothing. Raises FewshotError when a run fails.
    """
    unfinished, results = folder / "unfinished", folder / "results"
    if not unfinished.exists():
        shutil.rmtree(folder, ignore_errors=True)
    results.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    os.environ["FEWSHOT_CACHE"] = str(folder / "cache")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))

    from fewshot.grids import run_grid
    from fewshot.rows import Rows
    from fewshot.runs import Run, hardware, run
    from fewshot.studies import STUDIES, study

    began, resumed, worst, count = time.monotonic(), any(results.glob("*.jsonl")), 0.0, 0
    for file in sorted(committed.glob("*.jsonl")):
        stored, again = Rows(file), Rows(results / file.name)
        here, elsewhere = {}, []
        for row in stored.frame().to_dict("records"):
            one = Run.from_row(row)
            if one.backbone == "toy" and one.dataset.startswith("toy/"):
                here[row["key"]] = one
            else:
                elsewhere.append(row["key"])
        for key in elsewhere:
            if key not in again:
                again.append(stored.get(key))
        say(f"{file.name}: {len(here)} rows to measure, {len(elsewhere)} taken as they are (not of the toy world)")
        name = file.stem.rpartition("-")[0]
        run_one = getattr(study(name), "run_one", run) if name in STUDIES else run
        # spawned, not forked: torch has threads
        with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
            run_grid(list(here.values()), again, executor=pool, run_one=run_one)
        gaps = [abs(again.get(one.key)["accuracy"] - stored.get(key)["accuracy"]) for key, one in here.items()]
        worst, count = max([worst, *gaps]), count + len(gaps)
        say(f"{file.name}: largest difference from the committed rows {max(gaps, default=0):.2f} points")
    took = {"rows": count, "minutes": round((time.monotonic() - began) / 60, 1), "workers": WORKERS, "hardware": hardware(),
            "largest_difference": round(worst, 2), "date": datetime.now(UTC).date().isoformat()}  # fmt: skip
    if not resumed:  # a time with a break in it is no time
        (results / "fresh.json").write_text(json.dumps(took, indent=1) + "\n")
    unfinished.unlink()
    return results
