"""Real photographs: our eval view is OpenAI's transform, bit for bit. (Needs the data set grocery.)"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchvision import transforms

from fewshot.clip import OPENAI_MEAN, OPENAI_STD
from fewshot.data import ImageFiles
from fewshot.data.views import View, load_batch

ROOT = Path(__file__).resolve().parents[1]
PLACES = [*os.environ.get("FEWSHOT_DATA", "").split(os.pathsep), ROOT.parent / "shared" / "data"]
GROCERY = next((p for place in PLACES if place and (p := Path(place, "grocery")).is_dir()), None)
VIT = SimpleNamespace(image_size=224, image_mean=OPENAI_MEAN, image_std=OPENAI_STD)

pytestmark = pytest.mark.skipif(GROCERY is None, reason="the photographs of grocery are not here")


@pytest.fixture(scope="module")
def photographs() -> ImageFiles:
    paths = sorted(p.relative_to(GROCERY).as_posix() for p in GROCERY.rglob("*.jpg"))
    paths = paths[:: max(1, len(paths) // 12)]
    return ImageFiles(GROCERY, paths, [0] * len(paths))


def openai(size: int):
    """`_transform` of OpenAI's clip.py."""
    return transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            lambda picture: picture.convert("RGB"),
            transforms.ToTensor(),
            transforms.Normalize(OPENAI_MEAN, OPENAI_STD),
        ]
    )


def opened(images: ImageFiles, transform) -> torch.Tensor:
    from PIL import Image

    return torch.stack([transform(Image.open(images.root / path)) for path in images.paths])


@pytest.mark.parametrize("size", [224, 336])
def test_the_eval_view_is_openais_transform_bit_for_bit(photographs, size):
    ours = load_batch(photographs, range(len(photographs)), View(), SimpleNamespace(**vars(VIT) | {"image_size": size}))
    assert ours.shape[0] >= 12 and torch.equal(ours, opened(photographs, openai(size)))


def test_the_eval_view_is_open_clips_transform_bit_for_bit(photographs):
    import open_clip

    transform = open_clip.image_transform(224, is_train=False, mean=OPENAI_MEAN, std=OPENAI_STD)
    assert torch.equal(load_batch(photographs, range(len(photographs)), View(), VIT), opened(photographs, transform))
