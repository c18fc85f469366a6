"""Beyond sixteen shots: what is run and with which budget, and that tables, sentences and figures say what the rows say."""

from __future__ import annotations

import pandas as pd
import pytest

from fewshot import toy
from fewshot.errors import FewshotError
from fewshot.methods import get_method
from fewshot.methods.method import make_config
from fewshot.report import NOT_RUN, TITLES
from fewshot.runs import ALL, Profile
from fewshot.studies import beyond_sixteen as study
from fewshot.studies import crossings, profile_of, runs_of, with_options

TOY, PAPER = profile_of("toy"), profile_of("paper")
A, B = "toy/eurosat_large", "toy/dtd_large"
PROBE, GDA, TUNED, ZERO = "linear_probe", "gda", "fine_tune", "zero_shot"
SHOTS = (1, 16, ALL)


def rows_of(means: dict[str, dict[int, dict[str, float]]], seeds=(-1, 0, 1)) -> pd.DataFrame:
    """{method: {shots: {data set: mean}}}: three seeds, which move all methods alike by one point."""
    lines = []
    for method, by_shots in means.items():
        for k, by_dataset in by_shots.items():
            for dataset, mean in by_dataset.items():
                for seed, shift in enumerate((0,) if k == 0 else seeds, 1):
                    line = {"method": method, "arm": TITLES[method], "shots": k, "dataset": dataset, "seed": seed}
                    line |= {"accuracy": mean + shift, "seconds_fit": 10.0 * seed, "parameters": 7, "profile": "toy"}
                    lines.append(line | {"backbone": "toy", "pretrained": None, "hardware": "a CPU", "config": {}})
    return pd.DataFrame(lines)


def both(value: float, difference: float = 20.0) -> dict[str, float]:
    return {A: value, B: value - difference}


MEANS = {
    ZERO: {0: both(50)},
    PROBE: {1: both(40), 16: both(70), ALL: both(95)},
    GDA: {1: both(55), 16: both(72), ALL: both(80)},
    TUNED: {1: both(30), 16: both(60), ALL: both(97)},
}
ROWS = rows_of(MEANS)
METHODS, SETS = list(MEANS), [A, B]


# -- what is run -------------------------------------------------------------------------------------------------------


def test_nine_methods_on_three_large_sets_with_all_pictures_at_the_end():
    arms = study.arms(TOY)
    assert list(arms) == [TITLES[m] for m in study.METHODS] and len(arms) == 9
    assert len(runs_of(arms)) == 3 + 8 * 3 * 5 * 3
    assert {one.dataset for one in runs_of(arms)} == {f"toy/{name}" for name in toy.LARGE}
    assert {one.shots for one in arms["CoOp"]} == {1, 4, 16, 128, ALL} and {
        one.shots for one in arms[TITLES[ZERO]]
    } == {0}
    assert {one.seed for one in arms["CoOp"]} == {1, 2, 3}


def test_up_to_sixteen_shots_nothing_differs_from_the_profile():
    for one in runs_of(study.arms(TOY)):
        if one.shots <= 16 and one.shots != ALL:
            assert one.config == TOY.methods.get(one.method, {}), one


def config(label: str, shots: int, profile: Profile = TOY, dataset: str = A) -> dict:
    arms = study.arms(profile, datasets=[dataset], seeds=[1])
    return next(one.config for one in arms[label] if one.shots == shots)


def test_beyond_sixteen_shots_the_budget_is_that_of_sixteen():
    lora, tuned = TOY.methods["clip_lora"], TOY.methods["fine_tune"]
    for k in (128, ALL):
        assert config("CLIP-LoRA", k) == lora | {"views": 1, "iterations": 16 * lora["per_shot"]}
        assert config("Full fine-tuning", k) == tuned | {"views": 1, "iterations": 16 * tuned["per_shot"]}
        assert config("GDA", k) == config("Tip-Adapter", k) == {"augment_epoch": 1}
        assert config("Linear-probe CLIP", k) == config("LP++", k) == {}
    assert config("CoOp", 128) == {"views": 1, "epochs": 25} and config("CoOp", ALL) == {"views": 1, "epochs": 6}
    assert config("Tip-Adapter-F", 128)["epochs"] == 12  # an eighth of the hundred on EuroSAT
    assert config("Tip-Adapter-F", 128, dataset=B)["epochs"] == 2  # and of the twenty elsewhere
    assert config("Tip-Adapter-F", ALL, dataset=B)["epochs"] == 1


