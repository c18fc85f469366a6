"""A folder, a CSV file or an array becomes a data set, or one sentence says why not."""

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot.data import from_arrays, from_csv, from_folder, load_dataset, load_task
from fewshot.errors import FewshotError


def fill(folder, count, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (6, 5), (i, 0, 0)).save(folder / f"photo {i:02d}{suffix}")
    return folder


def parts(dataset):
    return {"train": set(dataset.train.ids), "val": set(dataset.val.ids), "test": set(dataset.test.ids)}


@pytest.fixture
def flat(tmp_path):
    for name in ("red_apple", "pink lady", "Äpfel"):
        fill(tmp_path / "fruit" / name, 10)
    return tmp_path / "fruit"


def test_a_flat_folder_is_divided_half_fifth_and_three_tenths_per_class(flat):
    dataset = from_folder(flat)
    assert dataset.name == "fruit"
    assert dataset.classnames == ("pink lady", "red_apple", "Äpfel")
    for images, count in ((dataset.train, 5), (dataset.val, 2), (dataset.test, 3)):
        assert np.bincount(images.labels).tolist() == [count] * 3
    train, val, test = parts(dataset).values()
    assert len(train | val | test) == 30
    assert all(
        i.startswith(dataset.classnames[c]) for i, c in zip(dataset.train.ids, dataset.train.labels, strict=True)
    )


def test_the_division_is_a_function_of_the_seed(flat):
    assert parts(from_folder(flat)) == parts(from_folder(flat))
    assert parts(from_folder(flat)) != parts(from_folder(flat, split_seed=2))


def test_a_new_picture_moves_no_picture_of_another_class(flat):
    before = parts(from_folder(flat))
    Image.new("RGB", (6, 5)).save(flat / "pink lady" / "new.png")
    after = parts(from_folder(flat))
    for part in before:
        assert {i for i in before[part] if "pink" not in i} == {i for i in after[part] if "pink" not in i}


def test_train_and_test_folders_are_kept_and_val_comes_out_of_train(tmp_path):
    for name in ("a", "b"):
        fill(tmp_path / "Train" / name, 10)
        fill(tmp_path / "test" / name, 4)
    fill(tmp_path / "extra", 3)
    dataset = from_folder(tmp_path)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (16, 4, 8)
    assert all(i.startswith("test/") for i in dataset.test.ids)
    assert all(i.startswith("Train/") for i in dataset.train.ids + dataset.val.ids)


def test_three_part_folders_are_kept_as_they_are(tmp_path):
    for part, count in (("train", 4), ("validation", 2), ("test", 3)):
        for name in ("a", "b"):
            fill(tmp_path / part / name, count)
    dataset = from_folder(tmp_path)
    assert [len(x) for x in (dataset.train, dataset.val, dataset.test)] == [8, 4, 6]


def test_a_val_folder_without_test_is_the_test_set(tmp_path):
    for name in ("a", "b"):
        fill(tmp_path / "train" / name, 10)
        fill(tmp_path / "val" / name, 3)
    dataset = from_folder(tmp_path)
    assert all(i.startswith("val/") for i in dataset.test.ids) and len(dataset.test) == 6
    assert all(i.startswith("train/") for i in dataset.val.ids) and len(dataset.val) == 4


def test_a_class_named_train_beside_other_classes_is_a_class(tmp_path):
    for name in ("train", "bus", "car"):
        fill(tmp_path / name, 4)
    assert from_folder(tmp_path).classnames == ("bus", "car", "train")


def test_hidden_files_other_files_and_upper_case_extensions(tmp_path):
    for name in ("a", "b", ".git", "__MACOSX"):
        fill(tmp_path / name, 4, ".JPG")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "a" / "._photo 00.JPG").write_bytes(b"x")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "notes.csv").write_text("x")
    fill(tmp_path / "b" / "deeper", 2)
    dataset = from_folder(tmp_path)
    assert dataset.classnames == ("a", "b")
    assert sum(len(x) for x in (dataset.train, dataset.val, dataset.test)) == 10


def test_the_home_folder_may_be_written_as_a_tilde(flat, monkeypatch):
    monkeypatch.setenv("HOME", str(flat.parent))
    monkeypatch.setenv("USERPROFILE", str(flat.parent))
    assert len(from_folder("~/fruit").classnames) == 3
    assert load_task("~/fruit", shots=2).train.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_small_classes_keep_something_to_learn_from_and_to_test_on(tmp_path):
    fill(tmp_path / "a", 2)
    fill(tmp_path / "b", 3)
    dataset = from_folder(tmp_path)
    assert set(dataset.train.labels.tolist()) == set(dataset.test.labels.tolist()) == {0, 1}
    fill(tmp_path / "c", 1)
    with pytest.raises(FewshotError, match="class 'c' .* single picture"):
        from_folder(tmp_path)
    assert len(from_folder(tmp_path, test=0, val=0).train) == 6


