"""Split files of the CoOp protocol (`split_zhou_<Name>.json`): lists of [path, label, class name].

Rows keep their file order, because the few-shot draw depends on it. Format: Zhou et al., CoOp (arXiv:2109.01134).
"""

from __future__ import annotations

import json
import os

from fewshot.data.dataset import Dataset
from fewshot.data.images import ImageFiles
from fewshot.errors import FewshotError
from fewshot.paths import path_of

PARTS = ("train", "val", "test")
Rows = dict[str, list[tuple[str, int, str]]]


def read_split(path: str | os.PathLike) -> Rows:
    """{"train" | "val" | "test": [(path, label, class name), ...]}; FewshotError when the file is not of this form."""
    file = path_of(path)
    try:
        split = json.loads(file.read_text(encoding="utf-8"))
        return {part: [(str(p), int(label), str(name)) for p, label, name in split[part]] for part in PARTS}
    except OSError as error:
        raise FewshotError(f"the split file {file} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FewshotError(
            f"{file} is no split file: it must be JSON with train, val and test, each a list of "
            "[path, label, class name]."
        ) from error


def from_split(
    path: str | os.PathLike, root: str | os.PathLike, *, template: str = "a photo of a {}.", name: str | None = None
) -> Dataset:
    """The data set of a split file whose paths are relative to `root`.

    Raises FewshotError when the file is malformed, labels are not 0..C-1 with one name each, or a picture is missing.
    """
    file, top = path_of(path), path_of(root)
    rows = read_split(file)
    classnames = classnames_of(rows, file)
    wanted = [p for part in rows.values() for p, _, _ in part]
    missing = [p for p in wanted if not (top / p).is_file()]
    if missing:
        raise FewshotError(
            f"{len(missing)} of {len(wanted)} pictures of {file.name} are not below {top}, the first is "
            f"{missing[0]}; is this the folder the split file's paths start from?"
        )
    parts = [ImageFiles(top, [p for p, _, _ in part], [label for _, label, _ in part]) for part in rows.values()]
    name = name or file.stem.removeprefix("split_zhou_")
    return Dataset(name, classnames, template, *parts)


def classnames_of(rows: Rows, file: str | os.PathLike) -> tuple[str, ...]:
    """The C class names of a split in label order; FewshotError unless labels are 0..C-1 with one name each."""
    names: dict[int, str] = {}
    for _, label, classname in (row for part in rows.values() for row in part):
        if names.setdefault(label, classname) != classname:
            raise FewshotError(f"{file} gives label {label} two names, {names[label]!r} and {classname!r}.")
    if sorted(names) != list(range(len(names))):
        raise FewshotError(f"the labels of {file} are not 0 to {len(names) - 1} without gaps.")
    return tuple(names[i] for i in sorted(names))