def test_between_sixteen_and_all_views_are_given_up_one_by_one():
    arms = study.arms(TOY, ["coop", "gda"], [A], [32, 64], [1])
    assert [one.config["views"] for one in arms["CoOp"]] == [4, 2]
    assert [one.config["augment_epoch"] for one in arms["GDA"]] == [5, 2]


def test_coop_keeps_an_epoch_beyond_its_warm_up():
    options = with_options(TOY, "coop", epochs=3)
    assert config("CoOp", ALL, options)["epochs"] == 2


def test_all_pictures_of_a_small_set_get_the_budget_of_as_many_shots():
    runs = study.arms(TOY, ["clip_lora", "coop"], ["toy/eurosat"], [ALL], [1])
    assert runs["CLIP-LoRA"][0].config["iterations"] == 16 * 24 and runs["CoOp"][0].config["epochs"] == 80


def test_a_profile_that_counts_steps_itself_keeps_its_count():
    assert config("CLIP-LoRA", 128, profile_of("smoke"))["iterations"] == 2


def test_the_papers_sets_are_those_with_many_pictures_and_a_million_is_too_many():
    arms = study.arms(PAPER)
    asked = {(one.dataset, one.shots) for one in arms["CoOp"]}
    assert {d for d, _ in asked} == set(study.REAL)
    assert ("food101", ALL) in asked and ("imagenet", ALL) not in asked and ("imagenet", 128) in asked
    assert config("CLIP-LoRA", 128, PAPER, "eurosat") == {"iterations": 8000}


def test_every_option_is_one_of_its_method():
    for profile in (TOY, PAPER):
        for one in runs_of(study.arms(profile)):
            make_config(get_method(one.method), one.config)


def test_pictures_of_an_unknown_data_set_are_asked_for(tmp_path):
    with pytest.raises(FewshotError, match="nobody knows how many pictures"):
        crossings.training_pictures(str(tmp_path / "none"))
    assert crossings.training_pictures(A) == (10, 5120) and crossings.training_pictures("food101") == (101, 50_500)


# -- who is ahead ------------------------------------------------------------------------------------------------------


def test_a_lead_is_the_mean_over_data_sets_of_paired_seeds():
    found = crossings.lead(ROWS, PROBE, GDA, ALL)
    assert (found.mean, found.low, found.high, found.n) == (15, 15, 15, 3)  # a seed moves both alike
    assert crossings.lead(ROWS, PROBE, ZERO, 16).mean == 20
    alone = crossings.lead(ROWS[ROWS["seed"] == 1], PROBE, GDA, ALL)
    assert alone.mean == 15 and alone.low == -float("inf")
    assert not crossings.lead(ROWS, PROBE, "coop", 1).n


def test_a_crossing_is_where_a_method_begins_to_stay_ahead():
    assert crossings.crossing(ROWS, PROBE, GDA, SHOTS) == ALL
    assert crossings.crossing(ROWS, PROBE, ZERO, SHOTS) == 16
    assert crossings.crossing(ROWS, PROBE, TUNED, SHOTS) is None  # ahead at 1 and 16, behind in the end
    assert crossings.crossing(ROWS, PROBE, TUNED, (1, 16)) == 1
    assert crossings.crossing(ROWS, PROBE, "coop", SHOTS) is None


def test_all_pictures_come_after_every_number_of_them():
    assert sorted([ALL, 128, 1], key=crossings.by_size) == [1, 128, ALL]
    assert crossings.crossing(ROWS, PROBE, GDA, (ALL, 16, 1)) == ALL


def test_surely_asks_for_the_whole_interval():
    rows = ROWS.copy()
    unsure = (rows["method"] == PROBE) & (rows["shots"] == 16)
    rows.loc[unsure, "accuracy"] += rows.loc[unsure, "seed"].map({1: 60, 2: -40, 3: -40})
    assert crossings.crossing(rows, PROBE, ZERO, SHOTS) == 16
    assert crossings.crossing(rows, PROBE, ZERO, SHOTS, surely=True) == ALL


# -- tables ------------------------------------------------------------------------------------------------------------