def test_wrong_folders_get_one_sentence_each(tmp_path):
    with pytest.raises(FewshotError, match="nowhere does not exist"):
        from_folder(tmp_path / "nowhere")
    fill(tmp_path / "loose", 3)
    with pytest.raises(FewshotError, match="loose has no class folders .it holds 3 pictures directly"):
        from_folder(tmp_path / "loose")
    with pytest.raises(FewshotError, match="photo 00.png is a file"):
        from_folder(tmp_path / "loose" / "photo 00.png")
    with pytest.raises(FewshotError, match="only one class, 'loose'"):
        from_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FewshotError, match="class folder .*empty holds no picture"):
        from_folder(tmp_path)
    (tmp_path / "empty" / "a.HEIC").write_bytes(b"x")
    with pytest.raises(FewshotError, match=r"empty holds no picture: it holds 1 \.heic files; convert them"):
        from_folder(tmp_path)


def test_a_class_missing_from_one_part_is_named(tmp_path):
    for place in ("train/a", "train/b", "test/a", "test/b", "test/c"):
        fill(tmp_path / place, 3)
    with pytest.raises(FewshotError, match="class 'c' is in .*test but has no training folder"):
        from_folder(tmp_path)
    fill(tmp_path / "train" / "c", 3)
    fill(tmp_path / "train" / "d", 3)
    with pytest.raises(FewshotError, match="class 'd' has a training folder but none in .*test"):
        from_folder(tmp_path)


def test_an_unreadable_picture_is_named_when_the_folder_is_opened(flat):
    (flat / "red_apple" / "broken.jpg").touch()
    with pytest.raises(FewshotError, match="broken.jpg cannot be read: it is empty"):
        from_folder(flat)


@pytest.mark.parametrize("template", ["a photo.", "a {} of a {}.", "{name}", None])
def test_a_template_without_its_one_place_is_refused(flat, template):
    with pytest.raises(FewshotError, match="exactly one {}"):
        from_folder(flat, template=template)


@pytest.mark.parametrize("shares", [{"val": 0.7}, {"test": -0.1}, {"val": float("nan")}])
def test_shares_that_leave_no_train_are_refused(flat, shares):
    with pytest.raises(FewshotError, match="must leave some for train"):
        from_folder(flat, **shares)


# ---- CSV


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_with_a_split_column(flat, delimiter):
    rows = [["Image", "class", "split"]]
    rows += [[f"pink lady/photo {i:02d}.png", "pink", p] for i, p in enumerate(["train", "train", "val", "test"])]
    rows += [[f"Äpfel/photo {i:02d}.png", "äpfel", p] for i, p in enumerate(["train", "test", "valid", "train"])]
    (flat / "list.csv").write_text("\n".join(delimiter.join(r) for r in rows), encoding="utf-8-sig")
    dataset = load_dataset(flat / "list.csv")
    assert dataset.classnames == ("pink", "äpfel")
    assert dataset.train.ids == tuple(f"{f}/photo {i:02d}.png" for f, i in
                                      (("pink lady", 0), ("pink lady", 1), ("Äpfel", 0), ("Äpfel", 3)))  # fmt: skip
    assert (dataset.val.labels.tolist(), dataset.test.labels.tolist()) == ([0, 1], [0, 1])
    assert dataset.test.pil(0).size == (6, 5)


def test_a_csv_without_split_is_divided_and_may_have_its_pictures_elsewhere(flat, tmp_path):
    lines = ["image,class"] + [f"{c}/photo {i:02d}.png,{c}" for c in ("Äpfel", "pink lady") for i in range(10)]
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    dataset = from_csv(tmp_path / "list.csv", root=flat)
    assert [len(x) for x in (dataset.train, dataset.val, dataset.test)] == [10, 4, 6]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,class\na,b", "no column 'image' .its columns: file, class"),
        ("image,class", "lists no picture"),
        (
            "image,class\nÄpfel/photo 00.png,a\ngone.png,b",
            "line 3 of .*names a picture that does not exist: .*gone.png",
        ),
        ("image,class\nÄpfel/photo 00.png,", "line 2 of .*has no class"),
        ("image,class,split\nÄpfel/photo 00.png,a,tets", "line 2 of .*split 'tets'; it must be train, val or test"),
        ("image,class,split\nÄpfel/photo 00.png,a,test\npink lady/photo 00.png,b,test", "no training pictures"),
        ("image,class\nÄpfel/photo 00.png,a\nÄpfel/photo 01.png,a", "only one class, 'a'"),
    ],
)
def test_a_wrong_csv_gets_one_sentence(flat, text, sentence):
    (flat / "list.csv").write_text(text, encoding="utf-8")
    with pytest.raises(FewshotError, match=sentence):
        from_csv(flat / "list.csv")


