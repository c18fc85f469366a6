"""CoOp's eleven data sets, and CUB, by name: where their pictures, splits and prompts are. Nothing is downloaded.

The folders below the data root are those of CoOp's DATASETS.md; the templates are the hand-crafted ones of its zero-shot
baseline (Zhou et al., arXiv:2109.01134). A split file (`split_zhou_<Name>.json`) lies in the folder of its data set.
CoOp's four shifted ImageNets have no training pictures and are not here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from fewshot.data.dataset import Dataset
from fewshot.data.images import ImageFiles
from fewshot.data.splits import from_split
from fewshot.errors import FewshotError, unknown


class Place(NamedTuple):
    """folder below the data root, picture folder below that, split file, hand-crafted template."""

    folder: str
    images: str
    split: str | None
    template: str


BENCHMARKS = {
    "imagenet": Place("imagenet", "images", None, "a photo of a {}."),
    "caltech101": Place("caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json", "a photo of a {}."),
    "oxford_pets": Place("oxford_pets", "images", "split_zhou_OxfordPets.json", "a photo of a {}, a type of pet."),
    "stanford_cars": Place("stanford_cars", ".", "split_zhou_StanfordCars.json", "a photo of a {}."),
    "oxford_flowers": Place(
        "oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json", "a photo of a {}, a type of flower."
    ),
    "food101": Place("food-101", "images", "split_zhou_Food101.json", "a photo of {}, a type of food."),
    "fgvc_aircraft": Place("fgvc_aircraft", "images", None, "a photo of a {}, a type of aircraft."),
    "sun397": Place("sun397", "SUN397", "split_zhou_SUN397.json", "a photo of a {}."),
    "dtd": Place("dtd", "images", "split_zhou_DescribableTextures.json", "{} texture."),
    "eurosat": Place("eurosat", "2750", "split_zhou_EuroSAT.json", "a centered satellite photo of {}."),
    "ucf101": Place("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", "a photo of a person doing {}."),
    "cub": Place("cub", "CUB_200_2011/images", "split_fewshot_CUB200.json", "a photo of a {}, a type of bird."),
}


def load_benchmark(name: str, root: str | os.PathLike | None = None) -> Dataset:
    """One of BENCHMARKS below the data root (default: $FEWSHOT_DATA).

    Raises FewshotError for an unknown name, when no root is known, and for the first thing that is missing below it.
    """
    if name not in BENCHMARKS:
        raise unknown("data set", name, BENCHMARKS)
    place = BENCHMARKS[name]
    root = root or os.environ.get("FEWSHOT_DATA")
    if not root:
        raise FewshotError(
            f"{name} is read from disk: set FEWSHOT_DATA (or pass root=) to the folder above {place.folder}/."
        )
    folder = Path(root).expanduser() / place.folder
    images = folder / place.images
    if not images.is_dir():
        raise FewshotError(f"{name} is not where CoOp's layout has it: {images} does not exist.")
    if place.split:
        return from_split(folder / place.split, images, template=place.template, name=name)
    read = _imagenet if name == "imagenet" else _fgvc_aircraft
    return Dataset(name, *read(folder, images, place.template))


def _imagenet(folder: Path, images: Path, template: str):
    """Train and the official validation pictures as val and test; labels are the ranks of the sorted class folders.

    File names are sorted within a class. CoOp lists them in the order of the file system, so its few shots on ImageNet
    cannot be drawn again anywhere else.
    """
    from open_clip import IMAGENET_CLASSNAMES

    def part(which: str) -> ImageFiles:
        wnids = sorted(p.name for p in (images / which).iterdir() if p.is_dir()) if (images / which).is_dir() else []
        if len(wnids) != 1000:
            raise FewshotError(f"{images / which} must hold ImageNet's 1000 class folders, but holds {len(wnids)}.")
        found = [(f"{which}/{w}/{file}", label) for label, w in enumerate(wnids)
                 for file in sorted(os.listdir(images / which / w)) if file.upper().endswith(".JPEG")]  # fmt: skip
        return ImageFiles(images, [path for path, _ in found], [label for _, label in found])

    val = part("val")
    return IMAGENET_CLASSNAMES, template, part("train"), val, val


def _fgvc_aircraft(folder: Path, images: Path, template: str):
    """The official lists of the variant level; labels are the lines of variants.txt."""

    def lines(file: str) -> list[str]:
        if not (folder / file).is_file():
            raise FewshotError(f"fgvc_aircraft needs {folder / file}; it is part of the official archive.")
        return [line.strip() for line in (folder / file).read_text(encoding="utf-8").splitlines() if line.strip()]

    variants = lines("variants.txt")

    def part(which: str) -> ImageFiles:
        rows = [line.split(" ", 1) for line in lines(f"images_variant_{which}.txt")]
        return ImageFiles(images, [f"{number}.jpg" for number, _ in rows], [variants.index(name) for _, name in rows])

    return variants, template, part("train"), part("val"), part("test")