def test_the_table_of_averages_has_a_column_per_number_of_shots():
    table = study.accuracy_table(ROWS, METHODS, SHOTS, SETS)
    assert list(table.columns) == ["1", "16", "all"] and list(table.index) == [TITLES[m] for m in METHODS]
    assert table.loc["GDA", "1"] == "45.0 ± 0.8 (3)" and table.loc["Zero-shot CLIP", "all"] == "40.0 (1)"
    assert table.marks["Full fine-tuning", "all"] == "strong" and table.marks["GDA", "16"] == "strong"
    assert (
        "(all: 512)" in table.caption
        and "average over eurosat_large, dtd_large" in table.caption
        and "toy" in table.caption
    )
    assert study.accuracy_table(ROWS, METHODS, SHOTS, [A]).loc["GDA", "1"] == "55.0 ± 0.8 (3)"


def test_what_is_missing_says_so_and_is_not_ranked():
    rows = ROWS[
        ~((ROWS["method"] == TUNED) & (ROWS["dataset"] == B)) & ~((ROWS["method"] == GDA) & (ROWS["shots"] == 16))
    ]
    table = study.accuracy_table(rows, [*METHODS, "coop"], SHOTS, SETS)
    assert table.loc["Full fine-tuning", "all"] == "97.0 ± 0.8 (3), 1 of 2 sets"
    assert table.marks["Linear-probe CLIP", "all"] == "strong"
    assert table.loc["GDA", "16"] == NOT_RUN == table.loc["CoOp", "1"]
    lead = study.crossing_table(rows, PROBE, [*METHODS, "coop"], SHOTS, SETS)
    assert lead.loc["Full fine-tuning", "all"] == "−2.0 [−2.0, −2.0], 1 of 2 sets"
    assert lead.loc["CoOp"].tolist() == [NOT_RUN] * 5 and lead.loc["GDA", "16"] == NOT_RUN


def test_the_table_of_crossings_names_them():
    table = study.crossing_table(ROWS, PROBE, METHODS, SHOTS, SETS)
    assert list(table.columns) == ["ahead from", "surely from", "1", "16", "all"]
    assert table.loc["GDA"].tolist() == [
        "all",
        "all",
        "−15.0 [−15.0, −15.0]",
        "−2.0 [−2.0, −2.0]",
        "+15.0 [+15.0, +15.0]",
    ]
    assert table.loc["Zero-shot CLIP", "ahead from"] == "16" and table.loc["Full fine-tuning", "ahead from"] == "–"
    assert PROBE not in table.index and table.index.name == "Linear-probe CLIP against"
    some = study.crossing_table(ROWS[ROWS["shots"] != ALL], PROBE, METHODS, SHOTS, SETS)
    assert some.loc["Full fine-tuning", "ahead from"] == "1 (run up to 16)"


def test_costs_are_those_of_the_quickest_seed():
    rows = ROWS.copy()
    rows.loc[(rows["method"] == GDA) & (rows["dataset"] == B), ["parameters", "seconds_fit"]] = 1234, 30.0
    table = study.cost_table(rows, [*METHODS, "coop"], SHOTS)
    assert table.loc["Linear-probe CLIP"].tolist() == ["7", "10.0", "10.0", "10.0"]
    assert table.loc["GDA"].tolist() == ["7 to 1,234", "20.0", "20.0", "20.0"]
    assert table.loc["CoOp"].tolist() == [NOT_RUN] * 4 and "a CPU" in table.caption


def test_the_papers_columns_are_the_originals_of_the_large_sets():
    table = study.paper_table(["zero_shot", "clip_lora"], [A, B])
    assert list(table.columns) == ["eurosat", "dtd"] and table.loc["CLIP-LoRA", "eurosat"] == "92.1"
    assert study.paper_table(["gda"], [A]) is None


# -- sentences ---------------------------------------------------------------------------------------------------------


def test_the_statement_says_who_wins_where_curves_cross_and_what_labels_buy():
    said = study.statement(ROWS, METHODS, SHOTS, SETS).splitlines()
    assert said[0] == (
        "1 shot: best of 4 is GDA (45.0 %), +5.0 [+4.2, +5.8] points ahead of Zero-shot CLIP; surely ahead of all. "
        "Full fine-tuning takes place 4. Below zero-shot: Linear-probe CLIP and Full fine-tuning."
    )
    assert said[2].startswith("All pictures: best of 4 is Full fine-tuning (87.0 %)")
    assert said[3] == (
        "Linear-probe CLIP: from 16 on it is ahead of Zero-shot CLIP; from all on it is ahead of GDA; in the end it is not "
        "ahead of Full fine-tuning."
    )
    assert said[4].startswith("Full fine-tuning: from 16 on it is ahead of Zero-shot CLIP; from all on")
    assert said[5] == (
        "From 16 shots to all the averages change by (points): Full fine-tuning +37.0, Linear-probe CLIP +25.0, GDA +8.0."
    )


