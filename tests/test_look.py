"""What notebooks show of pictures and predictions is what is there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fewshot import look
from fewshot.data.images import ImageArrays
from fewshot.errors import FewshotError

NAMES = ("red_fox", "owl", "newt")
TRUE, SAID = np.array([0, 0, 0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 2, 1, 1, 0, 2])
RESULT = SimpleNamespace(labels=TRUE, predictions=SAID, n=8, accuracy=50.0)


def picture(path, colour, size=(40, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path):
    picture(tmp_path / "train" / "owl" / "a.png", "red")
    picture(tmp_path / "train" / "newt" / "b.png", "blue")
    picture(tmp_path / "test" / "owl" / "c.png", "red")
    picture(tmp_path / "test" / "newt" / "d.png", "green", (8, 90))
    (tmp_path / "test" / "newt" / "e.jpg").write_bytes(b"no picture")
    (tmp_path / "test" / "newt" / "f.jpg").write_bytes(b"")
    (tmp_path / "test" / "newt" / "notes.txt").write_text("ignored")
    return tmp_path


def test_a_survey_names_every_unreadable_small_and_repeated_file(folder):
    files = look.survey(folder).set_index("file")
    assert len(files) == 6 and set(files["part"]) == {"train", "test"} and set(files["class"]) == {"owl", "newt"}
    assert files.loc["train/owl/a.png", "remark"] == "the same file as test/owl/c.png"
    assert files.loc["test/newt/d.png", "remark"] == "only 8 x 90 pixels"
    assert files.loc["test/newt/e.jpg", "remark"].startswith("unreadable") and str(folder) not in files["remark"].sum()
    assert files.loc["test/newt/f.jpg", "remark"] == "unreadable: empty file"
    assert (files["remark"] == "").sum() == 2


def test_a_picture_cut_off_in_the_middle_is_unreadable(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "owl").mkdir()
    path = tmp_path / "owl" / "a.jpg"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    assert look.survey(tmp_path)["remark"][0].startswith("unreadable")


@pytest.mark.parametrize("name, says", [("nowhere", "does not exist"), ("", "holds no picture")])
def test_a_survey_of_nothing_says_so(tmp_path, name, says):
    with pytest.raises(FewshotError, match=says):
        look.survey(tmp_path / name)


def test_confusions_are_counted_with_their_share_of_the_class():
    table = look.confusions(RESULT, NAMES)
    assert table.values.tolist() == [
        ["red_fox", "owl", 2, "50"],
        ["red_fox", "newt", 1, "25"],
        ["newt", "red_fox", 1, "50"],
    ]


def test_the_matrix_shows_the_counts_of_the_classes_with_most_mistakes():
    axis = look.confusion_matrix(RESULT, NAMES, most=2).axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["red fox", "owl"]
    assert [t.get_text() for t in axis.texts] == ["1", "2", "0", "2"]


def test_the_worst_mistakes_are_the_most_confident_wrong_answers():
    sure = np.array([0.99, 0.5, 0.9, 0.6, 0.99, 0.99, 0.7, 0.99])
    chances = np.stack([sure, (1 - sure) / 2, (1 - sure) / 2], axis=1)
    assert look.worst_mistakes(RESULT, chances, most=3) == [2, 6, 3]


def test_accuracy_comes_with_wilsons_interval_and_the_mean_over_classes():
    low, high = look.interval(45, 50)
    assert (round(low, 1), round(high, 1)) == (78.6, 95.7)  # Newcombe (1998), method 3
    line = look.accuracy_table({"coop": RESULT}, {"coop": 1.26}).loc["CoOp"]
    by_class = f"{100 * (1 / 4 + 2 / 2 + 1 / 2) / 3:.1f}"
    assert line["right"] == "4 of 8" and line["mean over classes"] == by_class and line["seconds"] == "1.3"


def pictures(n=6):
    pixels = np.random.default_rng(0).integers(0, 255, (n, 3, 16, 16), dtype=np.uint8)
    return ImageArrays(pixels, np.arange(n) % 3)


def test_a_grid_is_a_small_jpeg_and_an_empty_one_is_refused():
    sheet = look.grid(pictures(), titles=list("abcdef"), columns=3)
    assert sheet.data[:2] == b"\xff\xd8" and len(sheet.data) < 200_000
    with pytest.raises(FewshotError, match="no picture to show"):
        look.grid(pictures(), [])


def test_one_per_class_has_every_class_once():
    images = pictures(9)
    assert images.labels[look.one_per_class(images)].tolist() == [0, 1, 2]
    assert images.labels[look.one_per_class(images, 2, seed=1)].tolist() == [0, 0, 1, 1, 2, 2]


def test_an_answer_shows_the_likeliest_classes_with_the_best_on_top():
    figure = look.answer(pictures().pil(0), [0.2, 0.7, 0.1], NAMES, top=2)
    bars = figure.axes[1]
    assert [t.get_text() for t in bars.get_yticklabels()] == ["red fox", "owl"]
    assert [round(bar.get_width()) for bar in bars.patches] == [20, 70]


def test_a_sample_folder_is_a_folder_of_classes_written_once(tmp_path):
    from fewshot.data import from_folder

    dataset = SimpleNamespace(classnames=NAMES, train=pictures(12))
    folder = look.sample_folder(dataset, tmp_path / "sample", per_class=3)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.png")}
    look.sample_folder(dataset, folder, per_class=3)
    assert len(before) == 9 and before == {p: p.stat().st_mtime_ns for p in folder.rglob("*.png")}
    assert from_folder(folder).classnames == tuple(sorted(NAMES))
