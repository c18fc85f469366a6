"""Published numbers beside the measured ones, wins, gains and averages: each counted by hand here."""

from __future__ import annotations

import base64
import re

import pytest
from bs4 import BeautifulSoup
from test_report import FOOD, PETS, frame

from fewshot.methods import METHODS
from fewshot.published import published
from fewshot.report import as_rows, averaged, download, gains, method_table, published_table, wins

ROWS = frame(
    ("zero_shot", PETS, 0, 1, 50.0),
    ("zero_shot", FOOD, 0, 1, 60.0),
    *(("coop", PETS, k, seed, 50.0 + k + seed) for k in (1, 4) for seed in (1, 2, 3)),
    *(("coop", FOOD, k, seed, 58.0 + k / 4) for k in (1, 4) for seed in (1, 2, 3)),
    *(("clip_lora", PETS, 4, seed, 56.0) for seed in (1, 2)),
)


def test_published_numbers_take_the_lines_and_columns_of_the_table_beside_them():
    table = published_table(published("clip_lora"), 4, ["zero_shot", "linear_probe", "clip_lora"], [PETS, FOOD])
    paper = published("clip_lora").query("shots == 4 and method == 'clip_lora'").set_index("dataset")["top1"]
    assert list(table.columns) == ["oxford_pets", "food101"] and list(table.index) == ["Zero-shot CLIP", "CLIP-LoRA"]
    assert table.loc["CLIP-LoRA", "food101"] == f"{paper['food101']:.1f}"
    assert "Published" in table.caption and "not measured here" in table.caption


def test_the_published_average_is_shown_only_beside_all_of_its_data_sets():
    whole = published_table(published("clip_lora"), 16)
    assert whole.columns[0] == "average" and len(whole.columns) == 12 and "PLOT++" in whole.index
    asked = [f"toy/{d}" for d in whole.columns[1:]]
    assert list(published_table(published("clip_lora"), 16, ["coop"], asked).columns[:1]) == ["average"]
    assert "average" not in published_table(published("clip_lora"), 16, ["coop"], asked[:-1])


def test_nothing_published_at_these_shots_or_data_sets_is_none():
    assert published_table(published("clip_lora"), 8) is None
    assert published_table(published("clip_lora"), 4, ["coop"], ["toy/cub"]) is None
    assert published_table(published("clip_lora"), 4, ["linear_probe"]) is None


def test_wins_are_counted_on_the_data_sets_both_have():
    table = wins(ROWS, 4)
    assert table.loc["CoOp", "Zero-shot CLIP"] == "1" and table.loc["CLIP-LoRA", "Zero-shot CLIP"] == "1/1"
    assert table.loc["CLIP-LoRA", "CoOp"] == "0/1" and table.loc["CoOp", "CoOp"] == ""  # 56.0 against 56.0
    assert table["all"].to_dict() == {"Zero-shot CLIP": "1 – 2", "CoOp": "1 – 1", "CLIP-LoRA": "1 – 0"}
    assert table.hints["CLIP-LoRA", "CoOp"] == "CLIP-LoRA against CoOp: 0 won, 0 lost, 1 equal"


def test_only_the_better_of_a_pair_is_marked_and_the_clearer_the_darker():
    rows = frame(
        *((m, f"toy/{d}", 4, 1, a + d) for d in range(4) for m, a in (("coop", 50), ("gda", 51), ("maple", 9)))
    )
    rows.loc[(rows["method"] == "coop") & (rows["dataset"] == "toy/0"), "accuracy"] = 80.0
    table = wins(rows, 4)
    assert [table.loc[pair] for pair in (("GDA", "CoOp"), ("CoOp", "GDA"), ("CoOp", "MaPLe"))] == ["3", "1", "4"]
    assert set(table.marks) == {("GDA", "CoOp"), ("GDA", "MaPLe"), ("CoOp", "MaPLe")}
    assert table.tints["GDA", "CoOp"] == 0.25 and table.tints["CoOp", "MaPLe"] == 0.5
    soup = BeautifulSoup(table.html(), "html.parser")
    assert soup.table["class"][:2] == ["sortable", "square"]
    cell = soup.tbody.find_all("tr")[0].find_all("td")[2]  # GDA comes first, then its columns: all, GDA, CoOp
    assert cell.strong.text == "3" and "0.25" in cell["style"] and cell["title"].startswith("GDA against CoOp: 3 won")


def test_all_methods_against_each_other_stay_narrow():
    table = wins(frame(*((m, "toy/a", 4 if m != "zero_shot" else 0, 1, 50.0) for m in METHODS)), 4)
    assert table.shape == (len(METHODS), len(METHODS) + 1)
    cells = [len(text) for name in table.columns[1:] for text in table[name]]
    assert max(cells) == 1 and max(map(len, table["all"])) <= 9


def test_gains_are_computed_from_rows_that_have_both_ends():
    table = gains(ROWS, 1, 4)
    assert list(table.index) == ["CoOp", "CLIP-LoRA"]
    assert table.loc["CoOp", "gain"] == "+1.9 ± 0.0 (3)" and table.loc["CoOp", "gains most on"] == f"{PETS} +3.0"
    assert table.loc["CLIP-LoRA", "gain"] == "not run"


NAME = f"toy/average of 2 data sets ({', '.join(sorted(n.removeprefix('toy/') for n in set(ROWS['dataset'])))})"


def test_an_average_over_fewer_than_eleven_says_which_and_over_few_pictures_too():
    assert f"Data sets: {', '.join(sorted(set(ROWS['dataset'])))}." in gains(ROWS, 1, 4).caption
    few = averaged(ROWS.assign(limit=20))
    assert set(few["dataset"]) == {f"{NAME} (at most 20 test pictures each)"}
    assert "Tested on at most 20 test pictures" in method_table(ROWS.assign(limit=20), 4).caption
    eleven = frame(*(("coop", f"toy/{i}", 4, 1, 50.0) for i in range(11)))
    assert set(averaged(eleven)["dataset"]) == {"toy/average of 11 data sets"}


def test_an_averaged_curve_has_only_points_with_every_data_set():
    whole = averaged(ROWS)
    assert set(whole["method"]) == {"zero_shot", "coop"} and set(whole["dataset"]) == {NAME}
    mean = whole.query("method == 'coop' and shots == 4 and seed == 2")["accuracy"].item()
    assert mean == pytest.approx((56.0 + 59.0) / 2)


def test_published_rows_are_those_of_the_methods_that_are_here():
    rows = as_rows(published("clip_lora"))
    assert set(rows["method"]) == {*METHODS} & {*published("clip_lora")["method"]} > {"plotpp", "maple", "taskres"}
    assert set(rows["variant"]) >= {"coop_ctx16"} and "coop_ctx4" not in set(rows["variant"])


def test_a_download_carries_its_table_in_the_link():
    link = download(ROWS[["method", "accuracy"]].head(1), "x.csv").data
    data = re.search(r'href="data:text/csv;base64,([^"]+)"', link).group(1)
    assert base64.b64decode(data).decode() == "method,accuracy\nzero_shot,50.0\n" and 'download="x.csv"' in link


def test_a_table_without_any_row_reads_not_run():
    table = method_table(ROWS.head(0), 4, ["coop"], [PETS])
    assert table.loc["CoOp"].tolist() == ["not run", "not run"]