def test_changing_a_row_changes_the_statement():
    rows = ROWS.copy()
    rows.loc[(rows["method"] == PROBE) & (rows["shots"] == 16), "accuracy"] += 5
    said = study.statement(rows, METHODS, SHOTS, SETS)
    assert "16 shots: best of 4 is Linear-probe CLIP (65.0 %), +3.0" in said
    assert "Linear-probe CLIP: from 16 on it is ahead of Zero-shot CLIP and GDA" in said


def test_a_partial_grid_says_so_and_names_no_crossing_of_it():
    rows = ROWS[~((ROWS["method"] == TUNED) & (ROWS["shots"] == ALL))]
    said = study.statement(rows, METHODS, SHOTS, SETS)
    assert "All pictures: best of 3 is Linear-probe CLIP (85.0 %) (1 not run on all data sets)" in said
    assert "Not run everywhere, so that no crossing is named: Full fine-tuning." in said
    assert "\nFull fine-tuning:" not in said
    assert study.statement(ROWS[:0], METHODS, SHOTS, SETS).startswith("1 shot: not run.\n16 shots: not run.")


def test_methods_that_cannot_be_told_from_the_best_are_named():
    rows = rows_of({PROBE: {1: both(50)}, GDA: {1: both(50.5)}})
    rows.loc[rows["method"] == GDA, "accuracy"] += rows["seed"].map({1: 4, 2: -4, 3: 0})
    said = study.statement(rows, [PROBE, GDA], [1], SETS)
    assert "best of 2 is GDA" in said and "not surely ahead of Linear-probe CLIP" in said


# -- figures -----------------------------------------------------------------------------------------------------------


def test_curves_have_a_panel_per_data_set_and_one_of_the_average_with_bars():
    figure = crossings.curves(ROWS, METHODS, SETS)
    axes = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in axes] == ["eurosat_large", "dtd_large", "average"]
    line = next(c for c in axes[2].containers if c.get_label() == "GDA")
    assert list(line[0].get_xdata()) == pytest.approx([1, 16, 512]) and list(line[0].get_ydata()) == pytest.approx(
        [45, 62, 70]
    )
    assert line.has_yerr and axes[2].get_xscale() == "log"
    assert [t.get_text() for t in axes[2].get_xticklabels()] == ["1", "16", "all"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [TITLES[m] for m in (ZERO, PROBE, GDA, TUNED)]


def test_all_stands_at_the_number_of_pictures_of_each_set_and_the_average_needs_every_set():
    rows = rows_of({GDA: {1: {A: 50, "toy/dtd": 40}, ALL: {A: 80, "toy/dtd": 60}}})
    found = crossings.points(rows, [GDA], [A, "toy/dtd"]).set_index(["dataset", "shots"])
    assert found.loc[(A, ALL), "pictures"] == 512 and found.loc[("toy/dtd", ALL), "pictures"] == 40
    assert found.loc[("average", ALL), "pictures"] == pytest.approx((512 * 40) ** 0.5)
    some = crossings.points(rows[(rows["shots"] == 1) | (rows["dataset"] == A)], [GDA], [A, "toy/dtd"])
    assert ("average", ALL) not in set(zip(some["dataset"], some["shots"], strict=True))


def test_leads_are_drawn_at_their_values_around_zero():
    figure = crossings.leads(ROWS, PROBE, METHODS, SHOTS, SETS)
    (axis,) = figure.axes
    line = next(c for c in axis.containers if c.get_label() == "GDA")
    assert list(line[0].get_ydata()) == [-15, -2, 15] and line.has_yerr
    assert [c.get_label() for c in axis.containers] == ["Zero-shot CLIP", "GDA", "Full fine-tuning"]
    found = crossings.lead_points(ROWS, PROBE, METHODS, SHOTS, SETS)
    assert found[["against", "shots", "lead"]].values.tolist()[3:5] == [[GDA, 1, -15], [GDA, 16, -2]]


def test_figures_of_nothing():
    with pytest.raises(FewshotError, match="no row to draw"):
        crossings.curves(ROWS[:0], METHODS, SETS)
    assert crossings.leads(ROWS[:0], PROBE, METHODS, SHOTS, SETS).axes
