"""Published numbers beside the measured ones, wins, gains and averages: each counted by hand here."""

from __future__ import annotations

import base64
import re

import pytest
from test_report import FOOD, PETS, frame

from fewshot.methods import METHODS
from fewshot.published import published
from fewshot.report import as_rows, averaged, download, gains, method_table, published_table, shot_curves, wins

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
    assert whole.columns[-1] == "average" and len(whole.columns) == 12 and "PLOT++" in whole.index
    asked = [f"toy/{d}" for d in whole.columns[:-1]]
    assert list(published_table(published("clip_lora"), 16, ["coop"], asked).columns[-1:]) == ["average"]
    assert "average" not in published_table(published("clip_lora"), 16, ["coop"], asked[:-1])


def test_nothing_published_at_these_shots_or_data_sets_is_none():
    assert published_table(published("clip_lora"), 8) is None
    assert published_table(published("clip_lora"), 4, ["coop"], ["toy/cub"]) is None
    assert published_table(published("clip_lora"), 4, ["linear_probe"]) is None


def test_wins_are_counted_on_the_data_sets_both_have():
    table = wins(ROWS, 4)
    assert table.loc["CoOp", "Zero-shot CLIP"] == "1 – 1" and table.loc["CLIP-LoRA", "Zero-shot CLIP"] == "1 – 0"
    assert table.loc["CLIP-LoRA", "CoOp"] == "0 – 0" and table.loc["CoOp", "CoOp"] == ""  # 56.0 against 56.0


def test_gains_are_computed_from_rows_that_have_both_ends():
    table = gains(ROWS, 1, 4)
    assert list(table.index) == ["CoOp", "CLIP-LoRA"]
    assert table.loc["CoOp", "gain"] == "+1.9 ± 0.0 (3)" and table.loc["CoOp", "gains most on"] == f"{PETS} +3.0"
    assert table.loc["CLIP-LoRA", "gain"] == "not run"


def test_an_averaged_curve_has_only_points_with_every_data_set():
    whole = averaged(ROWS)
    assert set(whole["method"]) == {"zero_shot", "coop"} and set(whole["dataset"]) == {"toy/average of 2 data sets"}
    mean = whole.query("method == 'coop' and shots == 4 and seed == 2")["accuracy"].item()
    assert mean == pytest.approx((56.0 + 59.0) / 2)
    assert len(shot_curves(whole).axes) == 1


def test_published_curves_are_labelled_and_leave_out_what_is_not_here():
    rows = as_rows(published("clip_lora"))
    assert set(rows["method"]) == {"zero_shot", "coop", "tip_adapter_f", "clip_lora"}
    assert set(rows["variant"]) >= {"coop_ctx16"} and "coop_ctx4" not in set(rows["variant"])
    assert "published" in shot_curves(rows)._suptitle.get_text()


def test_a_download_carries_its_table_in_the_link():
    link = download(ROWS[["method", "accuracy"]].head(1), "x.csv").data
    data = re.search(r'href="data:text/csv;base64,([^"]+)"', link).group(1)
    assert base64.b64decode(data).decode() == "method,accuracy\nzero_shot,50.0\n" and 'download="x.csv"' in link


def test_a_table_without_any_row_reads_not_run():
    table = method_table(ROWS.head(0), 4, ["coop"], [PETS])
    assert table.loc["CoOp"].tolist() == ["not run", "not run"]


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_the_legend_of_few_panels_stays_inside_the_figure(columns):
    every = [(m, f"toy/{d}", 4, 1, 50.0) for m in METHODS if m != "zero_shot" for d in range(columns)]
    figure = shot_curves(frame(*every, *(("zero_shot", f"toy/{d}", 0, 1, 40.0) for d in range(columns))))
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
