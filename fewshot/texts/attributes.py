"""CUB's own attributes as sentences: a control without a language model.

CUB_200_2011 asked people of every picture which of 312 values its bird has, such as has_wing_color::blue, and has the share
of a class's pictures with each value, in percent. The shares are over all pictures of a class, test pictures included: this
is what people know of a class, like a language model's sentences, and more than the shots say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from fewshot.errors import FewshotError

SHARES = "attributes/class_attribute_labels_continuous.txt"
NAMES = ("attributes.txt", "attributes/attributes.txt", "../attributes.txt")  # the archive has them outside its folder


def attribute_sentences(classnames: Sequence[str], folder: str | os.PathLike | None = None) -> list[list[str]]:
    """A sentence for each kind of attribute with its most frequent value in the class, the surest value first.

    `folder`: CUB_200_2011, by default where the data set lies. Raises FewshotError where the lists are not there or do not
    fit together, and for a class that is no class of theirs.
    """
    from fewshot.texts import same

    folder = Path(folder) if folder is not None else cub_folder()
    file = next((folder / name for name in NAMES if (folder / name).is_file()), folder / NAMES[0])
    values = [line.split(maxsplit=1)[1].strip() for line in _lines(file)]
    shares = [[float(number) for number in line.split()] for line in _lines(folder / SHARES)]
    names = [line.split(maxsplit=1)[1].partition(".")[2] for line in _lines(folder / "classes.txt")]
    if len(shares) != len(names) or any(len(row) != len(values) for row in shares):
        raise FewshotError(f"the lists of attributes in {folder} do not fit together; unpack CUB_200_2011.tgz again.")
    row_of = {same(name): row for name, row in zip(names, shares, strict=True)}
    for name in classnames:
        if same(name) not in row_of:
            raise FewshotError(f"{name!r} is no class of CUB's attributes; texts_from='attributes' is for cub alone.")
    return [_sentences(name, values, row_of[same(name)]) for name in classnames]


def cub_folder() -> Path:
    """The folder CUB_200_2011 of the data set. Raises FewshotError when it is not on this disk."""
    from fewshot.data.benchmarks import not_here
    from fewshot.data.catalogue import entry
    from fewshot.data.places import data_roots, find_place

    one, roots = entry("cub"), data_roots()
    place = find_place(one, roots)
    if place is None:
        raise not_here(one, roots)
    return place.images.parent


def _sentences(name: str, values: Sequence[str], shares: Sequence[float]) -> list[str]:
    best: dict[str, tuple[float, str]] = {}
    for value, share in zip(values, shares, strict=True):
        kind, _, what = value.partition("::")
        if share > best.get(kind, (0.0, ""))[0]:  # of equals the first
            best[kind] = share, what
    order = sorted(best, key=lambda kind: -best[kind][0])
    return [f"The {name.replace('_', ' ')} is a bird whose {_plain(kind)} is {_plain(best[kind][1])}." for kind in order]


def _plain(value: str) -> str:
    """has_bill_shape -> bill shape; curved_(up_or_down) -> curved."""
    return " ".join(re.sub(r"\(.*?\)", "", value.removeprefix("has_").replace("_", " ")).split())


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise FewshotError(
            f"CUB's attributes cannot be read: {file} ({error.strerror}); unpack the whole CUB_200_2011.tgz."
        ) from error
