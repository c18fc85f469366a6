"""What is the matter with a data set on this disk: found, or what is missing, too many, or not what it should be."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fewshot.data.benchmarks import cub_split, load_benchmark, locate, not_here, read_table, sha256, split_text
from fewshot.data.catalogue import Entry, entry
from fewshot.data.places import Place, data_roots, find_place, split_file
from fewshot.data.splits import PARTS, Rows, classnames_of, read_split
from fewshot.errors import FewshotError

STATES = ("found", "not here", "missing files", "wrong count", "wrong names", "wrong hash", "unreadable")


@dataclass(frozen=True)
class State:
    """`word` is one of STATES, `sentence` says it in full, `place` is where the data set lies (None: nowhere)."""

    name: str
    word: str
    sentence: str
    place: Place | None = None

    @property
    def ok(self) -> bool:
        return self.word == "found"


def check(name: str, root: str | os.PathLike | None = None, pictures: bool = False) -> State:
    """Compare a data set below root (default: the data roots) with datasets.yaml: files, counts, names, hash of the split.

    pictures: also open every picture's header. Raises FewshotError for an unknown name only.
    """
    one, roots = entry(name), data_roots(root)
    place = find_place(one, roots)
    if place is None:
        return State(one.key, "not here", str(not_here(one, roots)))

    def state(word: str, sentence: str) -> State:
        return State(one.key, word, sentence, place)

    if place.layout.selection:
        return _selection(one, place, root)
    file = split_file(one, place, roots) if one.split else None
    if file and (wrong := split_fault(one, file)):
        return state(*wrong)
    try:
        table = read_table(one, place, roots)
        if one.reader == "cub" and not file and not _official_cub(one, place):
            lists = place.images.parent
            return state(
                "wrong hash", f"the lists in {lists} are not the official ones; unpack CUB_200_2011.tgz again."
            )
    except FewshotError as error:
        return state("missing files", str(error))
    _, missing = locate(one, place, table)
    total = sum(len(table.parts[part]) for part in PARTS)
    if missing:
        more = "" if len(missing) == 1 else f" and {len(missing) - 1:,} more"
        sentence = (
            f"{len(missing):,} of {total:,} pictures of {one.key} are missing: {place.images / missing[0]}{more}."
        )
        return state("missing files", sentence)
    counts = {part: len(table.parts[part]) for part in PARTS}
    if counts != one.sizes:
        sentence = f"{one.key} in {place.folder} has {in_words(counts)}, but should have {in_words(one.sizes)}."
        return state("wrong count", sentence)
    if table.classnames and table.classnames != one.names:
        return state("wrong names", _other_names(one, table.classnames, place.folder))
    if pictures and (fault := _unreadable(name, root)):
        return state("unreadable", fault)
    return state("found", f"{one.key} is in {place.folder}: {one.classes:,} classes, {in_words(counts)}.")


def split_fault(one: Entry, file: Path) -> tuple[str, str] | None:
    """(word, sentence) for a split file that is not the right one, None when it is.

    Where no hash was ever published, its sizes, names and folders are compared instead.
    """
    if one.split.sha256:
        if (found := sha256(file)) == one.split.sha256:
            return None
        return "wrong hash", (
            f"{file} is not the split file that the papers used: its sha256 begins with {found[:12]}, not with "
            f"{one.split.sha256[:12]} (CoOp's code writes one of its own when it finds none); move it away and "
            f"`fewshot data fetch {one.key}`."
        )
    try:
        rows = read_split(file)
        names = classnames_of(rows, file)
    except FewshotError as error:
        return "wrong hash", str(error)
    if names != one.names:
        return "wrong names", _other_names(one, names, file)
    if (counts := {part: len(rows[part]) for part in PARTS}) != one.sizes:
        return "wrong count", f"{file} lists {in_words(counts)}, but should list {in_words(one.sizes)}."
    if strange := _strange_rows(one, rows):
        return "wrong names", f"{file} calls {strange[0]} {strange[1]!r}, which is the name of another folder."
    return None


def _official_cub(one: Entry, place: Place) -> bool:
    """Do the official lists give the split whose hash is known?"""
    text = split_text(cub_split(place.images.parent))
    return hashlib.sha256(text.encode()).hexdigest() == one.split.sha256


def in_words(sizes: Mapping[str, int]) -> str:
    """ "2,944 train, 736 val and 3,669 test pictures"; parts that are empty are left out."""
    parts = [f"{sizes[part]:,} {part}" for part in PARTS if sizes[part]] or ["no"]
    return f"{', '.join(parts[:-1])} and {parts[-1]} pictures" if len(parts) > 1 else f"{parts[0]} pictures"


def _strange_rows(one: Entry, rows: Rows) -> tuple[str, str] | None:
    for path, label, name in (row for part in PARTS for row in rows[part]):
        if "/" in path and path.rpartition("/")[0] != one.folders[label]:
            return path, name
    return None


def _other_names(one: Entry, names: tuple[str, ...], where: Path) -> str:
    pairs = zip(names, one.names)
    label, found, wanted = next(
        ((i, a, b) for i, (a, b) in enumerate(pairs) if a != b), (min(len(names), one.classes), "nothing", "a name")
    )
    count = "" if len(names) == one.classes else f"{len(names)} classes instead of {one.classes}, and "
    return f"{where} has {count}class {label} called {found!r}, not {wanted!r}."


def _selection(one: Entry, place: Place, root) -> State:
    """Class folders of some of the classes: whatever is there is read, and the count said."""
    try:
        dataset = load_benchmark(one.key, root)
    except FewshotError as error:
        return State(one.key, "missing files", str(error), place)
    if strange := sorted(set(dataset.classnames) - set(one.names)):
        sentence = f"{place.images} has a class folder {strange[0]!r}, which is no class of {one.title}."
        return State(one.key, "wrong names", sentence, place)
    counts = {part: len(getattr(dataset, part)) for part in PARTS}
    classes = f"{len(dataset.classnames)} of {one.classes} classes"
    sentence = f"{one.key} in {place.folder} is a selection: {classes}, {in_words(counts)}."
    return State(one.key, "found", sentence, place)


def _unreadable(name: str, root) -> str | None:
    dataset = load_benchmark(name, root)
    try:
        for part in PARTS:
            getattr(dataset, part).check_headers()
    except FewshotError as error:
        return str(error)
    return None
