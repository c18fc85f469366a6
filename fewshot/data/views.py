"""A view of a picture: what an image encoder gets to see of it.

The eval view is open_clip's preprocessing (shorter side to S, bicubic, centre crop, normalise), on RGB first; the
mirror view is its mirror image. A train view is the crop-and-flip that CoOp, Tip-Adapter and CLIP-LoRA train with. Its
random numbers are a function of (seed, epoch, id of the picture), so a view does not depend on the batch it is in, and
can be computed once and kept.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from fewshot.data.images import Images
from fewshot.errors import FewshotError, unknown

KINDS = ("eval", "mirror", "train")
RATIO = (3 / 4, 4 / 3)  # width over height of a random crop, in all the papers
MOST_PIXELS = 2**26  # of a picture whose shorter side is brought to S: a thread of 60000 x 1 would fill the memory
THREADS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@dataclass(frozen=True)
class View:
    """Which view: "eval", its "mirror" image, or the augmented "train" view number `epoch` of the stream `seed`.

    scale: smallest and largest share of the picture's area that a random crop takes ((0.5, 1) in Tip-Adapter).
    """

    kind: str = "eval"
    epoch: int = 0
    seed: int = 0
    scale: tuple[float, float] = (0.08, 1.0)

    def __post_init__(self):
        if self.kind not in KINDS:
            raise unknown("view", self.kind, KINDS)
        object.__setattr__(self, "scale", tuple(float(s) for s in self.scale))
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise FewshotError(f"scale must be two shares of the area, 0 < least <= most <= 1, not {self.scale}.")

    @property
    def key(self) -> list:
        """What tells this view from others; an eval or mirror view is one, whatever its other fields say."""
        return [self.kind] if self.kind != "train" else ["train", int(self.epoch), int(self.seed), *self.scale]


def load_batch(images: Images, indices: Sequence[int] | np.ndarray, view: View, clip) -> torch.Tensor:
    """The pictures at these positions under a view: float32 [B,3,S,S] on the CPU, normalised, S = clip.image_size."""
    size, indices = clip.image_size, [int(i) for i in indices]

    def pixels(i: int) -> np.ndarray:  # uint8 [S,S,3]
        picture = images.pil(i)
        if max(picture.size) * size**2 > MOST_PIXELS * min(picture.size):  # what the eval view would make of it
            raise FewshotError(
                f"the picture {images.ids[i]} is {picture.width} x {picture.height} pixels, too long for its width; crop it."
            )
        seen = _train(picture, size, view, images.ids[i]) if view.kind == "train" else _eval(picture, size)
        return np.asarray(TF.hflip(seen) if view.kind == "mirror" else seen)

    if images.threads and len(indices) > 1 and THREADS > 1:
        with ThreadPoolExecutor(THREADS) as pool:
            batch = list(pool.map(pixels, indices))
    else:
        batch = [pixels(i) for i in indices]
    if not batch:
        return torch.empty(0, 3, size, size)
    x = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).contiguous().float().div_(255)
    mean, std = (torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in (clip.image_mean, clip.image_std))
    return x.sub_(mean).div_(std)


def _eval(picture: Image.Image, size: int) -> Image.Image:
    return TF.center_crop(TF.resize(picture, size, InterpolationMode.BICUBIC), [size, size])


def _train(picture: Image.Image, size: int, view: View, image_id: str) -> Image.Image:
    rng = _rng(view.seed, view.epoch, image_id)
    top, left, height, width = crop_box(rng, picture.width, picture.height, view.scale)
    flip = rng.random() < 0.5
    picture = TF.resized_crop(picture, top, left, height, width, [size, size], InterpolationMode.BICUBIC)
    return TF.hflip(picture) if flip else picture


def _rng(seed: int, epoch: int, image_id: str) -> np.random.Generator:
    """A counter-based generator (Philox) keyed by a 128-bit hash."""
    text = f"{int(seed)} {int(epoch)} {image_id}".encode("utf-8", "surrogateescape")
    key = hashlib.blake2b(text, digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def crop_box(
    rng: np.random.Generator, width: int, height: int, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop, distributed as torchvision's RandomResizedCrop.get_params.

    Area uniform in `scale`, aspect ratio log-uniform in RATIO; after ten misses the largest central crop within RATIO.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = min(width, round(height * RATIO[1]))
    h = min(height, round(width / RATIO[0]))
    return (height - h) // 2, (width - w) // 2, h, w
