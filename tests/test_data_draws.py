"""A draw can be written down, read back equal, and taken over from others."""

from __future__ import annotations

import json
from pathlib import Path

import layouts
import numpy as np
import pytest

from fewshot.__main__ import main
from fewshot.data import from_arrays, load_dataset
from fewshot.data.catalogue import entry, keys
from fewshot.data.dataset import Dataset
from fewshot.data.draws import export_split, import_split
from fewshot.data.images import ImageFiles
from fewshot.data.splits import PARTS
from fewshot.errors import FewshotError


def from_rows(rows, names, root="nowhere") -> Dataset:
    """A data set of rows whose pictures need not exist: a draw only looks at their names."""
    parts = [ImageFiles(root, [p for p, _, _ in rows[part]], [label for _, label, _ in rows[part]]) for part in PARTS]
    return Dataset("pets", names, "a photo of a {}.", *parts)


@pytest.fixture
def pets():
    return from_rows(layouts.made_up("oxford_pets"), entry("oxford_pets").names)


def write(path, *lines) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("order", ["coop", "clip_lora"])
@pytest.mark.parametrize(("shots", "seed"), [(1, 1), (5, 3), (16, 2)])
def test_a_draw_comes_back_equal(pets, tmp_path, shots, seed, order):
    task = pets.task(shots, seed, order)
    export_split(task, tmp_path / "a.jsonl")
    again = import_split(tmp_path / "a.jsonl", pets)
    assert again.split_hash == task.split_hash and repr(again) == repr(task)
    assert (again.shots, again.seed, again.order, again.template) == (shots, seed, order, task.template)
    for part in PARTS:
        assert getattr(again, part).ids == getattr(task, part).ids
        assert getattr(again, part).labels.tolist() == getattr(task, part).labels.tolist()
    export_split(again, tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_the_file_says_what_it_is_and_names_every_picture(pets, tmp_path):
    task = pets.task(1)
    export_split(task, tmp_path / "a.jsonl")
    head, first, *rest = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert head == {"dataset": "pets", "shots": 1, "seed": 1, "order": "coop", "split_hash": task.split_hash}
    assert first == {"part": "train", "path": task.train.ids[0], "label": 0, "classname": "abyssinian"}
    assert len(rest) + 1 == 37 + 37 and rest[-1]["part"] == "val"


def test_pictures_in_memory_are_drawn_by_their_ids_too(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 3), dtype=np.uint8)
    dataset = from_arrays(pixels, np.arange(40) % 2, ["one", "two"])
    task = dataset.task(3, 2)
    export_split(task, tmp_path / "a.jsonl")
    again = import_split(tmp_path / "a.jsonl", dataset)
    assert np.array_equal(again.train.pixels, task.train.pixels) and again.split_hash == task.split_hash


