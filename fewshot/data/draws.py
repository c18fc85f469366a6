"""The few shots of a task as a file: which pictures, not which seed. One JSON object per line.

The first line says what was drawn; then comes a line per picture, in drawing order:

    {"dataset": "oxford_pets", "shots": 1, "seed": 1, "order": "coop", "split_hash": "..."}
    {"part": "train", "path": "Abyssinian_122.jpg", "label": 0, "classname": "abyssinian"}

Files of other projects are read too: JSON lines with or without a first line, whose keys may be called impath or image and
class_name or class, and the published index files `shot_K-seed_S.json` of cross_modal_adaptation.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fewshot.cache import writing
from fewshot.data.dataset import Dataset, Task
from fewshot.data.images import ImageArrays, ImageFiles, Images
from fewshot.errors import FewshotError
from fewshot.paths import path_of

IMPORTED = "imported"  # the order of a task whose draw came from elsewhere
_KEYS = {
    "path": ("path", "impath", "image", "file"),
    "classname": ("classname", "class_name", "class"),
    "part": ("part", "split"),
}
_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val"}


def export_split(task: Task, path: str | os.PathLike) -> None:
    """Write the training and validation pictures of a task to `path`; import_split gives an equal task back."""
    head = {key: getattr(task, key) for key in ("dataset", "shots", "seed", "order", "split_hash")}
    with writing(path_of(path)) as partial:
        lines = [head, *(row for part in ("train", "val") for row in _rows(task, part))]
        partial.write_text("".join(map(_as_line, lines)), encoding="utf-8")


def _as_line(value: dict) -> str:
    text = json.dumps(value, ensure_ascii=False)
    readable = text.encode("utf-8", "replace").decode() == text  # else a file name that is no Unicode
    return (text if readable else json.dumps(value)) + "\n"


def import_split(path: str | os.PathLike, dataset: Dataset, part: str = "train") -> Task:
    """The task whose pictures are listed in `path`, drawn from `dataset`; its test pictures are those of the data set.

    A listed path may begin with folders that the data set's own ids do not have. part: for lines that name none.
    Raises FewshotError: no such file, a line that is none, a picture that the data set does not have or has under another
    label, a training picture that is a test picture here, and a draw that differs from the hash in its own first line.
    """
    file = path_of(path)
    head, rows = _read(file, part)
    known = {
        image_id: (which, i)
        for which in ("test", "val", "train")
        for i, image_id in enumerate(getattr(dataset, which).ids)
    }
    drawn: dict[str, list[tuple[str, int]]] = {"train": [], "val": []}
    for line, row in rows:
        image_id = next((tail for tail in _tails(row["path"]) if tail in known), None)
        if image_id is None:
            raise FewshotError(f"{line} names {row['path']!r}, which is no picture of {dataset.name}.")
        which, i = known[image_id]
        if which == "test" and dataset.val is not dataset.test:
            raise FewshotError(
                f"{line} names {image_id!r} for {row['part']}, but it is a test picture of {dataset.name} here."
            )
        label = int(getattr(dataset, which).labels[i])
        if row.get("label", label) != label:
            raise FewshotError(f"{line} gives {image_id!r} label {row['label']}, but in {dataset.name} it has {label}.")
        if _plain(row.get("classname", "")) not in ("", _plain(dataset.classnames[label])):
            raise FewshotError(f"{line} calls {image_id!r} {row['classname']!r}, not {dataset.classnames[label]!r}.")
        drawn[row["part"]].append((which, i))
    train, val = (_pick(dataset, drawn[which]) for which in ("train", "val"))
    if not len(train):
        raise FewshotError(f"{file} lists no training picture.")
    fallback = {"shots": _shots(train), "seed": 0, "order": IMPORTED}
    shots, seed, order = (head.get(key, fallback[key]) for key in ("shots", "seed", "order"))
    task = Task(dataset.name, dataset.classnames, dataset.template, train, val, dataset.test, shots, seed, order)
    if head.get("split_hash", task.split_hash) != task.split_hash:
        raise FewshotError(
            f"{file} was changed after it was written: its pictures do not give the hash in its first line."
        )
    return task


def _rows(task: Task, part: str) -> Iterable[dict]:
    images = getattr(task, part)
    for image_id, label in zip(images.ids, images.labels.tolist()):
        yield {"part": part, "path": image_id, "label": label, "classname": task.classnames[label]}


def _read(file: Path, part: str) -> tuple[dict, list[tuple[str, dict]]]:
    """The first line if it names no picture (else {}), and [(where, row)]."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FewshotError(
            f"the split {file} cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'})."
        ) from error
    if index := _index_file(text):
        return {}, [(f"{file}, {which} {i}", row) for which in ("train", "val") for i, row in enumerate(index[which])]
    head, rows = {}, []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number} of {file}"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise FewshotError(f"{where} is not JSON.") from error
        row = _row(value, part) if isinstance(value, dict) else None
        if row:
            rows.append((where, row))
        elif number == 1 and isinstance(value, dict):
            head = value
        else:
            raise FewshotError(f"{where} names no picture: it needs a path, and label or class, in one JSON object.")
    return head, rows


def _index_file(text: str) -> dict[str, list[dict]] | None:
    """The rows of a published index file, None for another text."""
    try:
        value = json.loads(text)
        return {which: [_row(row, which) for row in value[which]["data"]] for which in ("train", "val")}
    except (ValueError, KeyError, TypeError):
        return None


def _row(value: dict, part: str) -> dict | None:
    """{"path", "part", and what is there of "label" and "classname"}; None when no picture is named."""
    found = {key: value[word] for key, words in _KEYS.items() for word in words if word in value}
    if not isinstance(found.get("path"), str):
        return None
    found["part"] = _PARTS.get(str(found.get("part", part)).lower())
    if found["part"] is None:
        raise FewshotError(
            f"the part of a split must be train or val, not {value.get('part', value.get('split', part))!r}."
        )
    return {**found, **({"label": value["label"]} if "label" in value else {})}


def _tails(path: str) -> Iterable[str]:
    """ "./a/b/c.jpg": itself, then "a/b/c.jpg", "b/c.jpg", "c.jpg"."""
    yield path
    parts = path.replace("\\", "/").split("/")
    for i in range(len(parts)):
        yield "/".join(parts[i:])


def _plain(name: str) -> str:
    return name.replace("_", " ").strip().lower()


def _shots(images: Images) -> int | None:
    counts = set(np.unique(images.labels, return_counts=True)[1].tolist())
    return counts.pop() if len(counts) == 1 else None


def _pick(dataset: Dataset, rows: list[tuple[str, int]]) -> Images:
    """The pictures at these positions of the parts of the data set, in this order."""
    parts = {which for which, _ in rows}
    if len(parts) <= 1:
        return getattr(dataset, *parts or {"train"}).subset([i for _, i in rows])
    chosen = [getattr(dataset, which).subset([i]) for which, i in rows]
    labels = [int(one.labels[0]) for one in chosen]
    ids = [one.ids[0] for one in chosen]
    if all(isinstance(one, ImageFiles) for one in chosen):
        return ImageFiles(chosen[0].root, [one.paths[0] for one in chosen], labels, ids, chosen[0].upright)
    return ImageArrays(np.concatenate([one.pixels for one in chosen]), labels, ids)
