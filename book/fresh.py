"""Measure every committed row again from nothing: no stored row, no cached feature is looked at."""

import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

WORKERS = 2


def measure(committed: Path, folder: Path, say=print) -> Path:
    """Repeat the rows in `committed`/*.jsonl into `folder`/results, say how far they differ, and return that folder.

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

    from fewshot.rows import Rows
    from fewshot.runs import Run, run_grid

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
        # spawned, not forked: torch has threads
        with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
            run_grid(list(here.values()), again, executor=pool)
        gaps = [abs(again.get(one.key)["accuracy"] - stored.get(key)["accuracy"]) for key, one in here.items()]
        say(f"{file.name}: largest difference from the committed rows {max(gaps, default=0):.2f} points")
    unfinished.unlink()
    return results
