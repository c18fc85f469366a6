"""From a name, a folder or arrays to a task. (Nothing here imports torch; views and features do.)"""

from __future__ import annotations

import os
from pathlib import Path

from fewshot.data.benchmarks import BENCHMARKS, load_benchmark
from fewshot.data.dataset import Dataset, Task
from fewshot.data.folders import from_arrays, from_csv, from_folder
from fewshot.data.images import ImageArrays, ImageFiles, Images
from fewshot.data.splits import from_split
from fewshot.errors import FewshotError, unknown

__all__ = [
    "Dataset",
    "ImageArrays",
    "ImageFiles",
    "Images",
    "Task",
    "from_arrays",
    "from_csv",
    "from_folder",
    "from_split",
    "load_dataset",
    "load_task",
]


def load_dataset(name: str | os.PathLike, root: str | os.PathLike | None = None, **choices) -> Dataset:
    """A data set by name ("toy/pets", "oxford_pets") or by place (a folder of class folders, or a CSV file).

    root: the data root of the named benchmarks (default $FEWSHOT_DATA), or the folder a CSV file's paths start from.
    choices go to from_folder or from_csv (template, val, test ...). Raises FewshotError for an unknown name.
    """
    text = os.fspath(name)
    if text.startswith("toy/") or text in BENCHMARKS:
        if choices:
            raise FewshotError(f"{text} is fixed and takes no {', '.join(choices)}; folders and CSV files do.")
        if text in BENCHMARKS:
            return load_benchmark(text, root)
        from fewshot import toy

        return toy.load_dataset(text.removeprefix("toy/"))
    place = Path(text).expanduser()
    if place.suffix.lower() == ".csv":
        return from_csv(place, root=root, **choices)
    if place.exists() or text.startswith((".", "~", "/")) or len(place.parts) > 1:
        return from_folder(place, **choices)
    raise unknown("data set", text, [*dataset_names(), "or the path of a folder"])


def load_task(
    name: str | os.PathLike,
    shots: int | None,
    seed: int = 1,
    order: str = "coop",
    *,
    allow_fewer: bool = False,
    **choices,
) -> Task:
    """`load_dataset(name, **choices).task(shots, seed, order)`: the few-shot task in one call."""
    return load_dataset(name, **choices).task(shots, seed, order, allow_fewer=allow_fewer)


def dataset_names() -> list[str]:
    """Every name load_dataset knows: the toy world's data sets, then the benchmarks on disk."""
    from fewshot import toy

    return [*(f"toy/{name}" for name in toy.DATASETS), *BENCHMARKS]
