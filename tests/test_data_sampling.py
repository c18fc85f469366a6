"""The few shots are the images that CoOp's code draws."""

import hashlib
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from fewshot.data.sampling import few_shot_indices
from fewshot.data.splits import read_split
from fewshot.errors import FewshotError

# Hashes of the index files published at linzhiqiu/cross_modal_adaptation, which equal what CoOp's own code draws.
GOLDEN = json.loads((Path(__file__).parent / "data" / "coop_draws.json").read_text())["datasets"]
SHOTS_SEEDS = [(shots, seed) for shots in (1, 2, 4, 8, 16) for seed in (1, 2, 3)]

SPLITS = os.environ.get("FEWSHOT_SPLITS")
SPLIT_FILES = {"dtd": "DescribableTextures"}  # index folder -> split_zhou_<Name>.json, where it is not the same word
INDEX_FILES = sorted(Path(SPLITS).glob("indices/*/shot_*-seed_*.json")) if SPLITS else []


def sha256(rows: np.ndarray) -> str:
    return hashlib.sha256(json.dumps(rows.tolist(), separators=(",", ":")).encode()).hexdigest()


def grouped_labels(entry: dict, part: str) -> np.ndarray:
    count, sizes = entry["n_classes"], entry[f"{part}_class_sizes"]
    order = range(count) if entry["label_order"] == "ascending" else entry["label_order"]
    return np.repeat(list(order), [sizes] * count if isinstance(sizes, int) else sizes)


@pytest.mark.parametrize(("shots", "seed"), SHOTS_SEEDS)
@pytest.mark.parametrize("name", GOLDEN)
def test_draws_equal_the_published_hashes(name, shots, seed):
    entry = GOLDEN[name]
    train, val = (grouped_labels(entry, part) for part in ("train", "val"))
    assert (len(train), len(val)) == (entry["n_train"], entry["n_val"])
    rows, val_rows = few_shot_indices(train, val, shots, seed)
    expected = entry["subsets"][f"shot_{shots}-seed_{seed}"]
    assert sha256(rows) == expected["train_sha256"]
    assert sha256(val_rows) == expected["val_sha256"]


@pytest.mark.skipif(not SPLITS, reason="FEWSHOT_SPLITS names no folder with split_zhou_*.json and indices/")
def test_the_split_folder_has_index_files():
    assert INDEX_FILES, f"no indices/<dataset>/shot_K-seed_S.json below {SPLITS}"


@pytest.mark.skipif(not SPLITS, reason="FEWSHOT_SPLITS names no folder with split_zhou_*.json and indices/")
@pytest.mark.parametrize("index_file", INDEX_FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_draws_equal_the_index_files_row_by_row(index_file):
    wanted = SPLIT_FILES.get(index_file.parent.name, index_file.parent.name.replace("_", "")).lower()
    found = [p for p in Path(SPLITS).glob("split_zhou_*.json") if p.stem.removeprefix("split_zhou_").lower() == wanted]
    if not found:
        pytest.skip(f"{SPLITS} has no split file for {index_file.parent.name}")
    split, published = read_split(found[0]), json.loads(index_file.read_text())
    shots, seed = (int(x.split("_")[1]) for x in index_file.stem.split("-"))
    drawn = few_shot_indices(*([label for _, label, _ in split[part]] for part in ("train", "val")), shots, seed)
    for part, rows in zip(("train", "val"), drawn, strict=True):
        assert rows.tolist() == published[part]["indices"]
        for row, image in zip(rows, published[part]["data"], strict=True):
            path, label, classname = split[part][row]
            assert image["impath"].endswith("/" + path)
            assert (image["label"], image["classname"]) == (label, classname)


def test_clip_lora_order_draws_val_from_the_fresh_stream():
    train, val = np.repeat(range(5), 20), np.repeat(range(5), 9)
    rows, val_rows = few_shot_indices(train, val, 8, 3, order="clip_lora")
    fresh, _ = few_shot_indices(val, None, 4, 3)  # what the stream gives first: min(8, 4) of each val group
    assert val_rows.tolist() == fresh.tolist()
    coop_rows, coop_val_rows = few_shot_indices(train, val, 8, 3)
    assert rows.tolist() != coop_rows.tolist()
    assert val_rows.tolist() != coop_val_rows.tolist()


def test_groups_follow_first_appearance_not_label():
    labels = np.array([2, 0, 2, 0, 1, 1])
    rows, _ = few_shot_indices(labels, None, 1, 1)
    assert labels[rows].tolist() == [2, 0, 1]


def test_a_small_group_is_taken_whole_and_draws_nothing():
    alone, _ = few_shot_indices(np.repeat([1], 30), None, 4, 1)
    behind, _ = few_shot_indices(np.array([0, 0] + [1] * 30), None, 4, 1)
    assert behind.tolist() == [0, 1, *(alone + 2).tolist()]


def test_the_global_random_state_plays_no_part_and_is_left_alone():
    random.seed(1)
    before = random.getstate()
    first = few_shot_indices(np.repeat([0, 1], 9), None, 2, 5)[0].tolist()
    assert random.getstate() == before
    random.seed(2)
    assert few_shot_indices(np.repeat([0, 1], 9), None, 2, 5)[0].tolist() == first


@pytest.mark.parametrize("shots", [0, -1, 1.5, "4", True])
def test_impossible_shots_are_named(shots):
    with pytest.raises(FewshotError, match="shots must be a whole number"):
        few_shot_indices([0, 1], None, shots, 1)


def test_an_unknown_order_is_answered_with_the_nearest():
    with pytest.raises(FewshotError, match="did you mean 'clip_lora'"):
        few_shot_indices([0, 1], None, 1, 1, order="clip-lora")
