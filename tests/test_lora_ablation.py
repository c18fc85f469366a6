"""The LoRA ablation: what is run, and that every number of its tables, sentences and figures is that of its rows."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from fewshot.errors import FewshotError
from fewshot.lora import LowRank
from fewshot.methods import get_method
from fewshot.methods.method import make_config
from fewshot.rows import FIRST, Rows
from fewshot.runs import ROOT
from fewshot.studies import lora_ablation as study
from fewshot.studies import lora_figures as figures
from fewshot.studies import profile_of, runs_of, with_options
from fewshot.studies.lora_ablation import OWN, label

TOY = profile_of("toy")
A, B = "toy/imagenet", "toy/eurosat"
TEXT, VISION, UPPER = label(encoder="text"), label(encoder="vision"), label(position="half-up")
NUMBERS = {OWN: 12288, TEXT: 6144, VISION: 6144, UPPER: 6144, label(r=32): 196608, label("q"): 4096}


def rows_of(accuracies: dict[str, dict[str, float]], seeds=(-1, 0, 1)) -> pd.DataFrame:
    """{arm: {data set: mean}}: seeds that differ by one point, the same way in every arm."""
    return pd.DataFrame(
        [
            {"arm": arm, "method": "clip_lora", "dataset": d, "accuracy": mean + shift, "seed": seed, "shots": 4}
            | {"parameters": NUMBERS[arm], "profile": "toy", "backbone": "toy", "pretrained": None}
            for arm, by_dataset in accuracies.items()
            for d, mean in by_dataset.items()
            for seed, shift in enumerate(seeds, 1)
        ]
    )


ROWS = rows_of({OWN: {A: 80, B: 70}, TEXT: {A: 78, B: 50}, label(r=32): {A: 84, B: 71}, label("q"): {A: 79}})
LABELS = [OWN, TEXT, VISION, label(r=32), label("q")]


# -- what is run -------------------------------------------------------------------------------------------------------


def test_three_grids_share_their_cells():
    arms = study.arms(TOY)
    # 7 sets x 3 ranks, 4 more ranks, 3 x 6 encoders and positions without the one that all share
    assert len(arms) == 21 + 4 + 17 and {len(runs) for runs in arms.values()} == {9}
    assert len(runs_of(arms)) == 42 * 9
    assert next(iter(arms)) == OWN == "qkv, rank 2, both, all"
    assert {one.dataset for one in runs_of(arms)} == {"toy/imagenet", "toy/stanford_cars", "toy/eurosat"}
    assert {one.shots for one in runs_of(arms)} == {4}


def test_what_a_setting_leaves_as_it_is_is_not_written_down():
    arms = study.arms(TOY)
    usual = TOY.methods["clip_lora"]
    assert arms[OWN][0].config == usual
    assert arms[label("qv", 8)][0].config == usual | {"params": ["q", "v"], "r": 8}
    assert arms[label(encoder="text", position="mid")][0].config == usual | {"encoder": "text", "position": "mid"}
    strange = with_options(TOY, "clip_lora", r=4)  # a profile with a rank of its own
    found = study.arms(strange)
    assert found[label(r=4)][0].config == usual | {"r": 4} and found[OWN][0].config == usual | {"r": 2}


def test_part_of_the_experiment():
    arms = study.arms(TOY, ["toy/dtd"], 1, [7], ["v"], [1], [2], ["up"], limit=30)
    assert list(arms) == [OWN, label("v", 1), *(label(encoder=e, position="up") for e in study.ENCODERS)]
    assert {(one.dataset, one.shots, one.seed, one.limit) for one in runs_of(arms)} == {("toy/dtd", 1, 7, 30)}


def test_the_authors_setting_has_the_method_tables_rows():
    stored = Rows(ROOT / "results" / "method_table-toy.jsonl")
    assert all(one.key in stored for one in study.arms(TOY)[OWN])


def test_every_setting_is_one_that_the_method_takes_and_the_paper_profile_has_real_pictures():
    for runs in study.arms(TOY).values():
        config = make_config(get_method("clip_lora"), runs[0].config)
        assert isinstance(config.params, tuple) and set(config.params) <= set("qkvo")
    assert {one.dataset for one in runs_of(study.arms(profile_of("paper")))} == set(study.SOME)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"matrices": ["qx"]}, "names no set of matrices"), ({"matrices": [""]}, "names no set"),
     ({"positions": ["half-upp"]}, "half-up")],
)  # fmt: skip
def test_unknown_matrices_and_positions_are_named(options, words):
    with pytest.raises(FewshotError, match=words):
        study.arms(TOY, **options)


def test_a_label_says_its_setting():
    assert study.setting_of(label("qv", 8, "text", "half-up")) == {
        "params": "qv", "r": 8, "encoder": "text", "position": "half-up",
    }  # fmt: skip


def test_blocks_of_a_position_by_depth():
    table = study.blocks_table({"text encoder": 12, "image encoder": 4})
    assert table.loc["up", "text encoder, 12 blocks"] == "9, 10, 11, 12"
    assert list(table["image encoder, 4 blocks"]) == ["1, 2, 3, 4", "3, 4", "1, 2", "4", "2, 3", "1"]
    assert study.blocks_table({"x": 1}, ["bottom"]).iloc[0, 0] == "none"


# -- cells and tables --------------------------------------------------------------------------------------------------


def test_cells_average_seed_by_seed_and_leave_out_what_was_not_run():
    found = study.cells(ROWS, LABELS, [A, B]).set_index(["arm", "dataset"])
    assert found.loc[(OWN, "average"), "mean"] == 75
    assert found.loc[(OWN, A), "std"] == pytest.approx((2 / 3) ** 0.5)  # population
    assert found.loc[(OWN, "average"), "std"] == pytest.approx((2 / 3) ** 0.5)  # of the seeds' averages
    assert not {VISION} & set(found.index.get_level_values("arm"))
    assert (label("q"), A) in found.index and (label("q"), "average") not in found.index


def test_settings_table_shows_differences_draw_by_draw():
    table = study.settings_table(ROWS, LABELS, [A, B])
    assert table.loc[OWN, "average"] == "75.0 ± 0.8 (3)" and table.loc[OWN, "over the authors' own"] == "–"
    assert table.loc[TEXT, "over the authors' own"] == "−11.0 [−11.0, −11.0]"  # the seeds' noise is shared
    assert table.loc[label("q"), "average"] == "not run" and table.loc[label("q"), A] == "79.0 ± 0.8 (3)"
    assert set(table.loc[VISION]) == {"not run"}
    assert table.loc[OWN, "numbers learned"] == "12,288"
    assert "4 shots per class" in table.caption and "toy world" in table.caption
    assert study.settings_table(ROWS[ROWS["seed"] == 1], [OWN], [A])[A].iloc[0] == "79.0 (1)"


def test_rank_table_names_the_factor_and_the_speed():
    table = study.rank_table(ROWS, [2, 8, 32], [A, B])
    assert list(table["factor α/√r"]) == ["0.71", "0.35", "0.18"]
    assert list(table["speed, rank 2 = 1"]) == ["1.0", "2.0", "4.0"]
    assert list(table.index) == ["2", "8", "32"] and table.loc["8", "average"] == "not run"


@pytest.mark.parametrize("r", [8, 32])
def test_the_first_step_moves_the_matrix_faster_by_the_root_of_the_rank(r):
    """Adam moves every number of B by lr; r columns behind the factor 1/√r make √r."""

    class Attention:
        in_proj_weight = torch.zeros(3 * 128, 128)

    class Block:
        attn = Attention()

    def moved(rank: int, seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        x, g = torch.randn(2, 1, 128, generator=generator)
        lora = LowRank([Block()], [0], "v", rank, 1.0, 0.0, generator)
        optimizer = torch.optim.Adam([lora.B], lr=1e-3)
        (lora.scale * (x @ lora.A[0, 0].T @ lora.B[0, 0].T) * g).sum().backward()
        optimizer.step()
        return float((lora.scale * (x @ lora.A[0, 0].T @ lora.B[0, 0].T)).norm().detach())

    fast, slow = (sum(moved(rank, seed) for seed in range(40)) for rank in (r, 2))
    assert fast / slow == pytest.approx((r / 2) ** 0.5, rel=0.1)


def test_comparisons_ask_about_data_sets_and_about_draws():
    table = study.comparisons(ROWS, {"both − text": (OWN, TEXT), "both − vision": (OWN, VISION)})
    line = table.loc["both − text"]
    assert line["mean, over seeds"] == "+11.0 [+11.0, +11.0]" and line[B] == "+20.0 [+20.0, +20.0]"
    assert line["mean, over data sets"].startswith("+11.0 [−")  # 2 and 20 points: two data sets decide nothing
    assert set(table.loc["both − vision"]) == {"not run"}


def test_a_changed_row_changes_the_table():
    rows = ROWS.copy()
    rows.loc[(rows["arm"] == OWN) & (rows["dataset"] == A) & (rows["seed"] == 3), "accuracy"] += 6
    assert study.settings_table(rows, LABELS, [A, B]).loc[OWN, A] == "82.0 ± 3.6 (3)"
    assert study.comparisons(rows, study.PAIRS).loc["both − text", A].startswith("+4.0 [−4.6")


def test_statement_is_computed():
    said = study.statement(ROWS, [A, B])
    assert "both − text: +11.0" in said and "over the seeds (above 0)" in said
    assert "over 2 data sets (undecided)" in said and "both − vision" not in said
    assert f"{B}, 2 ranks, at qkv of both encoders: best 32 (71.0), worst 2 (70.0); +1.0 [+1.0, +1.0]" in said
    other = study.statement(rows_of({OWN: {A: 70}, TEXT: {A: 78}}), [A])
    assert "both − text: −8.0" in other and "(below 0)" in other and "average" not in other
    assert study.statement(ROWS.iloc[:0], [A]) == "Nothing was run, so nothing can be said."


# -- figures -----------------------------------------------------------------------------------------------------------

LINES = {"qkv": {"2": OWN, "32": label(r=32)}, "q": {"2": label("q"), "32": label("q", 32)}}


def texts(figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_heat_map_writes_mean_and_deviation_and_what_was_not_run():
    figure = figures.heat_maps(ROWS, LINES, [A, B], 3, ("matrices", "rank"))
    assert [axis.get_title() for axis in figure.axes] == ["average", A, B]
    written = texts(figure)
    assert "75.0\n±0.8" in written and "84.0\n±0.8" in written
    assert written.count("not run") == 5  # q at rank 2 but for A, q at rank 32 everywhere
    frames = [patch for axis in figure.axes for patch in axis.patches if not patch.get_fill()]
    assert len(frames) == 3  # the authors' own, in every panel
    assert max(axis.get_position().x1 for axis in figure.axes) <= 1 and figure.get_figwidth() <= 7


def test_text_of_a_cell_stands_out_from_its_shade():
    assert figures._readable((0.03, 0.19, 0.42, 1)) == "#FFFFFF" and figures._readable((0.9, 0.9, 1.0, 1)) == "#111111"
    figure = figures.heat_maps(ROWS, LINES, [A], 1, ("matrices", "rank"))
    colours = {t.get_text(): t.get_color() for t in figure.axes[0].texts}
    assert colours["84.0\n±0.8"] == "#FFFFFF" and colours["79.0\n±0.8"] == "#111111"


def test_bars_have_their_errors():
    figure = figures.bars(ROWS, {"text": TEXT, "vision": VISION, "both": OWN}, [A, B], "encoder")
    heights = sorted(round(float(p.get_height())) for p in figure.axes[0].patches)
    assert heights == [50, 64, 70, 75, 78, 80]
    drawn = [bar for bar in figure.axes[0].containers if len(bar) and getattr(bar, "errorbar", None)]
    assert len(drawn) == 2 and all(len(bar.errorbar.lines[2][0].get_segments()) == 3 for bar in drawn)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["text", "vision (not run)", "both"]


def test_curves_and_points_are_those_of_the_cells():
    curve = figures.rank_curves(ROWS, [2, 8, 32], [A, B]).axes[0]
    line = next(c for c in curve.containers if c.get_label() == "average")[0]
    assert list(line.get_xdata()) == [2, 32] and list(line.get_ydata()) == [75, 77.5]
    points = figures.accuracy_against_numbers(ROWS, LABELS, [A, B]).axes[0]
    own = next(c for c in points.containers if c.get_label() == "text, all blocks")[0]
    assert list(own.get_xdata()) == [6144] and list(own.get_ydata()) == [64]
    assert "the authors' own" in [t.get_text() for t in points.texts]


def test_nothing_run_draws_nothing_and_does_not_break():
    empty = pd.DataFrame(columns=[*FIRST, "arm"])  # what `measured` gives
    assert study.statement(empty, [A]) == "Nothing was run, so nothing can be said."
    assert "not run" in texts(figures.heat_maps(empty, LINES, [A, B], 3, ("matrices", "rank")))
    figures.bars(empty, {"text": TEXT}, [A], "encoder")
    figures.rank_curves(empty, [2, 8], [A])
    figures.accuracy_against_numbers(empty, LABELS, [A])
    assert set(study.settings_table(empty, [TEXT], [A]).iloc[0]) == {"not run"}
    study.rank_table(empty, [2], [A]).html()
    study.comparisons(empty, study.PAIRS).html()