# ---- arrays

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 9), dtype=np.uint8)
LABELS = np.repeat([0, 1], 10)


@pytest.mark.parametrize(
    "images",
    [
        PIXELS,
        PIXELS.transpose(0, 2, 3, 1),
        torch.from_numpy(PIXELS),
        PIXELS / 255,
        torch.from_numpy(PIXELS).permute(0, 2, 3, 1) / 255,
        list(PIXELS),
    ],
    ids=["NCHW", "NHWC", "torch", "floats", "torch NHWC floats", "list"],
)
def test_every_layout_gives_the_same_pictures(images):
    dataset = from_arrays(images, torch.from_numpy(LABELS), ["cat", "dog"])
    assert [len(x) for x in (dataset.train, dataset.val, dataset.test)] == [10, 4, 6]
    for part in (dataset.train, dataset.val, dataset.test):
        for i, name in enumerate(part.ids):
            assert np.array_equal(np.asarray(part.pil(i)).transpose(2, 0, 1), PIXELS[int(name)])


@pytest.mark.parametrize("grey", [PIXELS[:, 0], PIXELS[:, :1], PIXELS[:, 0, :, :, None]], ids=["NHW", "N1HW", "NHW1"])
def test_grey_pictures_get_three_equal_channels(grey):
    dataset = from_arrays(grey, LABELS, ["cat", "dog"])
    assert np.array_equal(dataset.train.pixels[:, 0], dataset.train.pixels[:, 2])
    assert np.array_equal(dataset.train.pixels[0, 1], PIXELS[int(dataset.train.ids[0]), 0])


def test_arrays_with_a_split():
    split = np.array(["train", "train", "val", "test"] * 5)
    dataset = from_arrays(PIXELS, LABELS, ["cat", "dog"], split=split)
    assert dataset.test.ids == tuple(str(i) for i in range(3, 20, 4))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": PIXELS[0, 0]}, r"must be \[N,H,W,3\], \[N,3,H,W\] or grey \[N,H,W\], not \[8, 9\]"),
        ({"images": np.zeros((20, 4, 8, 9), np.uint8)}, r"shape \[20, 4, 8, 9\] have no colour axis"),
        ({"images": np.zeros((20, 3, 8, 3), np.uint8)}, "could be"),
        ({"images": PIXELS.astype(np.int64)}, "not int64"),
        ({"images": PIXELS / 100}, r"must lie in 0\.\.1"),
        ({"images": [np.zeros((3, 4, 4)), np.zeros((3, 5, 5))]}, "no common size"),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, "empty"),
        ({"labels": LABELS[:5]}, r"labels of shape \[20\], not \[5\]"),
        ({"labels": LABELS / 2}, "whole numbers"),
        ({"labels": LABELS + 1}, "class 'cat' .label 0. has no picture"),
        ({"classnames": ["cat", "dog", "cow"]}, "class 'cow' .label 2. has no picture"),
        ({"classnames": ["cat"]}, "only one class"),
        ({"split": ["train"]}, "20 pictures need as many split values, not 1"),
        ({"split": ["train"] * 19 + ["tset"]}, "did you mean 'test'"),
    ],
)
def test_wrong_arrays_get_one_sentence(change, sentence):
    given = {"images": PIXELS, "labels": LABELS, "classnames": ["cat", "dog"], **change}
    with pytest.raises(FewshotError, match=sentence):
        from_arrays(given.pop("images"), given.pop("labels"), given.pop("classnames"), **given)


def test_labels_beyond_the_class_names_are_named():
    with pytest.raises(FewshotError, match="need 0 to 1"):
        from_arrays(PIXELS, np.where(LABELS, 2, np.arange(20) % 2), ["cat", "dog"])


# ---- by name


def test_an_unknown_name_is_answered_and_a_missing_path_is_a_path():
    with pytest.raises(FewshotError, match="unknown data set 'petz'"):
        load_dataset("petz")
    with pytest.raises(FewshotError, match="the folder no/where does not exist"):
        load_dataset("no/where")
