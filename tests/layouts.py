"""The named data sets as folders: the real names and numbers of files, one grey pixel in each of them.

A picture is a hard link to one of a few real JPEG files, so that a hundred thousand of them take a second or two.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

from PIL import Image

from fewshot.data.catalogue import Entry, Layout, entry
from fewshot.data.splits import PARTS, Rows

DRAWS = json.loads((Path(__file__).parent / "data" / "coop_draws.json").read_text())["datasets"]
SPLITS = os.environ.get("FEWSHOT_SPLITS")
LINKS = 20_000  # per file; file systems allow 65,000

# How the pictures of a class are called where the data set is not a folder per class with image_0001.jpg in it.
NAMES = {
    "oxford_pets": "{folder}_{i}.jpg",
    "oxford_flowers": "image_{n:05d}.jpg",
    "dtd": "{folder}/{folder}_{i:04d}.jpg",
    "eurosat": "{folder}/{folder}_{i}.jpg",
    "food101": "{folder}/{n}.jpg",
    "sun397": "{folder}/sun_{letters}.jpg",
    "ucf101": "{folder}/v_{plain}_g01_c{i:03d}.jpg",
    "cub": "{folder}/{folder}_{i:04d}_{n}.jpg",
    "fgvc_aircraft": "{n:07d}.jpg",
    "imagenet_v2": "{label}/{n:06x}.jpeg",
    "imagenet_sketch": "{folder}/sketch_{i:03d}.JPEG",
    "imagenet_a": "{folder}/0.{i:06d}.jpg",
    "imagenet_r": "{folder}/art_{i:03d}.jpg",
    "imagenet": "{part}/{folder}/{folder}_{i:05d}.JPEG",
    "grocery": "{part}/Things/{folder}/{folder}_{i:03d}.jpg",
}
# No two pictures of these share a name: elsewhere, copies in other folders cannot be told apart.
PLAIN = {"caltech101": "{folder}/image_{i:04d}.jpg", "stanford_cars": "cars_{half}/{n:05d}.jpg"}


def made_up(key: str, sizes: dict[str, int] | None = None) -> Rows:
    """Rows with the data set's numbers, names and ways of calling files, classes in the order of its split file."""
    one, sizes = entry(key), sizes or entry(key).sizes
    order = DRAWS.get(key, {}).get("label_order", "ascending")
    order = range(one.classes) if order == "ascending" else order
    rows: Rows = {part: [] for part in PARTS}
    number = {"train": 0, "test": 0}
    seen = [0] * one.classes
    names = one.names or [""] * one.classes
    for part in PARTS:
        half = "test" if part == "test" else "train"
        for label, count in zip(order, class_sizes(key, part, sizes[part])):
            for _ in range(count):
                number[half] += 1
                seen[label] += 1
                n = number[half] if key == "stanford_cars" else sum(number.values())
                path = {**NAMES, **PLAIN}[key].format(
                    folder=one.folders[label], label=label, part=part, half=half, i=seen[label], n=n,
                    letters=letters(n), plain=one.folders[label].replace("_", ""),
                )  # fmt: skip
                rows[part].append((path, label, names[label]))
    if key == "imagenet":
        rows["test"] = rows["val"]
    return rows


def small(key: str) -> Rows:
    """Rows of every class, few of each: where the pictures lie is the question, not how many there are."""
    one = entry(key)
    count = {part: one.classes * bool(one.sizes[part]) for part in PARTS}
    if key == "cub":  # its lists say train or test; a fifth of train is val
        count["train"] *= 4
    return made_up(key, count)


def class_sizes(key: str, part: str, total: int) -> list[int]:
    """The published class sizes where they are known and fit, else as even as can be."""
    known, classes = DRAWS.get(key, {}).get(f"{part}_class_sizes"), entry(key).classes
    sizes = [known] * classes if isinstance(known, int) else known
    if sizes and sum(sizes) == total:
        return sizes
    return [total // classes + (label < total % classes) for label in range(classes)]


def letters(n: int) -> str:
    return "".join(chr(97 + n // 26**k % 26) for k in range(4))


def real(key: str) -> Rows | None:
    """The rows of the data set's own split file, if $FEWSHOT_SPLITS has it."""
    from fewshot.data.splits import read_split

    file = Path(SPLITS or "", entry(key).split.file)
    return read_split(file) if SPLITS and file.is_file() else None


class Painter:
    """painter(path): a picture of one grey pixel there."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, path: Path) -> None:
        source = self.folder / f"{self.count // LINKS}.jpg"
        if self.count % LINKS == 0:
            Image.new("RGB", (1, 1), (90, 90, 90)).save(source)
        try:
            os.link(source, path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True)
            os.link(source, path)
        self.count += 1


def write(one: Entry, root: Path, rows: Rows, painter: Painter, layout: Layout | None = None) -> Path:
    """The data set in its official folders (or in those of `layout`), with lists or split file. Returns its folder."""
    layout = layout or next(each for each in one.layouts if "CoOp" in each.of or "this book" in each.of)
    folder = root / layout.folder
    images = folder / layout.images
    images.mkdir(parents=True, exist_ok=True)
    for path in dict.fromkeys(path for part in PARTS for path, _, _ in rows[part]):
        first, _, rest = path.partition("/")
        painter(images / (f"{layout.moved[first]}/{rest}" if first in layout.moved else path))
    if one.reader == "split":
        write_split(one, folder, rows)
    elif one.reader == "aircraft":
        (folder / "variants.txt").write_text("".join(f"{name}\n" for name in one.names))
        for part in PARTS:
            lines = [f"{path.removesuffix('.jpg')} {name}\n" for path, _, name in rows[part]]
            (folder / f"images_variant_{part}.txt").write_text("".join(lines))
    elif one.reader == "cub":
        write_cub_lists(one, images.parent, rows)
    elif one.reader == "grocery":
        for part in PARTS:
            lines = [f"{path}, {label}, {label // 2}\n" for path, label, _ in rows[part]]
            (folder / f"{part}.txt").write_text("".join(lines))
    elif one.reader == "wnids":
        (images / "README.txt").write_text("not a class folder")
    return folder


def write_split(one: Entry, folder: Path, rows: Rows) -> None:
    text = json.dumps({part: rows[part] for part in PARTS}, indent=4, separators=(",", ": "))
    (folder / one.split.file).write_text(text, encoding="utf-8")


def write_cub_lists(one: Entry, folder: Path, rows: Rows) -> None:
    """The four official text files that give these rows back: train pictures where Random(0) draws none for val."""
    rng, images, labels, flags = random.Random(0), [], [], []
    of = {part: [[row for row in rows[part] if row[1] == label] for label in range(one.classes)] for part in PARTS}
    for label in range(one.classes):
        train, val = of["train"][label], of["val"][label]
        drawn = set(rng.sample(range(len(train) + len(val)), len(val)))
        train, val = iter(train), iter(val)
        official = [next(val if i in drawn else train) for i in range(len(of["train"][label]) + len(drawn))]
        images += [*official, *of["test"][label]]
        flags += [1] * len(official) + [0] * len(of["test"][label])
        labels += [label + 1] * (len(images) - len(labels))
    for file, values in (("images", [path for path, _, _ in images]), ("image_class_labels", labels),
                         ("train_test_split", flags), ("classes", one.folders)):  # fmt: skip
        (folder / f"{file}.txt").write_text("".join(f"{i} {value}\n" for i, value in enumerate(values, 1)))
