"""datasets.yaml is complete, agrees with itself, and with what other projects know about the same data sets."""

from __future__ import annotations

import inspect
import json
import re
from importlib.resources import files
from pathlib import Path

import layouts
import pytest

from fewshot import toy
from fewshot.data import dataset_names, full_name, load_dataset
from fewshot.data.benchmarks import READERS, sha256
from fewshot.data.catalogue import entry, keys, resolve
from fewshot.data.dataset import check_template
from fewshot.data.splits import PARTS
from fewshot.errors import FewshotError

ROOT = Path(__file__).resolve().parent.parent
STATES = {"dead", "login", "browser"}


def test_the_sixteen_data_sets_and_grocery_are_there():
    assert set(keys()) == {*toy.ELEVEN, *toy.SHIFTED, "cub", "grocery"} and len(keys()) == 17
    assert {"toy/oxford_pets", *keys()} <= set(dataset_names())


@pytest.mark.parametrize("key", keys())
def test_every_entry_is_complete(key):
    one = entry(key)
    check_template(one.template)
    assert one.classes == len(one.folders) == len(set(one.folders)) and len(one.classnames) == one.classes
    assert set(one.sizes) == set(PARTS) and one.sizes["test"] > 0 and one.reader in READERS
    assert one.title and one.licence and one.home.startswith("https://") and one.get in ("download", "login", "by hand")
    assert one.layouts and all(layout.folder and layout.images and layout.of for layout in one.layouts)
    assert (one.reader == "split") <= (one.split is not None)
    assert one.get == "download" or one.steps, "what cannot be downloaded says what to do"
    for file in (*one.archives, *([one.split] if one.split else [])):
        assert file.addresses or file.others or file is one.split, f"{file.file} comes from nowhere"
        assert {state for state, _ in file.others} <= STATES
        assert all(address.startswith("http") for address in (*file.addresses, *(a for _, a in file.others)))
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.md5 is None or re.fullmatch("[0-9a-f]{32}", file.md5)
    required = [file for file in one.archives if not file.optional]
    assert all(file.addresses for file in required) == (one.get == "download")


def test_class_names_are_distinct_except_for_the_two_of_imagenet_that_are_not():
    for key in keys():
        names = entry(key).classnames
        double = {"missile", "sunglasses"} if key in ("imagenet", "imagenet_v2", "imagenet_sketch") else set()
        assert {name for name in names if names.count(name) > 1} <= double


def test_a_short_name_means_one_data_set_and_the_toy_worlds_means_the_same():
    words = [word for key in keys() for word in (key, *entry(key).aliases)]
    assert len(words) == len({word.lower() for word in words})
    assert {alias: resolve(alias) for alias in toy.ALIASES} == toy.ALIASES
    assert (full_name("cars"), full_name("toy/cars")) == ("stanford_cars", "toy/stanford_cars")
    assert full_name("nothing/of/that") == "nothing/of/that" and full_name("DTD") == "dtd"


def test_a_folder_goes_before_a_short_name_but_not_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "nowhere"))
    for name in ("cars", "dtd"):
        (tmp_path / name).mkdir()
    with pytest.raises(FewshotError, match="cars has no class folders"):
        load_dataset("cars")
    assert full_name("cars") == "cars"
    with pytest.raises(FewshotError, match="dtd is not on this disk"):
        load_dataset("dtd")
    with pytest.raises(FewshotError, match="unknown data set 'oxford-pets'; did you mean 'oxford_pets'"):
        load_dataset("oxford-pets")
    with pytest.raises(FewshotError, match="dtd is fixed and takes no template"):
        load_dataset("dtd", template="a {}.")


def test_a_toy_data_set_is_named_with_its_prefix(monkeypatch):
    monkeypatch.setattr("fewshot.toy.load_dataset", lambda name: f"drawn {name}")
    assert load_dataset("toy/pets") == "drawn pets"
    with pytest.raises(FewshotError, match="toy/pets is fixed and takes no val"):
        load_dataset("toy/pets", val=0.1)


# -- what others know


def test_the_toy_stand_ins_ask_with_the_same_prompts():
    from fewshot.toy.benchmark import STAND_INS

    assert {name: stand_in.template for name, stand_in in STAND_INS.items()} == {
        name: entry(name).template for name in STAND_INS
    }


def test_sizes_agree_with_the_published_draws():
    for key, drawn in layouts.DRAWS.items():
        one = entry(key)
        assert (one.classes, one.sizes["train"], one.sizes["val"]) == (
            drawn["n_classes"],
            drawn["n_train"],
            drawn["n_val"],
        )


