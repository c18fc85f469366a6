"""Run the notebooks with their default parameters into the stage; only those whose inputs changed are run again.

A notebook's inputs are its own source and everything it can read: the package, the measured rows, the profiles, the papers'
numbers, the pinned environment. What ran, when and for how long stands in `timings.json` in the stage.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import nbformat

JOBS = 2
READ_BY_ALL = ("fewshot", "profiles", "published", "requirements.lock")
SOURCES = {".py", ".json", ".jsonl", ".csv", ".yaml", ".yml", ".safetensors", ".txt"}
SOURCES |= {".md", ".ipynb", ".bib", ".css", ".js", ".svg", ".png"}
KERNEL_TROUBLE = ("Kernel died before replying", "Kernel didn't respond", "Address already in use")


class NotebookFailed(Exception):
    """A notebook stopped with an error; the message is the end of its log."""


def digest(paths: Iterable[Path]) -> str:
    """16 hex digits over names and contents of all source files at or below `paths`."""
    found = hashlib.sha256()
    for path in paths:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in SOURCES and p.is_file())
        for file in files:
            found.update(f"{file.relative_to(path.parent)}\0".encode())
            found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:16]


def results_folder(root: Path) -> Path:
    return Path(os.environ.get("FEWSHOT_RESULTS") or root / "results").resolve()


def run(source: Path, target: Path) -> float:
    """Execute `source` into `target`, which appears only when all went well, with a log beside it; returns the seconds."""
    log, partial = target.with_suffix(".log"), target.with_suffix(".partial.ipynb")
    command = [sys.executable, "-m", "papermill", str(source), str(partial), "--kernel", "python3"]
    command += ["--cwd", str(source.parent), "--no-progress-bar", "--log-output"]
    threads = str(max(1, (os.cpu_count() or 1) // JOBS))
    environment = {"OMP_NUM_THREADS": threads, "PYDEVD_DISABLE_FILE_VALIDATION": "1"} | os.environ
    for attempt in (1, 2):
        started = time.monotonic()
        with log.open("w") as out:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment)
        seconds = time.monotonic() - started
        if done.returncode == 0:
            break
        said = log.read_text()
        if attempt == 2 or not any(trouble in said for trouble in KERNEL_TROUBLE):  # a lost race for a port is tried once more
            tail = "\n".join(said.splitlines()[-60:])
            raise NotebookFailed(f"{source.name} failed (exit {done.returncode}); the end of {log}:\n{tail}")
    without_traces(partial)
    os.replace(partial, target)
    return seconds


def without_traces(path: Path) -> None:
    """Remove papermill's times, machine paths and environment, which the page's download button would hand out."""
    notebook = nbformat.read(path, as_version=4)
    for holder in (notebook, *notebook.cells):
        holder.metadata.pop("papermill", None)
    nbformat.write(notebook, path)


def execute(root: Path, stage: Path, say=print) -> dict:
    """Bring `stage`/notebooks up to date with `root`/notebooks; returns and stores the timings.

    Raises NotebookFailed with the end of the log; notebooks that finished before stay finished.
    """
    sources = sorted((root / "notebooks").glob("*.ipynb"))
    folder, record = stage / "notebooks", stage / "timings.json"
    folder.mkdir(parents=True, exist_ok=True)
    timings = json.loads(record.read_text()) if record.exists() else {}
    known = timings.get("notebooks", {})
    shared = digest([*(root / name for name in READ_BY_ALL if (root / name).exists()), results_folder(root)])

    for old in folder.glob("*.ipynb"):
        if not (root / "notebooks" / old.name).exists():
            old.unlink()
    timings["notebooks"] = {s.stem: known[s.stem] for s in sources if s.stem in known}
    key = {s: f"{shared}-{digest([s])}" for s in sources}
    todo = []
    for source in sources:
        last = timings["notebooks"].get(source.stem, {})
        if (folder / source.name).exists() and last.get("inputs") == key[source]:
            say(f"  {source.stem}: up to date ({last['seconds']:.0f} s on {last['finished'][:10]})")
        else:
            todo.append(source)

    def one(source: Path) -> None:
        say(f"  {source.stem}: running")
        seconds = run(source, folder / source.name)
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        timings["notebooks"][source.stem] = {"inputs": key[source], "seconds": round(seconds, 1), "finished": finished}
        write_json(record, timings)
        say(f"  {source.stem}: done in {seconds:.0f} s")

    # the longest first, so that the last one to finish is a short one
    todo.sort(key=lambda s: -known.get(s.stem, {}).get("seconds", 1e9))
    with ThreadPoolExecutor(JOBS) as pool:
        futures = [pool.submit(one, source) for source in todo]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    write_json(record, timings)
    return timings


def write_json(path: Path, content: dict) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    os.replace(partial, path)
