"""The eval view is open_clip's preprocessing; a train view is a function of seed, epoch and picture alone."""

import math
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision import transforms

from fewshot.data import ImageArrays, ImageFiles
from fewshot.data.views import View, crop_box, load_batch
from fewshot.errors import FewshotError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def clip(size=32):
    return SimpleNamespace(image_size=size, image_mean=MEAN, image_std=STD)


def arrays(count=6, height=40, width=50):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    return ImageArrays(pixels, [0] * count)


def saved(folder, *pictures):
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i}.png")
    return ImageFiles(folder, [f"{i}.png" for i in range(len(pictures))], [0] * len(pictures))


@pytest.mark.parametrize("size", [32, 64, 224])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (97, 41), (40, 83), (300, 224), (7, 5)])
def test_the_eval_view_is_open_clips_preprocessing_to_the_bit(tmp_path, size, width, height):
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pictures = [Image.fromarray(noise), Image.fromarray(noise).convert("L")]
    x = load_batch(saved(tmp_path, *pictures), [0, 1], View(), clip(size))
    transform = open_clip.image_transform(size, is_train=False, mean=MEAN, std=STD)
    assert x.shape == (2, 3, size, size) and x.dtype == torch.float32 and x.is_contiguous()
    for seen, picture in zip(x, pictures, strict=True):
        assert torch.equal(seen, transform(picture))


def test_palette_pictures_are_converted_before_they_are_resized(tmp_path):
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 70, 3), dtype=np.uint8)).convert("P")
    seen = load_batch(saved(tmp_path, noise), [0], View(), clip())[0]
    transform = open_clip.image_transform(32, is_train=False, mean=MEAN, std=STD)
    assert torch.equal(seen, transform(noise.convert("RGB")))
    assert (seen - transform(noise)).abs().max() > 0.5  # without the conversion PIL takes the nearest pixel


def test_the_mirror_view_is_the_eval_view_turned_round_and_has_a_key_of_its_own():
    images = arrays()
    mirrored, seen = load_batch(images, range(6), View("mirror"), clip()), load_batch(images, range(6), View(), clip())
    assert torch.equal(mirrored, seen.flip(-1)) and not torch.equal(mirrored, seen)
    assert View("mirror", epoch=3, seed=2).key == View("mirror").key not in (View().key, View("train").key)


@pytest.mark.parametrize("view", [View(), View("mirror"), View("train", epoch=3, seed=7)], ids=lambda v: v.kind)
def test_a_view_does_not_depend_on_batch_order_or_the_global_generators(view):
    images = arrays()
    whole = load_batch(images, range(6), view, clip())
    torch.manual_seed(5)
    np.random.seed(5)
    assert torch.equal(load_batch(images, [4, 1], view, clip()), whole[[4, 1]])
    assert torch.equal(load_batch(images.subset([5, 0, 4]), [2], view, clip()), whole[4:5])
    assert torch.equal(load_batch(images.relabel([1] * 6), [4], view, clip()), whole[4:5])


def test_a_train_view_changes_with_seed_epoch_and_id_but_not_with_the_label():
    pixels = np.repeat(arrays(1).pixels, 2, axis=0)
    images = ImageArrays(pixels, [0, 0], ["a", "b"])
    seen = [load_batch(images, [0], View("train", e, s), clip()) for e in (0, 1) for s in (0, 1)]
    seen.append(load_batch(images, [1], View("train"), clip()))
    assert all(not torch.equal(seen[i], seen[j]) for i in range(5) for j in range(i))


def test_files_and_arrays_of_the_same_pictures_have_the_same_views(tmp_path):
    images = arrays()
    files = saved(tmp_path, *(images.pil(i) for i in range(6)))
    files = ImageFiles(files.root, files.paths, files.labels, images.ids)
    for view in (View(), View("train", 2)):
        assert torch.equal(load_batch(files, range(6), view, clip()), load_batch(images, range(6), view, clip()))


def test_random_crops_are_distributed_as_torchvisions():
    count, scale, ratio = 4000, (0.08, 1.0), (3 / 4, 4 / 3)
    canvas = torch.empty(3, 64, 80)
    torch.manual_seed(0)
    theirs = np.array([transforms.RandomResizedCrop.get_params(canvas, scale, ratio) for _ in range(count)], float)
    rng = np.random.default_rng(0)
    ours = np.array([crop_box(rng, 80, 64, scale) for _ in range(count)], float)
    assert (ours >= 0).all() and (ours[:, 0] + ours[:, 2] <= 64).all() and (ours[:, 1] + ours[:, 3] <= 80).all()
    for statistic in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: np.log(b[:, 3] / b[:, 2]),
        lambda b: b[:, 0] + b[:, 2] / 2,
        lambda b: b[:, 1] + b[:, 3] / 2,
    ):
        a, b = statistic(theirs), statistic(ours)
        assert abs(a.mean() - b.mean()) < 5 * math.sqrt((a.var() + b.var()) / count)
        assert abs(a.std() / b.std() - 1) < 0.1


@pytest.mark.parametrize(("width", "height"), [(300, 3), (3, 300), (1, 1)])
def test_pictures_too_long_for_a_random_crop_get_the_central_one(width, height):
    top, left, h, w = crop_box(np.random.default_rng(0), width, height, (1.0, 1.0))
    torch.manual_seed(0)
    expected = transforms.RandomResizedCrop.get_params(torch.empty(3, height, width), (1.0, 1.0), (3 / 4, 4 / 3))
    assert (top, left, h, w) == tuple(expected)


def test_half_of_the_train_views_are_mirrored():
    ramp = np.tile(np.arange(0, 250, 5, dtype=np.uint8), (1, 3, 50, 1))
    view = clip()
    x = torch.cat([load_batch(ImageArrays(ramp, [0], [str(i)]), [0], View("train"), view) for i in range(400)])
    mirrored = (x[:, 0, :, 0].mean(1) > x[:, 0, :, -1].mean(1)).float().mean()
    assert 0.4 < mirrored < 0.6


def test_the_scale_bounds_the_crop():
    rng = np.random.default_rng(0)
    areas = np.array([np.prod(crop_box(rng, 100, 100, (0.5, 0.6))[2:]) for _ in range(300)]) / 10_000
    assert 0.49 < areas.min() and areas.max() < 0.61


def test_a_batch_may_be_empty():
    assert load_batch(arrays(), [], View(), clip()).shape == (0, 3, 32, 32)


def test_a_truncated_file_in_a_batch_is_named(tmp_path):
    images = saved(tmp_path, *(arrays().pil(i) for i in range(4)))
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:500])
    with pytest.raises(FewshotError, match="2.png cannot be read"):
        load_batch(images, range(4), View(), clip())


def test_impossible_views_are_named():
    with pytest.raises(FewshotError, match="did you mean 'train'"):
        View("trian")
    for scale in ((0, 1), (0.5, 0.4), (0.5, 1.5), (1,)):
        with pytest.raises(FewshotError, match="scale must be two shares"):
            View("train", scale=scale)