def test_sizes_agree_with_the_protocol_page():
    rows = re.findall(r"^\| (\w+) \| (\d+) \| ([\d,]+) \| ([\d,]+|= test) \| ([\d,]+) \|", protocol_table(), re.M)
    found = {}
    for name, classes, train, val, test in rows:
        number = [int(text.replace(",", "")) for text in (classes, train, test if val == "= test" else val, test)]
        found[resolve(name)] = number
    assert found == {key: [entry(key).classes, *(entry(key).sizes[part] for part in PARTS)] for key in toy.ELEVEN}


def protocol_table() -> str:
    return (ROOT / "book" / "protocol.md").read_text(encoding="utf-8").split("## The few shots")[0]


def test_wordnet_ids_agree_with_timm():
    lists = files("timm.data") / "_info"
    for key in ("imagenet", "imagenet_a", "imagenet_r"):
        assert entry(key).folders == tuple((lists / f"{key}_synsets.txt").read_text().split())
    assert entry("imagenet").folders == tuple(sorted(entry("imagenet").folders))
    assert entry("imagenet_v2").folders == entry("imagenet_sketch").folders == entry("imagenet").folders


def test_the_names_of_a_subset_are_those_of_its_wordnet_ids():
    whole = dict(zip(entry("imagenet").folders, entry("imagenet").classnames))
    assert whole["n01440764"] == "tench"
    for key in ("imagenet_a", "imagenet_r"):
        one = entry(key)
        assert one.classnames == tuple(whole[wnid] for wnid in one.folders)


TORCHVISION = {"caltech101": "Caltech101", "oxford_pets": "OxfordIIITPet", "oxford_flowers": "Flowers102",
               "food101": "Food101", "fgvc_aircraft": "FGVCAircraft", "sun397": "SUN397", "dtd": "DTD",
               "eurosat": "EuroSAT"}  # fmt: skip


@pytest.mark.parametrize("key", TORCHVISION)
def test_addresses_and_md5_agree_with_torchvisions_classes(key):
    from torchvision import datasets

    source = inspect.getsource(getattr(datasets, TORCHVISION[key]))
    for file in entry(key).archives:
        if file.md5:
            assert file.md5 in source
        if file.file in source:
            everywhere = [*file.addresses, *(address for _, address in file.others)]
            assert any(address in source or address.rpartition("/")[0] in source for address in everywhere)


def test_imagenets_md5_agree_with_torchvisions():
    from torchvision.datasets.imagenet import ARCHIVE_META

    assert {(file.file, file.md5) for file in entry("imagenet").archives} == set(ARCHIVE_META.values())


# The ends of the lists, and what comes first where it is not what the alphabet says.
@pytest.mark.parametrize(("key", "first", "last"), [
    ("caltech101", ("face", "leopard", "motorbike", "accordion", "airplane"), "yin_yang"),
    ("oxford_pets", ("abyssinian",), "yorkshire_terrier"),
    ("stanford_cars", ("2000 AM General Hummer SUV",), "2012 smart fortwo Convertible"),
    ("sun397", ("abbey",), "youth_hostel"),
    ("ucf101", ("Apply_Eye_Makeup",), "Yo_Yo"),
    ("eurosat", ("Annual Crop Land",), "Sea or Lake"),
    ("fgvc_aircraft", ("707-320",), "Yak-42"),
    ("grocery", ("golden delicious",), "zucchini"),
])  # fmt: skip
def test_label_order(key, first, last):
    assert entry(key).names[: len(first)] == first and entry(key).names[-1] == last


def test_names_that_the_papers_changed():
    named = {key: dict(zip(entry(key).folders, entry(key).names)) for key in keys() if entry(key).names}
    assert named["caltech101"]["airplanes"] == "airplane" and "Faces_easy" not in named["caltech101"]
    assert named["sun397"]["c/church/outdoor"] == "outdoor church" and named["sun397"]["a/abbey"] == "abbey"
    assert named["ucf101"]["Handstand_Pushups"] == "Handstand_Pushups"
    assert named["eurosat"]["SeaLake"] == "Sea or Lake"
    assert named["cub"]["001.Black_footed_Albatross"] == "Black footed Albatross"
    assert named["grocery"]["Golden-Delicious"] == "golden delicious"
    assert (
        entry("stanford_cars").names[13] == "2012 Audi TTS Coupe"
        and entry("oxford_flowers").names[76] == "passion flower"
    )


