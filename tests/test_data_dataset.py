"""A task is drawn from a data set reproducibly, and training never sees the test pictures."""

import copy
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from fewshot.data import Dataset, ImageArrays, from_split
from fewshot.data.sampling import few_shot_indices
from fewshot.errors import FewshotError

NAMES = ("ant", "bee", "cow", "dog", "eel")


def pictures(part, per_class, classes=5):
    labels = np.repeat(np.arange(classes), per_class)
    pixels = np.random.default_rng(len(part)).integers(0, 256, (len(labels), 3, 4, 4), dtype=np.uint8)
    return ImageArrays(pixels, labels, [f"{part}/{i}" for i in range(len(labels))])


@pytest.fixture
def dataset():
    return Dataset("zoo", NAMES, "a photo of a {}.", pictures("train", 12), pictures("val", 6), pictures("test", 3))


@pytest.mark.parametrize("order", ["coop", "clip_lora"])
def test_a_task_holds_the_drawn_pictures_and_all_of_test(dataset, order):
    task = dataset.task(8, seed=2, order=order)
    rows, val_rows = few_shot_indices(dataset.train.labels, dataset.val.labels, 8, 2, order)
    assert task.train.ids == tuple(dataset.train.ids[i] for i in rows)
    assert task.val.ids == tuple(dataset.val.ids[i] for i in val_rows)
    assert (len(task.train), len(task.val), len(task.test)) == (40, 20, 15)
    assert (task.dataset, task.shots, task.seed, task.order) == ("zoo", 8, 2, order)


def test_no_shots_means_every_picture(dataset):
    task = dataset.task(None)
    assert task.train.ids == dataset.train.ids and task.val.ids == dataset.val.ids and task.shots is None


def test_the_split_hash_tells_draws_apart_and_is_stable(dataset):
    hashes = {
        (k, s, o): dataset.task(k, s, o).split_hash for k in (1, 4) for s in (1, 2) for o in ("coop", "clip_lora")
    }
    assert len(set(hashes.values())) == 8
    assert hashes[4, 1, "coop"] == "a51e1208802adffb"  # the draw is part of every stored row: it must not move


def test_a_class_that_is_too_small_is_named_with_its_count_and_the_remedy(dataset):
    with pytest.raises(FewshotError, match="'ant' of zoo has 12 training pictures, fewer than 16 shots .*at most 12"):
        dataset.task(16)
    assert len(dataset.task(16, allow_fewer=True).train) == 60


def test_halves_restrict_the_draw_of_all_classes_and_renumber(dataset):
    task = dataset.task(4, seed=1)
    base, new = task.half("base"), task.half("new")
    assert base.classnames == NAMES[:3] and new.classnames == NAMES[3:]
    assert base.train.ids + new.train.ids == task.train.ids
    assert base.test.ids + new.test.ids == task.test.ids
    assert new.train.labels.tolist() == [0] * 4 + [1] * 4
    assert new.test.labels.tolist() == [0] * 3 + [1] * 3
    assert len({task.split_hash, base.split_hash, new.split_hash}) == 3
    with pytest.raises(FewshotError, match="did you mean 'base'"):
        task.half("bases")


def test_a_sealed_task_has_no_test_pictures_anywhere(dataset):
    task = dataset.task(2)
    sealed = task.without_test()
    for each in (sealed, sealed.half("new"), copy.deepcopy(sealed), pickle.loads(pickle.dumps(sealed))):
        with pytest.raises(FewshotError, match="the test set is sealed during training"):
            each.test  # noqa: B018
        assert "test" not in vars(each)
        assert "sealed" in repr(each)
    assert sealed.split_hash == task.split_hash
    assert len(task.test) == 15
    with pytest.raises(AttributeError):
        task.tests  # noqa: B018


def test_labels_beyond_the_class_names_are_refused():
    with pytest.raises(FewshotError, match="the test labels of zoo run from 0 to 4"):
        Dataset("zoo", NAMES[:4], "{}", pictures("train", 2, 4), pictures("val", 2, 4), pictures("test", 2))


# ---- split files


@pytest.fixture
def split_file(tmp_path):
    rows = {"train": [["b/1.png", 1, "bee"], ["a/1.png", 0, "ant"]], "val": [], "test": [["a/2.png", 0, "ant"]]}
    for path, _, _ in rows["train"] + rows["test"]:
        (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / path)
    (tmp_path / "split_zhou_Zoo.json").write_text(json.dumps(rows))
    return tmp_path / "split_zhou_Zoo.json"


def test_a_split_file_keeps_its_row_order(split_file):
    dataset = from_split(split_file, split_file.parent / "images", template="a {}.")
    assert (dataset.name, dataset.classnames) == ("Zoo", ("ant", "bee"))
    assert dataset.train.ids == ("b/1.png", "a/1.png") and dataset.train.labels.tolist() == [1, 0]
    assert dataset.test.pil(0).size == (4, 4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1", "is no split file"),
        ('{"train": [], "val": []}', "is no split file"),
        ('{"train": [["a", 0]], "val": [], "test": []}', "is no split file"),
        ('{"train": [["a", 0, "x"]], "val": [], "test": [["b", 0, "y"]]}', "label 0 two names, 'x' and 'y'"),
        ('{"train": [["a", 0, "x"], ["b", 2, "y"]], "val": [], "test": []}', "not 0 to 1 without gaps"),
        ('{"train": [["a", 0, "x"], ["b", 1, "y"]], "val": [], "test": []}', "2 of 2 pictures of .* the first is a;"),
    ],
)
def test_a_wrong_split_file_gets_one_sentence(tmp_path, text, sentence):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(FewshotError, match=sentence):
        from_split(tmp_path / "split.json", tmp_path)
    with pytest.raises(FewshotError, match="gone.json cannot be read"):
        from_split(tmp_path / "gone.json", tmp_path)


def test_a_task_without_support_has_the_test_pictures_only():
    arrays = ImageArrays(np.zeros((6, 3, 4, 4), np.uint8), [0, 1] * 3, [str(i) for i in range(6)])
    nothing = arrays.subset([])
    task = Dataset("shifted", ("a", "b"), "a photo of a {}.", nothing, nothing, arrays).without_support()
    assert (len(task.train), len(task.val), len(task.test), task.shots) == (0, 0, 6, 0)
