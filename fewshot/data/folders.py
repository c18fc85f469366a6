"""Your own pictures as a data set: a folder, a CSV file, or arrays.

Where no split is given, each class is divided by itself: its pictures are put in the order of a hash of (split_seed,
id), the first share becomes test, the next val, the rest train. Adding a picture therefore moves no other class, and
hardly any picture of its own. The default shares are CoOp's for data sets without an official split: half train, 20 %
val, 30 % test.

All three readers follow the same rule for what is missing:
- train, val and test given: as given;
- train and test: val is taken out of train;
- train and val: val serves as test (as ImageNet's does) and a new val is taken out of train;
- nothing, or train alone: val and test are taken out of it.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewshot.data.dataset import Dataset, check_template
from fewshot.data.images import ImageArrays, ImageFiles, Images
from fewshot.errors import FewshotError, unknown
from fewshot.paths import path_of

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def from_folder(
    path: str | os.PathLike,
    *,
    template: str = "a photo of a {}.",
    val: float = 0.2,
    test: float = 0.3,
    split_seed: int = 1,
    name: str | None = None,
    upright: bool = True,
) -> Dataset:
    """A folder of class folders, or of train/ and test/ (and val/) folders that hold class folders.

    Classes are the folder names in sorted order; pictures are found at any depth inside and sorted by path. A folder
    counts as split when it has train/ beside test/ or val/ (or train/ alone); other folders beside them are left out. A
    flat folder is divided per class as the module says, with val and test the shares and split_seed the seed. Hidden
    files and files that are no pictures by extension are ignored; every picture's header is read, none is decoded.
    upright: turn pictures as their EXIF orientation says; False reads them as stored, as the named data sets are.
    Raises FewshotError, naming the file or folder: no such folder, no class folders, one class only, a class without
    pictures (in any part), an unreadable picture.
    """
    root = path_of(path)
    check_template(template)
    if root.is_file():
        raise FewshotError(f"{root} is a file; from_folder needs a folder with one folder per class.")
    if not root.is_dir():
        raise FewshotError(f"the folder {root} does not exist (looked in {Path.cwd()}).")
    folders = _folders(root)
    parts = _part_folders(folders)
    tops = {part: root / folder for part, folder in parts.items()} or {None: root}
    classnames = _class_names(tops.get("train", root))
    paths, labels, given = [], [], []
    for part, top in tops.items():
        _same_classes(classnames, _folders(top), top)
        for label, classname in enumerate(classnames):
            found = _pictures(root, top / classname)
            paths += found
            labels += [label] * len(found)
            given += [part] * len(found)
    images = ImageFiles(root, paths, labels, upright=upright)
    images.check_headers()
    name = name or root.resolve().name
    return _divide(name, images, classnames, template, given if parts else None, val, test, split_seed)


def from_csv(
    path: str | os.PathLike,
    *,
    root: str | os.PathLike | None = None,
    template: str = "a photo of a {}.",
    val: float = 0.2,
    test: float = 0.3,
    split_seed: int = 1,
    name: str | None = None,
    upright: bool = True,
) -> Dataset:
    """A CSV file with columns image, class and perhaps split (train, val, test); comma, semicolon or tab.

    image is a path relative to `root` (default: the folder of the CSV file); classes are sorted by name. upright: as in
    from_folder.
    Raises FewshotError, naming file and line: missing column or value, unknown split, missing or unreadable picture.
    """
    file = path_of(path)
    check_template(template)
    if not file.is_file():
        raise FewshotError(f"the CSV file {file} does not exist (looked in {Path.cwd()}).")
    top = file.parent if root is None else path_of(root)
    paths, names, given = _csv_rows(file, top)
    classnames = _at_least_two(sorted(set(names)), file)
    images = ImageFiles(top, paths, [classnames.index(n) for n in names], upright=upright)
    images.check_headers()
    return _divide(name or file.stem, images, classnames, template, given, val, test, split_seed)


def from_arrays(
    images,
    labels,
    classnames: Sequence[str],
    *,
    split: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    template: str = "a photo of a {}.",
    val: float = 0.2,
    test: float = 0.3,
    split_seed: int = 1,
    name: str = "arrays",
) -> Dataset:
    """Pictures in memory: a numpy array or torch tensor, N pictures of one size.

    images: [N,H,W,3], [N,3,H,W], or grey as [N,H,W], [N,H,W,1], [N,1,H,W]; uint8 0..255, or floats in 0..1.
    labels: N whole numbers, positions in classnames.
    split: N times "train", "val" or "test"; None divides per class.
    Raises FewshotError naming the shape, type or value that does not fit.
    """
    check_template(template)
    pixels = _pixels(images)
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu().numpy()
    labels = np.asarray(labels)
    if labels.shape != (len(pixels),):
        raise FewshotError(f"{len(pixels)} pictures need labels of shape [{len(pixels)}], not {list(labels.shape)}.")
    if len(pixels) == 0:
        raise FewshotError("there are no pictures: the array is empty.")
    if labels.dtype.kind not in "iu":
        raise FewshotError(f"labels must be whole numbers (positions in classnames), not {labels.dtype}.")
    classnames = _at_least_two(list(classnames), "classnames")
    absent = sorted(set(range(len(classnames))) - set(labels.tolist()))
    if absent:
        raise FewshotError(
            f"class {classnames[absent[0]]!r} (label {absent[0]}) has no picture; "
            "give it some or leave it out of classnames."
        )
    if split is not None:
        split = [str(s) for s in split]
        if len(split) != len(pixels):
            raise FewshotError(f"{len(pixels)} pictures need as many split values, not {len(split)}.")
        if bad := set(split) - set(_PARTS):
            raise unknown("split", sorted(bad)[0], ("train", "val", "test"))
        split = [_PARTS[s] for s in split]
    return _divide(name, ImageArrays(pixels, labels, ids), classnames, template, split, val, test, split_seed)


# ---- what is in a folder


def _folders(path: Path) -> list[str]:
    """Names of the visible folders in `path`, sorted."""
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith((".", "__MACOSX")))


def _part_folders(folders: list[str]) -> dict[str, str]:
    """{"train": its folder, ...} when these are the folders of a split data set, else {}."""
    parts: dict[str, str] = {}
    for folder in folders:
        if (part := _PARTS.get(folder.lower())) and parts.setdefault(part, folder) != folder:
            raise FewshotError(f"the folders {parts[part]!r} and {folder!r} both look like the {part} part; keep one.")
    return parts if "train" in parts and (len(parts) > 1 or len(folders) == 1) else {}


def _class_names(top: Path) -> list[str]:
    names = _folders(top)
    if not names:
        loose = sum(_is_picture(f) for f in os.listdir(top))
        holds = f"it holds {loose} pictures directly" if loose else "it holds no folders at all"
        raise FewshotError(f"{top} has no class folders ({holds}); give every class a folder of its own.")
    return _at_least_two(names, top)


def _at_least_two(names: list[str], where) -> list[str]:
    if len(names) < 2:
        raise FewshotError(
            f"there is {'only one class, ' + repr(names[0]) if names else 'no class'}, in {where}; "
            "telling classes apart needs at least two."
        )
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise FewshotError(f"a class of {where} has no name; give every class a text that is not empty.")
    read: dict[str, int] = {}  # as a prompt has it
    for label, name in enumerate(names):
        first = read.setdefault(" ".join(name.replace("_", " ").lower().split()), label)
        if first != label:
            raise FewshotError(
                f"the classes {names[first]!r} and {name!r} of {where} read the same in a prompt; rename one."
            )
    return names


def _same_classes(classnames: list[str], found: list[str], top: Path) -> None:
    if missing := sorted(set(classnames) - set(found)):
        raise FewshotError(f"class {missing[0]!r} has a training folder but none in {top}; every class needs one.")
    if extra := sorted(set(found) - set(classnames)):
        raise FewshotError(f"class {extra[0]!r} is in {top} but has no training folder; add one or remove it.")


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(EXTENSIONS)


def _pictures(root: Path, folder: Path) -> list[str]:
    """The picture files below `folder`, as sorted paths relative to `root` with forward slashes."""
    found, other = [], Counter()
    for place, inside, files in os.walk(folder):
        inside[:] = [d for d in inside if not d.startswith((".", "__MACOSX"))]
        for file in files:
            if _is_picture(file):
                found.append(Path(place, file).relative_to(root).as_posix())
            elif not file.startswith("."):
                other[Path(file).suffix.lower() or "nameless"] += 1
    if not found:
        kind, count = other.most_common(1)[0] if other else ("", 0)
        holds = f"it holds {count} {kind} files; convert them to JPEG or PNG" if other else "fill or remove it"
        raise FewshotError(f"the class folder {folder} holds no picture: {holds}.")
    return sorted(found)


# ---- what is in a CSV file


def _csv_rows(file: Path, root: Path) -> tuple[list[str], list[str], list[str] | None]:
    paths, names, given = [], [], []
    with file.open(newline="", encoding="utf-8-sig") as stream:
        try:
            header = stream.readline()
            reader = csv.DictReader(
                stream,
                [h.strip().strip('"').lower() for h in header.split(_delimiter(header))],
                delimiter=_delimiter(header),
                restval="",
            )
            for column in ("image", "class"):
                if column not in reader.fieldnames:
                    raise FewshotError(
                        f"{file} has no column {column!r} (its columns: {', '.join(reader.fieldnames)}); "
                        "the first line must name image, class and perhaps split."
                    )
            with_split = "split" in reader.fieldnames
            for row in reader:
                line = f"line {reader.line_num + 1} of {file}"
                image, label = row["image"].strip(), row["class"].strip()
                if not image or not label:
                    raise FewshotError(
                        f"{line} has no {'class' if image else 'image'}; give it one, or delete the line."
                    )
                if not (root / image).is_file():
                    raise FewshotError(f"{line} names a picture that does not exist: {root / image}.")
                if with_split:
                    part = _PARTS.get(row["split"].strip().lower())
                    if part is None:
                        raise FewshotError(f"{line} has split {row['split']!r}; it must be train, val or test.")
                    given.append(part)
                paths.append(image)
                names.append(label)
        except UnicodeDecodeError as error:
            raise FewshotError(f"{file} is not UTF-8 text; save it as CSV UTF-8.") from error
        except csv.Error as error:
            raise FewshotError(f"{file} is not CSV after line {reader.line_num + 1} ({error}); correct it.") from error
    if not paths:
        raise FewshotError(f"{file} lists no picture; add a line for each.")
    return paths, names, given if with_split else None


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


# ---- what is in an array


def _pixels(images) -> np.ndarray:
    """uint8 [N,3,H,W] from any of the layouts of from_arrays."""
    if hasattr(images, "detach"):
        images = images.detach().cpu().numpy()
    try:
        pixels = np.asarray(images)
    except ValueError as error:  # pictures of several sizes
        raise FewshotError("the pictures have no common size; save them to files and use from_folder.") from error
    shape = list(pixels.shape)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim != 4:
        raise FewshotError(f"images must be [N,H,W,3], [N,3,H,W] or grey [N,H,W], not {shape}.")
    first, last = pixels.shape[1] in (1, 3), pixels.shape[3] in (1, 3)
    if first and last:
        raise FewshotError(f"images of shape {shape} could be [N,3,H,W] or [N,H,W,3]; give larger pictures.")
    if not first and not last:
        raise FewshotError(
            f"images of shape {shape} have no colour axis of length 3 (or 1) at position 1 or 3; "
            "drop an alpha channel first."
        )
    if last:
        pixels = pixels.transpose(0, 3, 1, 2)
    if pixels.shape[1] == 1:
        pixels = np.repeat(pixels, 3, axis=1)
    if pixels.dtype.kind == "f":
        if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):
            raise FewshotError(
                f"float pictures must lie in 0..1, not {pixels.min():.3g}..{pixels.max():.3g}; "
                "give uint8 0..255, before any normalisation."
            )
        pixels = np.rint(pixels * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise FewshotError(
            f"images must be uint8 0..255 or floats 0..1, not {pixels.dtype}; images.astype('uint8') if the values fit."
        )
    return np.ascontiguousarray(pixels)


# ---- train, val and test


def _divide(
    name: str,
    images: Images,
    classnames: Sequence[str],
    template: str,
    given: list[str] | None,
    val: float,
    test: float,
    split_seed: int,
) -> Dataset:
    """The data set: parts as given, and what is missing taken out of train, per class (the module says how)."""
    if not (0 <= val and 0 <= test and val + test < 1):
        raise FewshotError(f"val={val} and test={test} are shares of each class and must leave some for train.")
    part = np.array(["train"] * len(images) if given is None else given, dtype=object)
    if "train" not in part:
        raise FewshotError(f"{name} has no training pictures: nothing has split train.")
    if "test" not in part and "val" in part:
        part[part == "val"] = "test"
    take_test, take_val = "test" not in part, "val" not in part
    for label, classname in enumerate(classnames):
        own = np.flatnonzero((images.labels == label) & (part == "train"))
        if len(own) == 0:
            raise FewshotError(f"class {classname!r} of {name} has no training picture; add some or drop it.")
        if take_test and test and len(own) == 1:
            raise FewshotError(
                f"class {classname!r} of {name} has a single picture, but needs one to learn from "
                "and one to test on; add pictures, or pass test=0."
            )
        own = own[np.argsort([_order(split_seed, images.ids[i]) for i in own])]
        tests = min(max(1, round(len(own) * test)), len(own) - 1) if take_test and test else 0
        vals = min(round(len(own) * val), len(own) - tests - 1) if take_val else 0
        part[own[:tests]] = "test"
        part[own[tests : tests + vals]] = "val"
    return Dataset(name, tuple(classnames), template, *(images.subset(part == p) for p in ("train", "val", "test")))


def _order(split_seed: int, image_id: str) -> str:
    return hashlib.sha256(f"{split_seed} {image_id}".encode("utf-8", "surrogateescape")).hexdigest()
