"""Build the book: run what is stale, lay everything out in the stage, build it with warnings as errors, look at every page.

    python book/build.py [--fresh]

The finished book is `_build/html/index.html`. A book that fails leaves the one before it in place.
`--fresh` first measures every committed row again from nothing, into `_build/fresh/results`, and shows the book of those.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import check
import execute
import status

ROOT = Path(__file__).resolve().parent.parent
STAGED = ("_config.yml", "_toc.yml", "book", "published", "profiles", "fewshot", "CITATION.cff")
NOT_STAGED = shutil.ignore_patterns("__pycache__", "*.safetensors")


def lay_out(root: Path, stage: Path) -> None:
    """Copy the sources of the book beside the executed notebooks, so that every relative link stays as it is."""
    for name in STAGED:
        source, target = root / name, stage / name
        if target.is_dir():
            shutil.rmtree(target)
        if source.is_dir():
            shutil.copytree(source, target, ignore=NOT_STAGED)
        elif source.exists():
            shutil.copy(source, target)


def sphinx(stage: Path) -> int:
    """A clean build: a page that is not read again would not repeat its warnings."""
    shutil.rmtree(stage / "_build", ignore_errors=True)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [str(jupyter_book), "build", str(stage), "--all", "-W", "--keep-going", "--quiet"]
    with (stage / "book.log").open("w") as log:  # warnings go to stderr and are seen
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log).returncode


def build(root: Path, stage: Path, html: Path, say=print) -> list[str]:
    """Bring `html` up to date with the sources; returns the faults (empty when the book is sound)."""
    say("notebooks")
    try:
        timings = execute.execute(root, stage, say)
    except execute.NotebookFailed as error:
        return [str(error)]
    lay_out(root, stage)
    key = execute.digest([*(stage / name for name in STAGED if (stage / name).exists()), stage / "notebooks"])
    if timings.get("book", {}).get("inputs") == key and (html / "index.html").exists():
        say("book: up to date")
        return []

    say("book: building")
    status.write(root, stage, timings)
    started = time.monotonic()
    if sphinx(stage):
        return ["the book has the errors or warnings named above"]
    if problems := check.faults(stage):
        return problems
    seconds = time.monotonic() - started
    shutil.rmtree(html, ignore_errors=True)
    os.replace(stage / "_build" / "html", html)
    timings["book"] = {"inputs": key, "seconds": round(seconds, 1)}
    execute.write_json(stage / "timings.json", timings)
    say(f"book: built and looked at in {seconds:.0f} s")
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the book into _build/html.")
    parser.add_argument("--fresh", action="store_true", help="measure every committed row again first")
    sys.stdout.reconfigure(line_buffering=True)
    if parser.parse_args().fresh:
        import fresh

        try:
            os.environ["FEWSHOT_RESULTS"] = str(fresh.measure(ROOT / "results", ROOT / "_build" / "fresh"))
        except (ValueError, KeyboardInterrupt) as error:  # FewshotError is a ValueError
            print(error, file=sys.stderr)
            return 1
    problems = build(ROOT, ROOT / "_build" / "stage", ROOT / "_build" / "html")
    if problems:
        print("\n".join(problems), file=sys.stderr)
        print("The book was not built.", file=sys.stderr)
        return 1
    print(f"The book: {ROOT / '_build' / 'html' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
