"""The data sets that have a name: from the folder they lie in to rows of pictures and labels. Nothing is downloaded here.

What each is called, where it may lie and how large it must be is in datasets.yaml; below is one reader per kind of folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fewshot.data.catalogue import Entry, entry
from fewshot.data.dataset import Dataset
from fewshot.data.folders import EXTENSIONS, from_folder
from fewshot.data.images import ImageFiles
from fewshot.data.places import Pictures, Place, data_roots, find_place, split_file
from fewshot.data.splits import PARTS, Rows, classnames_of, read_split
from fewshot.errors import FewshotError


class Table(NamedTuple):
    """What a folder says it holds: class names, and (path, label) per part, the path as the data set spells it.

    classnames: none where the folder does not say; then they are the catalogue's. listed: the rows are what the folders
    hold, so no picture of theirs can be missing.
    """

    classnames: tuple[str, ...]
    parts: dict[str, list[tuple[str, int]]]
    listed: bool = False


def load_benchmark(name: str, root: str | os.PathLike | None = None) -> Dataset:
    """A data set of datasets.yaml by name or alias, below root (default: the folders of $FEWSHOT_DATA, else the cache).

    The ids of its pictures are the paths of the official archive, wherever a copy keeps them.
    Raises FewshotError for an unknown name, when it is not there, and for the first thing that is missing. Warns when the
    split file is not CoOp's.
    """
    one, roots = entry(name), data_roots(root)
    place = find_place(one, roots)
    if place is None:
        raise not_here(one, roots)
    if place.layout.selection:
        return from_folder(place.images, template=one.template, name=one.key, upright=False)
    if one.split and (file := split_file(one, place, roots)) and one.split.sha256 not in (None, sha256(file)):
        warnings.warn(
            f"{file} is not the file that the papers used (another sha256), so other pictures are drawn from it; "
            f"`fewshot data check {one.key}` says more.",
            stacklevel=2,
        )
    table = read_table(one, place, roots)
    found, missing = locate(one, place, table)
    if missing:
        total = sum(map(len, table.parts.values()))
        raise FewshotError(
            f"{len(missing):,} of {total:,} pictures of {one.key} are not below {place.images}, the first is "
            f"{missing[0]}; `fewshot data list {one.key}` names the layouts that are read."
        )

    def images(part: str) -> ImageFiles:
        rows = table.parts[part]
        paths = [path for path, _ in rows]
        return ImageFiles(place.images, [found[path] for path in paths], [label for _, label in rows], paths)

    test = images("test")
    val = test if table.parts["val"] is table.parts["test"] else images("val")
    return Dataset(one.key, table.classnames or one.classnames, one.template, images("train"), val, test)


def read_table(one: Entry, place: Place, roots: Sequence[Path] = ()) -> Table:
    """The rows of the data set at this place, before anybody looked whether the pictures are there."""
    return READERS[one.reader](one, place, roots)


def locate(one: Entry, place: Place, table: Table) -> tuple[dict[str, str], list[str]]:
    """{path: where the picture is, relative to place.images}, and the paths of the pictures that are nowhere."""
    paths = dict.fromkeys(path for rows in table.parts.values() for path, _ in rows)
    if table.listed:
        return {path: path for path in paths}, []
    pictures = Pictures(place.images, place.layout.moved, one.by_name)
    found: dict[str, str] = {}
    missing = []
    for path in paths:
        where = pictures.find(path)
        if where is None:
            missing.append(path)
        else:
            found[path] = where
    return found, missing


def table_of(rows: Rows, classnames: tuple[str, ...] = ()) -> Table:
    """The table of a split's rows."""
    return Table(classnames, {part: [(path, label) for path, label, _ in rows[part]] for part in PARTS})


def not_here(one: Entry, roots: Sequence[Path]) -> FewshotError:
    """The sentence for a data set that is nowhere below the data roots."""
    looked = ", ".join(str(root) for root in roots)
    return FewshotError(
        f"{one.key} is not on this disk (looked in {looked}): `fewshot data fetch {one.key}` gets it or says how, or set "
        f"FEWSHOT_DATA (or pass root=) to the folder above {one.layouts[0].folder}/."
    )


def sha256(file: str | os.PathLike) -> str:
    """The SHA-256 of a file, in hex digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ---- one reader per kind of folder: (entry, place, data roots) -> Table


def _split(one: Entry, place: Place, roots: Sequence[Path]) -> Table:
    """CoOp's split file; rows keep its order, because the draw depends on it."""
    file = split_file(one, place, roots)
    if file is None:
        raise FewshotError(
            f"{one.key} needs {one.split.file} in {place.folder}: `fewshot data fetch {one.key}` gets it, or say where it "
            "is with FEWSHOT_SPLITS."
        )
    rows = read_split(file)
    return table_of(rows, classnames_of(rows, file))


def _cub(one: Entry, place: Place, roots: Sequence[Path]) -> Table:
    """The split file where there is one, else the same rows from the official lists."""
    file = split_file(one, place, roots)
    rows = read_split(file) if file else cub_split(place.images.parent)
    return table_of(rows, classnames_of(rows, file or place.images.parent))


