"""Drawn stand-ins for the papers' data sets: the eleven, CUB, and four shifted versions of ImageNet.

Each keeps the character of its original, not its pictures: what makes it easy or hard, and what CLIP knew beforehand.
Every data set is drawn from its own seed; the pictures are kept in the cache folder.
"""

import hashlib
import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from fewshot.cache import CACHE_REMEDY, cache_dir, writing
from fewshot.data.dataset import Dataset
from fewshot.data.images import ImageArrays
from fewshot.errors import unknown
from fewshot.toy import ALIASES, DATASETS, LARGE, MANY, world
from fewshot.toy.draw import BACKGROUNDS, SHAPE_NAMES, Scenes, draw
from fewshot.toy.overhead import LANDS, draw_land
from fewshot.toy.world import COLOUR_NAMES, Kind

DRAWING = 1  # part of every picture's name and so of the rows' split_hash: raise it when the pictures change
SPLITS = {"train": 40, "val": 8, "test": 30}  # pictures per class


@dataclass(frozen=True)
class StandIn:
    """A drawn data set: its classes, the scenes its pictures are taken from, and how it mirrors the original."""

    kinds: tuple[Kind, ...]
    template: str
    character: str
    scenes: dict = field(default_factory=dict)  # arguments of world.random_scenes
    backgrounds: tuple[str, ...] = BACKGROUNDS
    label_noise: float = 0.0  # share of wrong labels in train and val
    touch: Callable[[Scenes, torch.Generator], None] | None = None
    test_only: bool = False


def _fill(scenes: Scenes, generator: torch.Generator) -> None:
    scenes.shape[:], scenes.form[:], scenes.count[:] = SHAPE_NAMES.index("square"), 0, 0
    scenes.size[:] = 2.2 + torch.rand(len(scenes), generator=generator)
    scenes.angle[:] = 3.2 * torch.rand(len(scenes), generator=generator)


def _often_empty(scenes: Scenes, generator: torch.Generator) -> None:
    scenes.visible[:] = (torch.rand(len(scenes), generator=generator) < 0.6).float()


def _mostly_white(scenes: Scenes, generator: torch.Generator) -> None:
    scenes.colour[torch.rand(len(scenes), generator=generator) < 0.7] = COLOUR_NAMES.index("white")


def _as_sketch(scenes: Scenes, generator: torch.Generator) -> None:
    scenes.style[:] = 1


def _as_rendition(scenes: Scenes, generator: torch.Generator) -> None:
    scenes.style[:] = torch.where(torch.rand(len(scenes), generator=generator) < 0.75, 2, 1)


PHOTO = {"photo": 1.0}
STAND_INS = {
    "imagenet": StandIn(world.IMAGENET, "a photo of a {}.",
                        "broad: animals, vehicles, buildings, plants; most by names CLIP met", PHOTO),
    "caltech101": StandIn(world.CALTECH, "a photo of a {}.", "easy: one large object in the middle; two of 24 words are new",
                          {**PHOTO, "size": (0.7, 0.9), "shift": 0.08, "tilt": 0.1, "single": 1.0, "dark": 0.0, "solid": 0.6}),
    "oxford_pets": StandIn(world.PETS, "a photo of a {}, a type of pet.", "easy: breeds by coat, most names known",
                           {**PHOTO, "size": (0.6, 0.9), "single": 1.0, "shift": 0.15},
                           ("grass", "room", "sand", "snow", "plain")),
    "stanford_cars": StandIn(world.CARS, "a photo of a {}.", "body types CLIP knows, makes it half knows",
                             {**PHOTO, "size": (0.65, 0.9), "single": 1.0}, ("city", "brick", "sand", "plain", "mountain")),
    "oxford_flowers": StandIn(world.FLOWERS, "a photo of a {}, a type of flower.",
                              "petals, colour and centre; a third of the names new",
                              {**PHOTO, "size": (0.6, 0.9), "single": 0.8}, ("grass", "forest", "plain", "sky")),
    "food101": StandIn(world.FOOD, "a photo of {}, a type of food.", "known dishes; a quarter of the training labels are wrong",
                       {**PHOTO, "size": (0.6, 0.9), "single": 0.9}, ("room", "plain", "brick"), label_noise=0.25),
    "fgvc_aircraft": StandIn(world.AIRCRAFT, "a photo of a {}, a type of aircraft.", "fine-grained, with names CLIP never met",
                             {**PHOTO, "size": (0.7, 0.9), "single": 1.0, "tilt": 0.3},
                             ("sky", "plain", "city", "snow"), touch=_mostly_white),
    "sun397": StandIn(world.SCENE_KINDS, "a photo of a {}.", 
                      "scenes in three lights, one of them by a new word; with or without something in them", PHOTO,
                      touch=_often_empty),
    "dtd": StandIn(world.TEXTURE_KINDS, "{} texture.", "textures that fill the picture, in any colour and direction",
                   {**PHOTO, "noise": 0.1}, touch=_fill),
    "eurosat": StandIn(tuple(Kind(name, False) for name in LANDS), "a centered satellite photo of {}.",
                       "land from above: a domain CLIP never saw"),
    "ucf101": StandIn(world.UCF, "a photo of a person doing {}.", "poses of a figure; a third of the words new",
                      {**PHOTO, "size": (0.65, 0.9), "single": 0.9, "tilt": 0.15}),
    "cub": StandIn(world.BIRDS, "a photo of a {}, a type of bird.", "birds that differ in plumage, bill, tail and crest",
                   {**PHOTO, "size": (0.65, 0.9), "single": 1.0, "tilt": 0.2},
                   ("grass", "forest", "sea", "sky", "snow", "plain")),
    "imagenet_v2": StandIn(world.IMAGENET, "a photo of a {}.",
                           "the same classes, photographed anew: smaller, further off the middle",
                           {**PHOTO, "size": (0.4, 0.65), "shift": 0.35, "single": 0.6}, test_only=True),
    "imagenet_sketch": StandIn(world.IMAGENET, "a photo of a {}.", "line drawings", touch=_as_sketch, test_only=True),
    "imagenet_a": StandIn(world.IMAGENET[::2], "a photo of a {}.", "half of the classes, hard: small, dark, tilted, noisy",
                          {**PHOTO, "size": (0.35, 0.55), "shift": 0.4, "tilt": 0.8, "single": 0.4, "noise": 0.15, "dark": 0.4},
                          test_only=True),
    "imagenet_r": StandIn(world.IMAGENET[1::2], "a photo of a {}.", "half of the classes, as paintings and drawings",
                          touch=_as_rendition, test_only=True),
}  # fmt: skip


