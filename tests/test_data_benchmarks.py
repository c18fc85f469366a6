"""The benchmarks are read from CoOp's folder layout, by name."""

import json

import pytest

from fewshot.data import dataset_names, load_dataset
from fewshot.data.benchmarks import BENCHMARKS
from fewshot.errors import FewshotError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("name", [name for name, place in BENCHMARKS.items() if place.split])
def test_a_benchmark_with_a_split_file_is_found_below_the_data_root(tmp_path, monkeypatch, name):
    place = BENCHMARKS[name]
    touch(*(tmp_path / place.folder / place.images / f"a/{i}.jpg" for i in range(4)))
    rows = {
        "train": [["a/0.jpg", 0, "x"], ["a/1.jpg", 1, "y"]],
        "val": [["a/2.jpg", 0, "x"]],
        "test": [["a/3.jpg", 1, "y"]],
    }
    (tmp_path / place.folder / place.split).write_text(json.dumps(rows))
    dataset = load_dataset(name, tmp_path)
    assert (dataset.name, dataset.classnames, dataset.template) == (name, ("x", "y"), place.template)
    assert dataset.train.ids == ("a/0.jpg", "a/1.jpg")
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path))
    assert load_dataset(name).test.ids == ("a/3.jpg",)
    (tmp_path / place.folder / place.split).unlink()
    with pytest.raises(FewshotError, match=f"{place.split} cannot be read"):
        load_dataset(name)


def test_aircraft_is_read_from_the_official_lists(tmp_path):
    folder = tmp_path / "fgvc_aircraft"
    touch(folder / "images" / "1.jpg")
    with pytest.raises(FewshotError, match="needs .*variants.txt"):
        load_dataset("fgvc_aircraft", tmp_path)
    (folder / "variants.txt").write_text("707-320\nDC-3 Special\n")
    for part, text in (
        ("train", "0034309 DC-3 Special\n0034958 707-320\n"),
        ("val", "0000001 707-320\n"),
        ("test", ""),
    ):
        (folder / f"images_variant_{part}.txt").write_text(text)
    dataset = load_dataset("fgvc_aircraft", tmp_path)
    assert dataset.classnames == ("707-320", "DC-3 Special")
    assert dataset.train.ids == ("0034309.jpg", "0034958.jpg") and dataset.train.labels.tolist() == [1, 0]
    assert dataset.val.labels.tolist() == [0] and len(dataset.test) == 0


def test_imagenet_is_sorted_and_its_validation_pictures_are_the_test(tmp_path):
    wnids = [f"n{i:08d}" for i in range(1000)]
    images = tmp_path / "imagenet" / "images"
    touch(*(images / "train" / w / f"{w}_{i}.JPEG" for w in wnids[:999] for i in (2, 1)))
    touch(*(images / "val" / w / "v.JPEG" for w in wnids))
    with pytest.raises(FewshotError, match="train must hold ImageNet's 1000 class folders, but holds 999"):
        load_dataset("imagenet", tmp_path)
    touch(images / "train" / wnids[999] / "only.JPEG")
    dataset = load_dataset("imagenet", tmp_path)
    assert dataset.classnames[0] == "tench" and len(dataset.classnames) == 1000
    assert dataset.train.ids[:2] == ("train/n00000000/n00000000_1.JPEG", "train/n00000000/n00000000_2.JPEG")
    assert dataset.val is dataset.test and dataset.test.labels.tolist() == list(range(1000))


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("FEWSHOT_DATA", raising=False)
    with pytest.raises(FewshotError, match="set FEWSHOT_DATA .* to the folder above dtd/"):
        load_dataset("dtd")
    with pytest.raises(FewshotError, match="eurosat/2750 does not exist"):
        load_dataset("eurosat", tmp_path)
    with pytest.raises(FewshotError, match="dtd is fixed and takes no template"):
        load_dataset("dtd", tmp_path, template="a {}.")


def test_every_name_is_listed_and_a_near_miss_is_answered():
    assert {"toy/oxford_pets", "oxford_pets", "imagenet"} <= set(dataset_names())
    with pytest.raises(FewshotError, match="unknown data set 'oxford-pets'; did you mean 'oxford_pets'"):
        load_dataset("oxford-pets")


def test_a_toy_data_set_is_named_with_its_prefix(monkeypatch):
    monkeypatch.setattr("fewshot.toy.load_dataset", lambda name: f"drawn {name}")
    assert load_dataset("toy/pets") == "drawn pets"
    with pytest.raises(FewshotError, match="toy/pets is fixed and takes no val"):
        load_dataset("toy/pets", val=0.1)
