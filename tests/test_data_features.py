"""Features are computed once per weights, pictures and view; a file is whole or absent."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fewshot.data.features as features_module
from fewshot.data import ImageArrays
from fewshot.data.features import image_features
from fewshot.data.views import View


class Encoder:
    """Stands in for a CLIP: three channel means, and a count of the pictures it has seen."""

    image_size, image_mean, image_std, embed_dim, device = 8, (0.5, 0.4, 0.3), (0.3, 0.3, 0.2), 3, "cpu"

    def __init__(self, fingerprint="0" * 16):
        self.fingerprint, self.seen, self.batches = fingerprint, 0, []
        self.scale = torch.nn.Parameter(torch.ones(3))

    def encode_image(self, x):
        self.seen += len(x)
        self.batches.append(len(x))
        return x.mean((2, 3)) * self.scale


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))
    return tmp_path / "features"


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (11, 3, 10, 12), dtype=np.uint8)
    return ImageArrays(pixels, [0] * 11)


def stored(cache):
    return sorted(p.name for p in cache.glob("*.safetensors"))


def test_the_second_call_reads_the_file(images, cache):
    encoder = Encoder()
    first = image_features(encoder, images)
    assert first.shape == (11, 3) and first.dtype == torch.float32 and not first.requires_grad
    second = image_features(Encoder(), images.subset(range(11)), batch_size=3)
    assert torch.equal(first, second)
    again = Encoder()
    image_features(again, images)
    assert (encoder.seen, again.seen, len(stored(cache))) == (11, 0, 1)


def test_batches_keep_the_order(images):
    encoder = Encoder()
    parts = image_features(encoder, images, cache=False, batch_size=4)
    assert encoder.batches == [4, 4, 3]
    assert torch.allclose(parts, image_features(Encoder(), images, cache=False), atol=1e-6)


def test_features_can_be_trained_on(images):
    weight = torch.ones(3, requires_grad=True)
    (image_features(Encoder(), images) @ weight).sum().backward()
    assert weight.grad is not None


def test_other_weights_pictures_views_and_sizes_have_other_files(images, cache):
    small = Encoder()
    small.image_size = 6
    image_features(Encoder(), images)
    for i, (encoder, pictures, view) in enumerate(
        [
            (Encoder("1" * 16), images, View()),
            (Encoder(), images.subset([1, 0]), View()),
            (Encoder(), images, View("train")),
            (Encoder(), images, View("train", epoch=1)),
            (Encoder(), images, View("train", seed=1)),
            (Encoder(), images, View("train", scale=(0.5, 1))),
            (small, images, View()),
        ],
        start=2,
    ):
        image_features(encoder, pictures, view)
        assert encoder.seen == len(pictures)
        assert len(stored(cache)) == i


def test_the_eval_view_is_one_view_whatever_its_epoch(images, cache):
    image_features(Encoder(), images, View())
    image_features(Encoder(), images, View("eval", epoch=3, seed=2))
    assert len(stored(cache)) == 1


def test_without_cache_nothing_is_read_or_written(images, cache):
    encoder = Encoder()
    image_features(encoder, images, cache=False)
    image_features(encoder, images, cache=False)
    assert encoder.seen == 22 and stored(cache) == []


@pytest.mark.parametrize("place", ["encoding", "writing"])
def test_an_interruption_leaves_nothing_behind(images, cache, monkeypatch, place):
    def interrupted(*_):
        raise KeyboardInterrupt

    encoder = Encoder()
    if place == "encoding":
        encoder.encode_image = interrupted
    else:
        monkeypatch.setattr("fewshot.data.features.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        image_features(encoder, images, batch_size=4)
    assert stored(cache) == []


@pytest.mark.parametrize("damage", [b"", b"no safetensors", None])
def test_a_damaged_file_is_computed_again(images, cache, damage):
    first = image_features(Encoder(), images).clone()  # the file itself is mapped
    (file,) = cache.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-4] if damage is None else damage)
    assert torch.equal(image_features(Encoder(), images), first)
    again = Encoder()
    image_features(again, images)
    assert again.seen == 0


def test_no_pictures_give_no_features(images):
    assert image_features(Encoder(), images.subset([])).shape == (0, 3)


def test_the_bar_is_shown_when_asked_for_and_silent_off_a_terminal(images, capsys):
    image_features(Encoder(), images, cache=False)
    assert capsys.readouterr().err == ""
    image_features(Encoder(), images, cache=False, progress=True)
    assert "image features" in capsys.readouterr().err


def test_the_encoder_sees_what_load_batch_gives(images):
    from fewshot.data.views import load_batch

    view, clip = (
        View("train", 1),
        SimpleNamespace(**{k: getattr(Encoder, k) for k in ("image_size", "image_mean", "image_std")}),
    )
    expected = load_batch(images, range(11), view, clip).mean((2, 3))
    assert torch.allclose(image_features(Encoder(), images, view), expected)


def test_a_stopped_pass_goes_on_at_the_shard_it_was_in(images, cache, monkeypatch):
    monkeypatch.setattr(features_module, "SHARD", 4)
    whole = image_features(Encoder(), images, cache=False)

    class Stops(Encoder):
        def encode_image(self, x):
            if self.seen >= 8:
                raise KeyboardInterrupt
            return super().encode_image(x)

    with pytest.raises(KeyboardInterrupt):
        image_features(Stops(), images, batch_size=2)
    again = Encoder()
    got = image_features(again, images, batch_size=2)
    assert again.seen == 3 and torch.equal(got, whole)
    assert not [p for p in cache.iterdir() if p.suffix == ".parts"]


def test_a_torn_shard_is_computed_again(images, cache, monkeypatch):
    monkeypatch.setattr(features_module, "SHARD", 4)

    class Stops(Encoder):
        def encode_image(self, x):
            if self.seen >= 8:
                raise RuntimeError("out of memory")
            return super().encode_image(x)

    with pytest.raises(RuntimeError):
        image_features(Stops(), images, batch_size=4)
    (parts,) = (p for p in cache.iterdir() if p.suffix == ".parts")
    torn = sorted(parts.iterdir())[0]
    torn.write_bytes(torn.read_bytes()[:-5])
    again = Encoder()
    assert torch.equal(image_features(again, images), image_features(Encoder(), images, cache=False))
    assert again.seen == 7


def test_two_at_once_compute_the_features_once(images):
    from concurrent.futures import ThreadPoolExecutor

    encoder = Encoder()
    with ThreadPoolExecutor(4) as pool:
        all_of_them = list(pool.map(lambda _: image_features(encoder, images), range(4)))
    assert encoder.seen == 11 and all(torch.equal(f, all_of_them[0]) for f in all_of_them)
