"""Where a data set lies on this disk: data roots, the layouts of its entry, and pictures that a copy calls otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fewshot.cache import cache_dir
from fewshot.data.catalogue import Entry, Layout
from fewshot.data.folders import EXTENSIONS
from fewshot.paths import path_of


class Place(NamedTuple):
    """A data set that was found: `folder` holds its lists and split file, `images` is where the pictures' paths start."""

    layout: Layout
    folder: Path
    images: Path


def data_roots(root: str | os.PathLike | None = None) -> list[Path]:
    """The folders that data sets are looked for in: root, else those of $FEWSHOT_DATA (several: a:b), else the cache."""
    if root is not None:
        return [path_of(root)]
    named = [part for part in os.environ.get("FEWSHOT_DATA", "").split(os.pathsep) if part]
    return [path_of(part) for part in named] or [cache_dir() / "data"]


def find_place(entry: Entry, roots: Iterable[Path]) -> Place | None:
    """The first layout that is there, below the first root that has one. A root may also be the data set's own folder."""
    for root in roots:
        for layout in entry.layouts:
            own = layout.folder != "." and root.name == Path(layout.folder).name
            for folder in (root / layout.folder, *([root] if own else ())):
                if os.path.isdir(folder / layout.images) and all(
                    os.path.exists(folder / name) for name in layout.needs
                ):
                    return Place(layout, folder, folder / layout.images)
    return None


def split_file(entry: Entry, place: Place, roots: Iterable[Path] = ()) -> Path | None:
    """The split file: beside the pictures, in a data root, or in $FEWSHOT_SPLITS; None when it is nowhere."""
    more = [os.environ["FEWSHOT_SPLITS"]] if os.environ.get("FEWSHOT_SPLITS") else []
    for folder in (place.folder, *roots, *(path_of(name) for name in more)):
        if os.path.isfile(folder / entry.split.file):
            return folder / entry.split.file
    return None


class Pictures:
    """The picture files below a folder, listed folder by folder as they are asked for: a listing costs less than N stats."""

    def __init__(self, top: Path, moved: dict[str, str] | None = None, by_name: bool = False):
        self.top, self.moved, self.by_name = top, dict(moved or {}), by_name
        self._names: dict[str, set[str]] = {}  # folder -> its files
        self._stems: dict[str, dict[str, str]] = {}  # folder, or folder/** for all below it -> {stem: the one picture}

    def find(self, path: str) -> str | None:
        """Where the picture that the data set calls `path` is, relative to top; None when it is not there.

        It may have another extension, and with by_name lie in another folder. Two that fit are none.
        """
        first, _, rest = path.partition("/")
        if first in self.moved:
            path = f"{self.moved[first]}/{rest}"
        folder, _, name = path.rpartition("/")
        found = name if name in self._list(folder) else self._by_stem(folder).get(_stem(name))
        if found:
            return f"{folder}/{found}" if folder else found
        return self._anywhere(self.moved.get(first, "")).get(_stem(name)) or None if self.by_name else None

    def _list(self, folder: str) -> set[str]:
        if folder not in self._names:
            try:
                with os.scandir(self.top / folder) as entries:
                    self._names[folder] = {e.name for e in entries if e.is_file()}
            except OSError:
                self._names[folder] = set()
        return self._names[folder]

    def _by_stem(self, folder: str) -> dict[str, str]:
        if folder not in self._stems:
            self._stems[folder] = _unique((name, name) for name in self._list(folder))
        return self._stems[folder]

    def _anywhere(self, below: str) -> dict[str, str]:
        if (key := f"{below}/**") not in self._stems:
            walk = os.walk(self.top / below)
            self._stems[key] = _unique(
                (name, Path(place, name).relative_to(self.top).as_posix()) for place, _, names in walk for name in names
            )
        return self._stems[key]


def _unique(pictures: Iterable[tuple[str, str]]) -> dict[str, str]:
    """{stem: path} of (file name, path); "" where two pictures share a stem."""
    found: dict[str, str] = {}
    for name, path in pictures:
        if _is_picture(name):
            found[_stem(name)] = "" if _stem(name) in found else path
    return found


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(EXTENSIONS)


def _stem(name: str) -> str:
    return os.path.splitext(name)[0].lower()
