"""A disk that is full, has no room for another file, or is read-only: a tmpfs of some kilobytes (needs root on Linux).

Rows, weights, cached features and an executed notebook are written on it; each must end in one sentence and leave what was
there as it was, and go on when there is room again.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from fewshot.errors import FewshotError

from .grid import judged, whole
from .kills import EXPECTED, answer_of, shared

FULL, ROOMY = "size=4k", "size=64m,nr_inodes=10k"


def possible() -> bool:
    """Can this process make a disk?"""
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A small disk at folder/disk, as long as the block lasts."""
    place = folder / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "fewshot-fault", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def changed(place: Path, options: str) -> None:
    """More room, or none to write."""
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


def said_by(work: Callable[[Path], object], path: Path) -> str:
    """The sentence that it ends in, without the folder's name; empty where it comes to its end."""
    try:
        work(path)
    except FewshotError as error:
        return str(error).replace(f"{path.parent}{os.sep}", "")
    return ""


def full_of_rows(folder: Path, rng: random.Random) -> dict:
    """The disk becomes full while rows are written."""
    return _rows(folder, f"size={4 * rng.randint(2, 8)}k")


def out_of_names(folder: Path, rng: random.Random) -> dict:
    """No further file can be made, so that the next run cannot be claimed."""
    return _rows(folder, f"size=1m,nr_inodes={rng.randint(2, 4)}")


def read_only_rows(folder: Path, rng: random.Random) -> dict:
    """The folder of the rows can be read and not be written."""
    with disk(folder, ROOMY) as place:
        changed(place, "ro")
        said = said_by(shared, place / "r.jsonl")
        changed(place, "rw")
        shared(place / "r.jsonl")
        return {"said": said} | judged(place / "r.jsonl", [], EXPECTED)


def _rows(folder: Path, options: str) -> dict:
    with disk(folder, options) as place:
        path = place / "r.jsonl"
        said = said_by(shared, path)
        before = whole(path)
        changed(place, ROOMY)
        shared(path)
        return {"disk": options, "said": said} | judged(path, before, EXPECTED)


# ---- what is computed once and kept


def _written(folder: Path, option: str, write: Callable[[Path], bytes]) -> dict:
    """`write` on a disk that cannot take it, and again when it can: nothing there at first, the same as elsewhere at last."""
    expected = write(folder / "elsewhere")
    with disk(folder, ROOMY if option == "ro" else option) as place:
        if option == "ro":
            changed(place, "ro")
        said = said_by(write, place)
        left = [p for p in place.rglob("*") if p.is_file() and p.suffix != ".lock"]
        changed(place, "rw" if option == "ro" else ROOMY)
        return {"disk": option, "said": said, "torn": len(left), "same": write(place) == expected}


def full_of_weights(folder: Path, rng: random.Random) -> dict:
    """A fitted model is saved."""
    return answer_of(_written, folder, FULL, save_model)


def full_of_features(folder: Path, rng: random.Random) -> dict:
    """Features of pictures are cached."""
    return answer_of(_written, folder, FULL, cache_features)


def full_of_notebook(folder: Path, rng: random.Random) -> dict:
    """An executed notebook is written."""
    return answer_of(_written, folder, FULL, run_notebook)


def read_only_weights(folder: Path, rng: random.Random) -> dict:
    return answer_of(_written, folder, "ro", save_model)


def read_only_features(folder: Path, rng: random.Random) -> dict:
    return answer_of(_written, folder, "ro", cache_features)


def read_only_notebook(folder: Path, rng: random.Random) -> dict:
    return answer_of(_written, folder, "ro", run_notebook)


def save_model(place: Path) -> bytes:
    """The bytes of a saved model."""
    import fewshot

    task = fewshot.load_task("toy/eurosat", 1)
    path = place / "m.safetensors"  # 32 kB
    fewshot.fit("clip_adapter", fewshot.load_clip("toy"), task, epochs=1, views=1, progress=False).save(path)
    return path.read_bytes()


def cache_features(place: Path) -> bytes:
    """The features of some pictures, from a cache in this place."""
    import fewshot

    os.environ["FEWSHOT_CACHE"] = str(place / "cache")
    pictures = fewshot.load_dataset("toy/eurosat").test.subset(range(40))
    return fewshot.image_features(fewshot.load_clip("toy"), pictures).numpy().tobytes()


def run_notebook(place: Path) -> bytes:
    """The text that a notebook of one cell printed."""
    import nbformat

    from fewshot.__main__ import main

    place.mkdir(exist_ok=True)
    source = place.parent / "book.ipynb"
    cells = [nbformat.v4.new_code_cell("n: int = 60_000"), nbformat.v4.new_code_cell("print('row ' * n)")]
    cells[0].metadata["tags"] = ["parameters"]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(book, source)
    with redirect_stderr(io.StringIO()) as said, redirect_stdout(io.StringIO()):
        code = main(["notebook", str(source), "-o", str(place / "out.ipynb")])
    if code:
        raise FewshotError(said.getvalue().splitlines()[-1])
    (out,) = nbformat.read(place / "out.ipynb", 4).cells[-1].outputs
    return out.text.encode()