def _recipe_hash(name: str) -> str:
    """Changes when anything that decides the pictures does."""
    digest = hashlib.sha256(name.encode())
    for source in ("draw.py", "world.py", "overhead.py", "benchmark.py"):
        digest.update(importlib.resources.files(__package__).joinpath(source).read_bytes())
    return digest.hexdigest()[:16]


def _seed(*parts) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def sample_scenes(stand_in: StandIn, labels: torch.Tensor, generator: torch.Generator) -> Scenes:
    """Scenes that show the kinds ``labels`` (indices of stand_in.kinds) in the stand-in's way."""
    scenes = world.random_scenes(len(labels), generator, **stand_in.scenes)
    allowed = torch.tensor([BACKGROUNDS.index(name) for name in stand_in.backgrounds])
    scenes.background = allowed[scenes.background % len(allowed)]
    if stand_in.touch:
        stand_in.touch(scenes, generator)
    for i, kind in enumerate(stand_in.kinds):
        world.impose(scenes, (labels == i).nonzero()[:, 0], kind.attributes, generator)
    return scenes


def _draw_split(name: str, split: str) -> dict[str, np.ndarray]:
    original = LARGE.get(name, name)
    stand_in = STAND_INS[original]
    generator = torch.Generator().manual_seed(_seed(name, split))
    truth = torch.arange(len(stand_in.kinds)).repeat_interleave(MANY if name in LARGE else SPLITS[split])
    if original == "eurosat":
        pixels = draw_land(truth, generator)
    else:
        scenes = sample_scenes(stand_in, truth, generator)
        pixels = np.concatenate([draw(scenes[i : i + 240], generator) for i in range(0, len(truth), 240)])
    labels = truth.clone()
    if stand_in.label_noise and split != "test":
        wrong = torch.rand(len(labels), generator=generator) < stand_in.label_noise
        labels[wrong] = torch.randint(len(stand_in.kinds), (int(wrong.sum()),), generator=generator)
    return {f"{split}.pixels": pixels, f"{split}.labels": labels.numpy()}


def load_dataset(name: str) -> Dataset:
    """The stand-in ``name`` (a key of STAND_INS or LARGE), drawn at first use and then read from the cache folder.

    Raises FewshotError for an unknown name.
    """
    name = ALIASES.get(name, name)
    if name in LARGE:
        train = _images(name, "train", _drawn(name, ("train",)))
        return replace(load_dataset(LARGE[name]), name=f"toy/{name}", train=train)
    if name not in STAND_INS:
        raise unknown("data set", f"toy/{name}", [f"toy/{known}" for known in (*DATASETS, *LARGE, *ALIASES)])
    stand_in = STAND_INS[name]
    arrays = _drawn(name, ("test",) if stand_in.test_only else tuple(SPLITS))
    parts = (_images(name, split, arrays) for split in SPLITS)
    return Dataset(f"toy/{name}", tuple(kind.name for kind in stand_in.kinds), stand_in.template, *parts)


def _drawn(name: str, splits: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The pictures and labels of these splits, from the cache folder if they were drawn before."""
    path = cache_dir() / "toy" / f"{name}-{_recipe_hash(name)}.safetensors"
    if not path.exists():
        arrays = {k: v for split in splits for k, v in _draw_split(name, split).items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path, CACHE_REMEDY) as partial:
            save_file(arrays, partial)
    return load_file(path)


def _images(name: str, split: str, arrays: dict[str, np.ndarray]) -> ImageArrays:
    pixels = arrays.get(f"{split}.pixels", np.zeros((0, 3, 64, 64), np.uint8))
    labels = arrays.get(f"{split}.labels", np.zeros(0, np.int64))
    return ImageArrays(pixels, labels, ids=tuple(f"toy{DRAWING}/{name}/{split}/{i:05d}" for i in range(len(labels))))


def contact_sheet(name: str, columns: int) -> np.ndarray:
    """``columns`` test pictures, evenly spread over the classes, side by side: uint8 [64, 64 * columns, 3]."""
    test = load_dataset(name).test
    return np.hstack([np.asarray(test.pil(i)) for i in np.linspace(0, len(test) - 1, columns).astype(int)])
