"""Every named data set is read from its official folders and from the copies' folders: classes, order, names, sizes."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import layouts
import pytest
from layouts import small

from fewshot.data import catalogue, load_dataset
from fewshot.data.catalogue import entry, keys
from fewshot.data.check import check
from fewshot.data.splits import PARTS
from fewshot.errors import FewshotError

SPLIT = [key for key in keys() if entry(key).reader == "split"]
NOT_THE_SPLIT = "ignore:.*is not the file that the papers used"
BIG = {"train": 3000, "val": 1000, "test": 1000}  # ImageNet's 1.3 million files in small


@pytest.fixture
def painter(tmp_path):
    return layouts.Painter(tmp_path / "painter")


@pytest.fixture(autouse=True)
def no_other_data(monkeypatch, tmp_path):
    """Nothing of this machine is read: no data root, no split folder."""
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("FEWSHOT_SPLITS", raising=False)


def trust(monkeypatch, one, folder):
    """Take the made-up split file for CoOp's: its hash is put into the catalogue, if CoOp's is known."""
    if one.split and one.split.sha256 and (folder / one.split.file).is_file():
        from fewshot.data.benchmarks import sha256

        split = replace(one.split, sha256=sha256(folder / one.split.file))
        real = catalogue._entry
        changed = replace(one, split=split)
        monkeypatch.setattr(catalogue, "_entry", lambda key: changed if key == one.key else real(key))


def holds(dataset, rows) -> bool:
    return all(
        list(zip(getattr(dataset, part).ids, getattr(dataset, part).labels.tolist()))
        == [(path, label) for path, label, _ in rows[part]]
        for part in PARTS
    )


@pytest.mark.parametrize("key", keys())
def test_the_official_folders_are_read_whole(key, tmp_path, painter, monkeypatch):
    one, root = entry(key), tmp_path / "data"
    rows = layouts.made_up(key, BIG if key == "imagenet" else None)
    folder = layouts.write(one, root, rows, painter)
    trust(monkeypatch, one, folder)
    dataset = load_dataset(key)
    assert dataset.name == key and dataset.template == one.template
    assert len(dataset.classnames) == one.classes and dataset.classnames == one.classnames
    assert holds(dataset, rows)
    dataset.test.pil(0), dataset.test.pil(-1)
    state = check(key)
    if key == "imagenet":
        assert (dataset.val is dataset.test) and state.word == "wrong count"
        assert "has 3,000 train, 1,000 val and 1,000 test pictures, but should have 1,281,167 train" in state.sentence
    else:
        assert {part: len(getattr(dataset, part)) for part in PARTS} == one.sizes
        if key == "cub":  # the made-up lists are in order, but not the official ones
            assert state.word == "wrong hash" and "are not the official ones" in state.sentence
        else:
            assert state.word == "found", state.sentence


REAL = ["caltech101", "dtd", "eurosat", "oxford_pets", "cub"]


@pytest.mark.skipif(not layouts.SPLITS, reason="FEWSHOT_SPLITS names no folder with split files")
@pytest.mark.parametrize("key", REAL)
def test_the_real_split_files_are_read_row_by_row(key, tmp_path, painter):
    one, rows = entry(key), layouts.real(key)
    folder = layouts.write(one, tmp_path / "data", rows, painter)
    if key != "cub":  # CUB's is made from the official lists
        shutil.copyfile(Path(layouts.SPLITS, one.split.file), folder / one.split.file)
    assert check(key).word == "found", check(key).sentence
    dataset = load_dataset(key)
    assert holds(dataset, rows) and dataset.classnames == one.names
    names = {label: name for part in PARTS for _, label, name in rows[part]}
    assert dataset.classnames == tuple(names[label] for label in range(len(names)))
    assert {part: len(getattr(dataset, part)) for part in PARTS} == one.sizes


@pytest.mark.skipif(not layouts.SPLITS, reason="FEWSHOT_SPLITS names no folder with split files")
def test_the_cub_split_file_and_the_official_lists_say_the_same(tmp_path, painter):
    one, rows = entry("cub"), layouts.real("cub")
    folder = layouts.write(one, tmp_path / "data", rows, painter)
    from_lists = load_dataset("cub")
    shutil.copyfile(Path(layouts.SPLITS, one.split.file), folder / one.split.file)
    for file in (folder / "CUB_200_2011").glob("*.txt"):
        file.unlink()
    assert check("cub").ok and holds(load_dataset("cub"), rows) and holds(from_lists, rows)


# -- other folders


OTHER = [(key, i) for key in keys() for i, layout in enumerate(entry(key).layouts) if not layout.selection]


@pytest.mark.filterwarnings(NOT_THE_SPLIT)
@pytest.mark.parametrize(("key", "i"), OTHER, ids=[f"{key}-{i}" for key, i in OTHER])
def test_every_layout_of_the_catalogue_is_found(key, i, tmp_path, painter):
    one = entry(key)
    layout, rows = one.layouts[i], small(key)
    layouts.write(one, tmp_path / "data", rows, painter, layout)
    state = check(key)
    assert state.place.layout == layout
    dataset = load_dataset(key)
    assert holds(dataset, rows)
    assert all((dataset.test.root / path).is_file() for path in dataset.test.paths)


BY_NAME = [key for key in SPLIT if entry(key).by_name]


@pytest.mark.parametrize("key", BY_NAME)
@pytest.mark.filterwarnings(NOT_THE_SPLIT)
def test_a_copy_in_other_folders_with_other_extensions_gives_the_same_rows(key, tmp_path, painter):
    one, rows = entry(key), small(key)
    folder = layouts.write(one, tmp_path / "data", rows, painter)
    before = load_dataset(key)
    images = folder / next(each for each in one.layouts if "CoOp" in each.of).images
    for path, label, _ in (row for part in PARTS for row in rows[part]):
        first, _, rest = path.partition("/")
        start = first if first.startswith("cars_") else ""
        to = images / start / "train" / str(label) / (Path(path).stem.upper() + ".PNG")
        to.parent.mkdir(parents=True, exist_ok=True)
        os.rename(images / path, to)
    after = load_dataset(key)
    assert holds(after, rows) and after.task(1).split_hash == before.task(1).split_hash
    assert after.train.paths != before.train.paths
    after.train.pil(0)


@pytest.mark.filterwarnings(NOT_THE_SPLIT)
def test_the_copies_in_class_folders_that_people_have(tmp_path, painter):
    """Cars as car_data/car_data/train/CLASS/00001.jpg, flowers as flower_data/valid/1/image_00001.jpg."""
    cars, rows = entry("stanford_cars"), small("stanford_cars")
    top = tmp_path / "data" / "stanford_cars"
    for part in PARTS:
        for path, _, name in rows[part]:
            half, number = path.removeprefix("cars_").split("/")
            painter(top / "car_data" / "car_data" / half / name.replace("/", "-") / number)
    layouts.write_split(cars, top, rows)
    assert holds(load_dataset("cars"), rows)
    flowers, rows = entry("oxford_flowers"), small("oxford_flowers")
    top = tmp_path / "data" / "oxford_flowers"
    for part, folder in zip(PARTS, ("valid", "test", "train")):  # their division is another one
        for path, label, _ in rows[part]:
            painter(top / "flower_data" / folder / str(label + 1) / path)
    layouts.write_split(flowers, top, rows)
    assert holds(load_dataset("flowers"), rows)


@pytest.mark.filterwarnings(NOT_THE_SPLIT)
def test_two_pictures_of_one_name_are_not_guessed_at(tmp_path, painter):
    one, rows = entry("oxford_pets"), small("oxford_pets")
    folder = layouts.write(one, tmp_path / "data", rows, painter)
    path = rows["train"][0][0]
    for copy in ("a", "b"):
        painter(folder / "images" / copy / path)
    (folder / "images" / path).unlink()
    with pytest.raises(FewshotError, match=rf"1 of 111 pictures of oxford_pets are not below .*, the first is {path}"):
        load_dataset("oxford_pets")


@pytest.mark.parametrize("key", keys())
def test_a_data_root_may_be_the_folder_of_the_data_set_itself(key, tmp_path, painter, monkeypatch):
    folder = layouts.write(entry(key), tmp_path / "data", small(key), painter)
    trust(monkeypatch, entry(key), folder)
    assert len(load_dataset(key, folder).test) == entry(key).classes


def test_several_data_roots_are_searched_in_order(tmp_path, painter, monkeypatch):
    roots = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setenv("FEWSHOT_DATA", os.pathsep.join(map(str, roots)))
    layouts.write(entry("imagenet_a"), roots[1], small("imagenet_a"), painter)
    assert load_dataset("imagenet_a").test.root == roots[1] / "imagenet-adversarial" / "imagenet-a"
    layouts.write(entry("imagenet_a"), roots[0], small("imagenet_a"), painter)
    assert load_dataset("imagenet_a").test.root == roots[0] / "imagenet-adversarial" / "imagenet-a"


def test_split_files_may_lie_together_in_a_folder_of_their_own(tmp_path, painter, monkeypatch):
    one = entry("dtd")
    folder = layouts.write(one, tmp_path / "data", small("dtd"), painter)
    trust(monkeypatch, one, folder)
    (tmp_path / "splits").mkdir()
    os.rename(folder / one.split.file, tmp_path / "splits" / one.split.file)
    with pytest.raises(FewshotError, match="dtd needs split_zhou_DescribableTextures.json in .*FEWSHOT_SPLITS"):
        load_dataset("dtd")
    monkeypatch.setenv("FEWSHOT_SPLITS", str(tmp_path / "splits"))
    assert len(load_dataset("dtd").train) == 47


# -- the grocery selection


def test_a_selection_of_grocery_folders_says_that_it_is_one(tmp_path, painter):
    for name in ("kiwi", "pink lady"):
        for part, count in (("train", 6), ("test", 2)):
            for i in range(count):
                painter(tmp_path / "data" / "grocery" / part / name / f"{i}.jpg")
    dataset, state = load_dataset("grocery"), check("grocery")
    assert dataset.classnames == ("kiwi", "pink lady") and len(dataset.test) == 4
    assert state.ok and "is a selection: 2 of 81 classes, 10 train, 2 val and 4 test pictures" in state.sentence
    os.rename(tmp_path / "data/grocery/train/kiwi", tmp_path / "data/grocery/train/kivi")
    os.rename(tmp_path / "data/grocery/test/kiwi", tmp_path / "data/grocery/test/kivi")
    assert (check("grocery").word, "'kivi'" in check("grocery").sentence) == ("wrong names", True)


# -- what is wrong is named


def pets(tmp_path, painter, monkeypatch):
    one = entry("oxford_pets")
    folder = layouts.write(one, tmp_path / "data", layouts.made_up("oxford_pets"), painter)
    trust(monkeypatch, one, folder)
    return folder


def test_missing_pictures_are_counted_and_the_first_is_named(tmp_path, painter, monkeypatch):
    folder = pets(tmp_path, painter, monkeypatch)
    for name in ("Abyssinian_1.jpg", "beagle_2.jpg", "beagle_3.jpg"):
        (folder / "images" / name).unlink()
    state = check("oxford_pets")
    assert state.word == "missing files" and "3 of 7,349 pictures of oxford_pets are missing" in state.sentence
    assert "Abyssinian_1.jpg and 2 more." in state.sentence
    with pytest.raises(
        FewshotError, match="3 of 7,349 .* the first is Abyssinian_1.jpg; `fewshot data list oxford_pets`"
    ):
        load_dataset("oxford_pets")


def test_another_split_file_has_the_wrong_hash_and_loading_warns(tmp_path, painter):
    rows = layouts.made_up("oxford_pets")
    layouts.write(entry("oxford_pets"), tmp_path / "data", rows, painter)
    state = check("oxford_pets")
    assert state.word == "wrong hash" and "CoOp's code writes one of its own when it finds none" in state.sentence
    with pytest.warns(UserWarning, match="is not the file that the papers used"):
        load_dataset("oxford_pets")


def test_a_split_without_a_published_hash_is_judged_by_what_it_lists(tmp_path, painter):
    one, rows = entry("sun397"), small("sun397")
    folder = layouts.write(one, tmp_path / "data", rows, painter)
    assert check("sun397").word == "wrong count" and "lists 397 train, 397 val and 397 test" in check("sun397").sentence
    full = layouts.made_up("sun397")
    stray = (f"{one.folders[1]}/sun_stray.jpg", 0, "abbey")
    layouts.write_split(one, folder, {**full, "train": [stray, *full["train"][1:]]})
    assert "sun_stray.jpg 'abbey', which is the name of another folder" in check("sun397").sentence
    assert check("sun397").word == "wrong names"
    layouts.write_split(one, folder, {part: [(p, n, c.upper()) for p, n, c in full[part]] for part in PARTS})
    assert "class 0 called 'ABBEY', not 'abbey'" in check("sun397").sentence
    (folder / one.split.file).write_text("{}")
    assert check("sun397").word == "wrong hash" and "is no split file" in check("sun397").sentence


def test_an_unreadable_picture_is_found_when_asked_for(tmp_path, painter, monkeypatch):
    folder = pets(tmp_path, painter, monkeypatch)
    (folder / "images" / "beagle_3.jpg").unlink()
    (folder / "images" / "beagle_3.jpg").write_text("<html>")
    assert check("oxford_pets").ok
    state = check("oxford_pets", pictures=True)
    assert state.word == "unreadable" and "beagle_3.jpg cannot be read" in state.sentence


def test_class_folders_that_are_missing_or_strange_are_named(tmp_path, painter):
    layouts.write(entry("imagenet_a"), tmp_path / "data", small("imagenet_a"), painter)
    top = tmp_path / "data" / "imagenet-adversarial" / "imagenet-a"
    shutil.rmtree(top / "n01498041")
    with pytest.raises(FewshotError, match="must hold the 200 class folders of ImageNet-A, but holds 199"):
        load_dataset("imagenet_a")
    (top / "n99999999").mkdir()
    assert "holds 199, and n99999999 is none of them" in check("imagenet_a").sentence


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, painter, monkeypatch):
    layouts.write(entry("imagenet_a"), tmp_path / "data", small("imagenet_a"), painter)
    real = os.scandir

    def closed(folder):
        if str(folder).endswith("n01498041"):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", closed)
    assert check("imagenet_a").word == "missing files"
    with pytest.raises(FewshotError, match="n01498041 cannot be listed .Permission denied"):
        load_dataset("imagenet_a")


def test_lists_that_are_missing_or_wrong_are_named(tmp_path, painter):
    folder = layouts.write(entry("fgvc_aircraft"), tmp_path / "data", small("fgvc_aircraft"), painter)
    (folder / "images_variant_val.txt").write_text("0000101 Boing\n")
    with pytest.raises(FewshotError, match="names the variant 'Boing', which variants.txt does not have"):
        load_dataset("fgvc_aircraft")
    (folder / "images_variant_val.txt").unlink()
    assert "images_variant_val.txt cannot be read" in check("fgvc_aircraft").sentence
    folder = layouts.write(entry("grocery"), tmp_path / "data", small("grocery"), painter)
    (folder / "val.txt").write_text("a.jpg 3 4\n")
    with pytest.raises(FewshotError, match='must hold lines of "path, label, coarse label"'):
        load_dataset("grocery")


def test_what_is_not_here_says_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("FEWSHOT_DATA", "/a/b" + os.pathsep + "/c")
    with pytest.raises(
        FewshotError, match=r"dtd is not on this disk \(looked in /a/b, /c\): .* to the folder above dtd/"
    ):
        load_dataset("dtd")
    monkeypatch.delenv("FEWSHOT_DATA")
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))
    assert f"looked in {tmp_path / 'data'}" in check("dtd").sentence


def test_data_sets_without_training_pictures_draw_no_shots(tmp_path, painter):
    layouts.write(entry("imagenet_a"), tmp_path / "data", small("imagenet_a"), painter)
    dataset = load_dataset("imagenet_a")
    with pytest.raises(FewshotError, match="imagenet_a has test pictures only"):
        dataset.task(4)
    assert len(dataset.without_support().test) == 200