@pytest.mark.skipif(not layouts.SPLITS, reason="FEWSHOT_SPLITS names no folder with split files")
@pytest.mark.parametrize("key", [key for key in keys() if entry(key).split])
def test_names_and_hashes_agree_with_the_split_files(key):
    one = entry(key)
    file = Path(layouts.SPLITS, one.split.file)
    if not file.is_file():
        pytest.skip(f"no {file.name}")
    assert sha256(file) == one.split.sha256 and file.stat().st_size == one.split.bytes
    rows = json.loads(file.read_text())
    assert {part: len(rows[part]) for part in PARTS} == one.sizes
    names = {label: name for part in PARTS for _, label, name in rows[part]}
    assert one.names == tuple(names[label] for label in range(one.classes))
    for path, label, _ in (row for part in PARTS for row in rows[part]):
        start = path.rpartition("/")[0] or path.rpartition("_")[0]
        assert start == one.folders[label]


def test_the_page_of_the_book_shows_what_the_data_file_says():
    import data_sets

    page = data_sets.PAGE.read_text(encoding="utf-8")
    assert data_sets.renewed(page) == page, "run python book/data_sets.py"
    outside = re.sub("<!-- .*? begin -->.*?<!-- .*? end -->", "", page, flags=re.S)
    assert not re.search(r"\b[\d,]{4,}\b|https?://", outside), "numbers and addresses belong between the marks"
    assert all(f"`{key}`" in page for key in keys())


# -- torchvision looks in the same folders


def test_torchvisions_own_classes_read_the_layouts_that_are_called_torchvisions(tmp_path):
    """Three pictures in the folders of `layouts`, and what each class of torchvision needs beside them."""
    import numpy as np
    from scipy.io import savemat
    from torchvision import datasets

    painter = layouts.Painter(tmp_path / "painter")

    def place(key, *paths):
        one = entry(key)
        layout = next(each for each in one.layouts if "torchvision" in each.of)
        for path in paths:
            painter(tmp_path / layout.folder / layout.images / path)
        return tmp_path / layout.folder, tmp_path / layout.folder / layout.images

    def text(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    folder, images = place("oxford_pets", "beagle_1.jpg")
    text(folder / "annotations" / "test.txt", "beagle_1 5 2 1\n")
    assert datasets.OxfordIIITPet(tmp_path, split="test")._images == [images / "beagle_1.jpg"]

    folder, images = place("oxford_flowers", "image_00001.jpg")
    savemat(folder / "setid.mat", {"trnid": [[1, 1]]})
    savemat(folder / "imagelabels.mat", {"labels": [[77, 77]]})
    flowers = datasets.Flowers102
    checked, flowers._check_integrity = flowers._check_integrity, lambda self: True
    try:
        assert set(flowers(tmp_path, split="train")._image_files) == {images / "image_00001.jpg"}
    finally:
        flowers._check_integrity = checked

    _, images = place("caltech101", "Faces/image_0001.jpg", "BACKGROUND_Google/image_0001.jpg")
    assert Path(datasets.Caltech101(tmp_path).root) == images.parent and len(datasets.Caltech101(tmp_path)) == 1

    folder, images = place("dtd", "banded/banded_0002.jpg")
    text(folder / "labels" / "train1.txt", "banded/banded_0002.jpg\n")
    assert datasets.DTD(tmp_path)._image_files == [images / "banded/banded_0002.jpg"]

    _, images = place("eurosat", "Forest/Forest_1.jpg")
    assert datasets.EuroSAT(tmp_path).samples[0][0] == str(images / "Forest/Forest_1.jpg")

    folder, images = place("food101", "apple_pie/1.jpg")
    text(folder / "meta" / "train.json", '{"apple_pie": ["apple_pie/1"]}')
    assert datasets.Food101(tmp_path)._image_files == [images / "apple_pie/1.jpg"]

    folder, images = place("fgvc_aircraft", "0034309.jpg")
    text(folder / "variants.txt", "707-320\n")
    text(folder / "images_variant_train.txt", "0034309 707-320\n")
    assert datasets.FGVCAircraft(tmp_path, split="train")._image_files == [str(images / "0034309.jpg")]

    folder, images = place("sun397", "a/abbey/sun_a.jpg")
    text(images / "ClassName.txt", "/a/abbey\n")
    assert datasets.SUN397(tmp_path)._image_files == [images / "a/abbey/sun_a.jpg"]

    folder, images = place("stanford_cars", "cars_train/00001.jpg", "cars_test/00001.jpg")
    (folder / "devkit").mkdir()
    annotation = np.array([("00001.jpg", 14)] * 2, dtype=[("fname", object), ("class", object)])
    savemat(folder / "devkit" / "cars_train_annos.mat", {"annotations": annotation})
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["a", "b"], dtype=object)})
    assert datasets.StanfordCars(tmp_path)._samples[0] == (str(images / "cars_train" / "00001.jpg"), 13)
