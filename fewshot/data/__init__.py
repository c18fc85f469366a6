"""From a name, a folder or arrays to a task. (Nothing here imports torch; views and features do.)"""

from __future__ import annotations

import os

from fewshot.data.benchmarks import load_benchmark
from fewshot.data.catalogue import keys, resolve
from fewshot.data.dataset import Dataset, Task
from fewshot.data.draws import export_split, import_split
from fewshot.data.folders import from_arrays, from_csv, from_folder
from fewshot.data.images import ImageArrays, ImageFiles, Images
from fewshot.data.splits import from_split
from fewshot.errors import FewshotError, unknown
from fewshot.paths import path_of

__all__ = [
    "Dataset",
    "ImageArrays",
    "ImageFiles",
    "Images",
    "Task",
    "export_split",
    "from_arrays",
    "from_csv",
    "from_folder",
    "from_split",
    "import_split",
    "load_dataset",
    "load_task",
]


def load_dataset(name: str | os.PathLike, root: str | os.PathLike | None = None, **choices) -> Dataset:
    """A data set by name ("toy/pets", "oxford_pets") or by place (a folder of class folders, or a CSV file).

    root: the data root of the named data sets (default: $FEWSHOT_DATA, else the cache folder), or the folder a CSV
    file's paths start from. A short name ("cars") gives way to a folder of that name.
    choices go to from_folder or from_csv (template, val, test ...). Raises FewshotError for an unknown name.
    """
    text = os.fspath(name)
    if not text.strip():
        raise FewshotError(f"{text!r} is no data set; give a name, a folder or a CSV file.")
    place = path_of(text)
    toy_name = text.startswith("toy/")
    named = not toy_name and (text in keys() or (resolve(text) is not None and not place.exists()))
    if toy_name or named:
        if choices:
            raise FewshotError(f"{text} is fixed and takes no {', '.join(choices)}; folders and CSV files do.")
        if named:
            return load_benchmark(text, root)
        from fewshot import toy

        return toy.load_dataset(text.removeprefix("toy/"))
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
    """Every name load_dataset knows: the toy world's data sets, then those of datasets.yaml."""
    from fewshot import toy

    return [*(f"toy/{name}" for name in (*toy.DATASETS, *toy.LARGE)), *keys()]


def full_name(name: str) -> str:
    """The one name behind a short one ("toy/pets" -> "toy/oxford_pets", "cars" -> "stanford_cars"), else the word itself."""
    from fewshot import toy

    world, _, word = name.partition("/")
    if world == "toy":
        return f"toy/{toy.ALIASES.get(word, word)}"
    return name if name and path_of(name).exists() else resolve(name) or name