def test_a_changed_file_is_noticed(pets, tmp_path):
    export_split(pets.task(2), tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_text("".join([lines[0], lines[2], lines[1], *lines[3:]]))
    with pytest.raises(FewshotError, match="was changed after it was written"):
        import_split(tmp_path / "a.jsonl", pets)


# -- other people's


def test_other_words_and_longer_paths_are_understood(pets, tmp_path):
    def line(part, word, i):
        path, label = getattr(pets, part).ids[i], int(getattr(pets, part).labels[i])
        name = pets.classnames[label].replace("_", " ").upper()
        return {"impath": f"./data/oxford_pets/images/{path}", "label": label, "class_name": name, "split": word}

    file = write(tmp_path / "other.jsonl", *(line("train", "train", i) for i in (0, 90)), line("val", "valid", 5))
    task = import_split(file, pets)
    assert task.train.ids == (pets.train.ids[0], pets.train.ids[90]) and task.val.ids == (pets.val.ids[5],)
    assert (task.order, task.seed, task.shots) == ("imported", 0, 1) and len(task.test) == len(pets.test)


def test_lines_without_part_are_training_pictures_unless_said_otherwise(pets, tmp_path):
    file = write(tmp_path / "a.jsonl", {"image": "beagle_1.jpg"}, {"image": "beagle_2.jpg"}, {"image": "pug_1.jpg"})
    task = import_split(file, pets)
    assert task.train.ids == ("beagle_1.jpg", "beagle_2.jpg", "pug_1.jpg") and task.shots is None and len(task.val) == 0
    with pytest.raises(FewshotError, match="lists no training picture"):
        import_split(file, pets, part="val")


def test_training_and_validation_pictures_may_change_places(pets, tmp_path):
    """Others divide train and val in another way; only the test pictures are taboo."""
    file = write(
        tmp_path / "a.jsonl",
        {"path": pets.val.ids[0]},
        {"path": pets.train.ids[0]},
        {"path": pets.val.ids[1], "part": "val"},
    )
    task = import_split(file, pets)
    assert task.train.ids == (pets.val.ids[0], pets.train.ids[0]) and task.train.root == pets.train.root


INDEX_FILES = sorted(Path(layouts.SPLITS).glob("indices/*/shot_*-seed_*.json")) if layouts.SPLITS else []


@pytest.mark.skipif(not INDEX_FILES, reason="FEWSHOT_SPLITS names no folder with index files")
@pytest.mark.parametrize("file", INDEX_FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_published_index_files_are_the_draws_of_the_split_file(file, tmp_path):
    dataset = from_rows(layouts.real(file.parent.name), entry(file.parent.name).names)
    shots, seed = (int(word.split("_")[1]) for word in file.stem.split("-"))
    assert import_split(file, dataset).split_hash == dataset.task(shots, seed).split_hash


@pytest.mark.parametrize(("lines", "message"), [
    ([{"path": "beagle_0.jpg"}], "line 1 of .* names 'beagle_0.jpg', which is no picture of pets"),
    ([{"path": "beagle_1.jpg", "label": 3}], "gives 'beagle_1.jpg' label 3, but in pets it has 4"),
    ([{"path": "beagle_1.jpg", "classname": "pug"}], "calls 'beagle_1.jpg' 'pug', not 'beagle'"),
    ([{"path": "beagle_1.jpg", "part": "test"}], "part of a split must be train or val, not 'test'"),
    ([{"shots": 1}, {"name": "beagle_1.jpg"}], "line 2 of .* names no picture"),
    ([["beagle_1.jpg", 4]], "line 1 of .* names no picture"),
    ([], "lists no training picture"),
])  # fmt: skip
def test_what_does_not_fit_is_named(pets, tmp_path, lines, message):
    with pytest.raises(FewshotError, match=message):
        import_split(write(tmp_path / "a.jsonl", *lines), pets)


def test_a_test_picture_never_becomes_a_training_picture(pets, tmp_path):
    with pytest.raises(FewshotError, match="for train, but it is a test picture of pets here"):
        import_split(write(tmp_path / "a.jsonl", {"path": f"images/{pets.test.ids[5]}"}), pets)


def test_what_is_no_file_of_lines_is_named(pets, tmp_path):
    with pytest.raises(FewshotError, match="cannot be read"):
        import_split(tmp_path / "nothing.jsonl", pets)
    (tmp_path / "a.jsonl").write_text('{"path": "beagle_1.jpg"}\nnot json\n')
    with pytest.raises(FewshotError, match="line 2 of .* is not JSON"):
        import_split(tmp_path / "a.jsonl", pets)
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04\x95\xff")
    with pytest.raises(FewshotError, match="cannot be read .not UTF-8 text"):
        import_split(tmp_path / "a.pkl", pets)


# -- the command


def test_export_split_writes_a_draw_of_a_named_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "dtd" in keys()
    folder = layouts.write(entry("dtd"), tmp_path, layouts.made_up("dtd"), layouts.Painter(tmp_path / "painter"))
    monkeypatch.setenv("FEWSHOT_DATA", str(folder.parent))
    with pytest.warns(UserWarning, match="is not the file that the papers used"):
        assert main(["data", "export-split", "dtd", "--shots", "2", "--seed", "3"]) == 0
        dataset = load_dataset("dtd")
    out = capsys.readouterr().out
    assert out.startswith("dtd-2shots-seed3.jsonl: 94 train and 94 val pictures, hash ")
    assert import_split("dtd-2shots-seed3.jsonl", dataset).split_hash == dataset.task(2, 3).split_hash
    assert out.split()[-1] == dataset.task(2, 3).split_hash
    assert main(["data", "export-split", "dtd", "--shots", "0"]) == 2
    assert "shots must be a whole number of at least 1" in capsys.readouterr().err