def cub_split(folder: Path) -> Rows:
    """CUB's official test pictures as test; of the official training pictures of a class round(0.2 n) as val.

    The val pictures are drawn with one random.Random(0), class by class; all parts stay in the order of images.txt.
    `json.dumps(rows, indent=4, separators=(",", ": "))` of it is split_fewshot_CUB200.json, byte by byte.
    """
    paths = dict(_pairs(folder / "images.txt"))
    labels = {i: int(label) - 1 for i, label in _pairs(folder / "image_class_labels.txt")}
    is_train = {i: flag == "1" for i, flag in _pairs(folder / "train_test_split.txt")}
    names = [name.partition(".")[2].replace("_", " ") for _, name in _pairs(folder / "classes.txt")]
    if not paths.keys() == labels.keys() == is_train.keys() or not set(labels.values()) <= set(range(len(names))):
        raise FewshotError(f"the lists in {folder} do not fit together; unpack CUB_200_2011.tgz again.")
    rng, val = random.Random(0), set()
    for label in range(len(names)):
        own = [i for i in paths if labels[i] == label and is_train[i]]
        val |= {own[k] for k in rng.sample(range(len(own)), round(0.2 * len(own)))}
    part_of = {i: "test" if not is_train[i] else "val" if i in val else "train" for i in paths}
    return {p: [(paths[i], labels[i], names[labels[i]]) for i in paths if part_of[i] == p] for p in PARTS}


def _aircraft(one: Entry, place: Place, roots: Sequence[Path]) -> Table:
    """The official lists of the variant level; labels are the lines of variants.txt."""
    variants = [line.strip() for line in _lines(place.folder / "variants.txt")]
    labels = {name: label for label, name in enumerate(variants)}

    def part(which: str) -> list[tuple[str, int]]:
        file = place.folder / f"images_variant_{which}.txt"
        rows = [(number, name.strip()) for number, name in _pairs(file)]
        if strange := [name for _, name in rows if name not in labels]:
            raise FewshotError(f"{file} names the variant {strange[0]!r}, which variants.txt does not have.")
        return [(f"{number}.jpg", labels[name]) for number, name in rows]

    return Table(tuple(variants), {which: part(which) for which in PARTS})


def _imagenet(one: Entry, place: Place, roots: Sequence[Path]) -> Table:
    """Train and the official validation pictures as val and test; labels are the ranks of the sorted class folders.

    File names are sorted within a class. CoOp lists them in the order of the file system, so its few shots on ImageNet
    cannot be drawn again anywhere else.
    """
    val = _class_folders(one, place.images, "val/")
    return Table((), {"train": _class_folders(one, place.images, "train/"), "val": val, "test": val}, True)


def _wnids(one: Entry, place: Place, roots: Sequence[Path]) -> Table:
    """Test pictures only, in folders called by WordNet ids; labels are the ranks of these folders."""
    return Table((), {"train": [], "val": [], "test": _class_folders(one, place.images)}, True)


def _numbered(one: Entry, place: Place, roots: Sequence[Path]) -> Table:
    """Test pictures only, in folders 0 .. 999, which are the labels ("10" comes after "9")."""
    test = _class_folders(one, place.images, folders=[str(label) for label in range(one.classes)])
    return Table((), {"train": [], "val": [], "test": test}, True)


def _grocery(one: Entry, place: Place, roots: Sequence[Path]) -> Table:
    """The official lists: lines "path, label, coarse label"."""

    def part(which: str) -> list[tuple[str, int]]:
        file = place.folder / f"{which}.txt"
        try:
            return [(path.strip(), int(label)) for path, label, _ in (line.split(",") for line in _lines(file))]
        except ValueError as error:
            raise FewshotError(f'{file} must hold lines of "path, label, coarse label".') from error

    return Table((), {which: part(which) for which in PARTS})


READERS = {"split": _split, "cub": _cub, "aircraft": _aircraft, "imagenet": _imagenet, "wnids": _wnids,
           "numbered": _numbered, "grocery": _grocery}  # fmt: skip


def _class_folders(
    one: Entry, top: Path, part: str = "", folders: Sequence[str] | None = None
) -> list[tuple[str, int]]:
    """(path, label) of the pictures in the class folders of top/part, sorted; FewshotError unless all of them are there."""
    folders = one.folders if folders is None else folders
    here = set(_names(top / part, os.DirEntry.is_dir))
    if here != set(folders):
        strange = sorted(here - set(folders))
        more = f", and {strange[0]} is none of them" if strange else ""
        raise FewshotError(
            f"{top / part} must hold the {one.classes} class folders of {one.title}, but holds "
            f"{len(here & set(folders))}{more}."
        )
    return [
        (f"{part}{folder}/{name}", label)
        for label, folder in enumerate(folders)
        for name in _names(top / part / folder, os.DirEntry.is_file)
        if name.lower().endswith(EXTENSIONS)
    ]


def _names(folder: Path, kind) -> list[str]:
    """The sorted names of the visible files, or folders, in a folder; none where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.name[0] != "." and kind(e))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FewshotError(f"{folder} cannot be listed ({error.strerror}).") from error


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise FewshotError(f"{file} cannot be read ({error.strerror}); it is part of the official archive.") from error


def _pairs(file: Path) -> list[tuple[str, str]]:
    """Lines "word rest" as (word, rest)."""
    pairs = [line.split(" ", 1) for line in _lines(file)]
    if any(len(pair) != 2 for pair in pairs):
        raise FewshotError(f"{file} must hold two columns with a space between them.")
    return [(first, rest.strip()) for first, rest in pairs]


def split_text(rows: Rows) -> str:
    """A split as CoOp's code writes it: JSON with indent 4, no line break at the end."""
    return json.dumps({part: rows[part] for part in PARTS}, indent=4, separators=(",", ": "))
