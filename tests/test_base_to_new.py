"""Base to new: what is run, and that every number of its tables, sentences and figures is that of its rows."""

from __future__ import annotations

import pandas as pd
import pytest

from fewshot import published
from fewshot.errors import FewshotError
from fewshot.intervals import Effect
from fewshot.studies import base_to_new as study
from fewshot.studies import differences, halves, profile_of, runs_of
from fewshot.studies.halves import ZERO

TOY = profile_of("toy")
A, B = "toy/imagenet", "toy/stanford_cars"
PARAMETERS = {"CoOp": 512, study.SIXTEEN: 2048, study.WIDE: 7680, "CoCoOp": 2696}


def row(arm: str, dataset: str, half: str, accuracy: float, seed: int = 1) -> dict:
    return {
        "arm": arm, "method": study.ARMS[arm][0], "dataset": dataset, "target": half, "accuracy": float(accuracy), "seed": seed,
        "shots": 0 if arm == ZERO else 16, "parameters": PARAMETERS.get(arm, 0), "profile": "toy", "backbone": "toy",
        "pretrained": None,
    }  # fmt: skip


def rows_of(**arms) -> pd.DataFrame:
    """rows_of(CoOp={A: (80, 50)}): base and new by data set, three seeds that differ by one point; zero-shot has one."""
    lines = []
    for arm, by_dataset in arms.items():
        arm = ZERO if arm == "zero" else arm
        for dataset, accuracies in by_dataset.items():
            for half, accuracy in zip(study.HALVES, accuracies, strict=True):
                seeds = [(1, 0)] if arm == ZERO else [(1, -1), (2, 0), (3, 1)]
                lines += [row(arm, dataset, half, accuracy + shift, seed) for seed, shift in seeds]
    return pd.DataFrame(lines)


# zero-shot: A's new half is easier, B's is harder. CoOp wins 20 and 10 on base, loses 12 and 8 on new.
ROWS = rows_of(
    zero={A: (60, 70), B: (50, 40)}, CoOp={A: (80, 58), B: (60, 32)}, CoCoOp={A: (75, 69), B: (58, 39)},
    **{study.SIXTEEN: {A: (85, 50), B: (65, 30)}, study.WIDE: {A: (85, 40), B: (65, 26)}},
)  # fmt: skip
LABELS = [ZERO, "CoOp", study.SIXTEEN, study.WIDE, "CoCoOp"]


# -- what is run -------------------------------------------------------------------------------------------------------


def test_eleven_arms_on_both_halves_of_eleven_data_sets():
    arms = study.arms(TOY)
    assert list(arms)[:4] == ["Zero-shot CLIP", "CLIP-Adapter", "CoOp", "CoOp, 16 vectors"] and len(arms) == 11
    assert {len(runs) for runs in arms.values()} == {22, 66} and len(runs_of(arms)) == 682
    assert {one.target for one in runs_of(arms)} == {"base", "new"} and {one.shots for one in arms["CoOp"]} == {16}


def test_the_three_coops_differ_in_their_vectors_alone():
    arms = study.arms(TOY)
    words, sixteen, wide = ({**arms[name][0].config} for name in ("CoOp", study.SIXTEEN, study.WIDE))
    assert words.pop("ctx_init") == "a photo of a" and wide.pop("n_ctx") == 60
    assert words == sixteen == wide == TOY.methods["coop"]


def test_sixty_vectors_are_not_asked_of_names_that_have_no_room_beside_them():
    paper = study.arms(profile_of("paper"))
    assert {one.dataset for one in paper[study.WIDE]} == {one.dataset for one in paper["CoOp"]} - {"stanford_cars"}
    assert B in {one.dataset for one in study.arms(TOY)[study.WIDE]}  # the stand-in's names are short


def test_arms_of_some_methods_and_data_sets():
    arms = study.arms(TOY, ["coop"], ["toy/dtd"], 4, [7], limit=30)
    assert list(arms) == ["CoOp", study.SIXTEEN, study.WIDE]
    assert {(one.dataset, one.shots, one.seed, one.limit) for one in runs_of(arms)} == {("toy/dtd", 4, 7, 30)}


def test_no_arm_is_of_a_method_that_refuses_other_classes():
    bound = study.class_bound()
    assert bound["Tip-Adapter"] == "its cache holds pictures of the old ones"
    assert not set(bound) & set(study.ARMS)


# -- scores ------------------------------------------------------------------------------------------------------------


def test_h_is_that_of_the_averages_and_not_the_average_of_the_hs():
    found = halves.averages(halves.scores(ROWS)).loc["CoOp"]
    assert (found["base"], found["new"], found["seeds"], found["datasets"]) == (70, 45, 3, 2)
    assert found["H"] == pytest.approx(2 * 70 * 45 / 115)
    single = halves.scores(ROWS).query("arm == 'CoOp'").groupby("dataset")["H"].mean()
    assert abs(found["H"] - single.mean()) > 0.2
    assert found["base_std"] == pytest.approx((2 / 3) ** 0.5)  # population deviation of -1, 0, 1


def test_published_h_is_formed_in_the_same_way():
    paper = published.base_to_new_averages()
    assert (halves.harmonic(paper["base"], paper["new"]) - paper["harmonic"]).abs().max() < 0.011


def test_a_half_without_the_other_does_not_count():
    lonely = pd.DataFrame([row("CoCoOp", "toy/dtd", "base", 99.0)])
    assert halves.scores(pd.concat([ROWS, lonely])).equals(halves.scores(ROWS))
    assert halves.change(pd.concat([ROWS, lonely]), "CoCoOp", "base", "CoOp").equals(
        halves.change(ROWS, "CoCoOp", "base", "CoOp")
    )


def test_two_rows_of_one_seed_are_refused():
    with pytest.raises(FewshotError, match="mix settings"):
        halves.scores(pd.concat([ROWS, ROWS.iloc[:1]]))


def test_zero_shot_stands_beside_every_seed_and_its_own_change_is_taken_away():
    change = halves.change(ROWS, "CoOp", "new", ZERO)
    assert change.loc[A].tolist() == [-13, -12, -11] and list(change.columns) == [1, 2, 3]
    assert halves.change(ROWS, ZERO, "new", ZERO, "base")[1].to_dict() == {A: 10, B: -10}
    assert halves.beyond(ROWS, "CoOp").mean(axis=1).to_dict() == {A: -32, B: -18}  # 20 and 12, 10 and 8


# -- tables ------------------------------------------------------------------------------------------------------------


def test_averages_table_marks_the_best_and_follows_its_rows():
    table = study.averages_table(ROWS, LABELS, [A, B])
    assert table.loc["CoOp"].tolist() == ["70.0 ± 0.8 (3)", "45.0 ± 0.8 (3)", "54.8 ± 0.9 (3)"]
    assert table.loc[ZERO, "new"] == "55.0 (1)" and table.marks[ZERO, "new"] == "strong"
    assert table.marks["CoCoOp", "new"] == "u" and "toy world" in table.caption and "16 shots" in table.caption
    better = ROWS.assign(accuracy=ROWS["accuracy"].mask((ROWS["arm"] == "CoCoOp") & (ROWS["target"] == "new"), 80.0))
    changed = study.averages_table(better, LABELS, [A, B])
    assert changed.loc["CoCoOp", "new"] == "80.0 ± 0.0 (3)" and changed.marks["CoCoOp", "new"] == "strong"


def test_an_arm_without_all_data_sets_is_named_and_not_ranked():
    part = ROWS[(ROWS["arm"] != ZERO) | (ROWS["dataset"] == A)]
    table = study.averages_table(part, [*LABELS, "MaPLe"], [A, B])
    assert table.loc[ZERO, "new"] == "70.0 (1)" and (ZERO, "new") not in table.marks
    assert "Zero-shot CLIP (1 of 2)" in table.caption and table.loc["MaPLe"].tolist() == ["not run"] * 3
    cell = study.dataset_table(part, "new", [*LABELS, "MaPLe"], [A, B])
    assert cell.loc[ZERO].tolist() == ["70.0 (1), 1 of 2 sets", "70.0 (1)", "not run"]


def test_table_by_data_set_has_every_half():
    cells = {half: study.dataset_table(ROWS, half, LABELS, [A, B]).loc["CoOp"].tolist() for half in study.COLUMNS}
    assert cells["base"] == ["70.0 ± 0.8 (3)", "80.0 ± 0.8 (3)", "60.0 ± 0.8 (3)"]
    assert cells["new"][1:] == ["58.0 ± 0.8 (3)", "32.0 ± 0.8 (3)"] and cells["H"][0] == "54.8 ± 0.9 (3)"
    assert cells["H"][1].startswith(f"{2 * 80 * 58 / 138:.1f}")


def test_gains_are_over_zero_shot_on_the_same_half():
    table = study.gains_table(ROWS, LABELS)
    assert list(table.index) == LABELS[1:]
    half = 12.7062 * 5  # Student's t with one degree of freedom times the standard error of 20 and 10
    assert table.loc["CoOp", "base, over zero-shot"] == f"+15.0 [−{half - 15:.1f}, +{half + 15:.1f}]"
    assert table.loc["CoOp", "new, over zero-shot"].startswith("−10.0 [")
    assert table.loc["CoOp", "new below zero-shot on"] == "2 of 2"
    assert table.loc["CoOp", "new − base"].startswith("−25.0 [")
    assert table.loc["CoOp", "the same beyond zero-shot's"].startswith("−25.0 [")
    easier = ROWS.assign(accuracy=ROWS["accuracy"] - 5 * ((ROWS["arm"] == ZERO) & (ROWS["target"] == "new")))
    assert study.gains_table(easier, LABELS).loc["CoOp", "the same beyond zero-shot's"].startswith("−20.0 [")


def test_a_single_data_set_is_judged_over_its_seeds_and_a_single_seed_has_no_interval():
    one = ROWS[ROWS["dataset"] == A]
    assert "[" in study.gains_table(one, LABELS).loc["CoOp", "new, over zero-shot"]
    single = study.gains_table(one[one["seed"] == 1], LABELS).loc["CoOp", "new, over zero-shot"]
    assert single == "−13.0 (1 seed, no interval)"


def test_control_counts_numbers_and_compares_like_with_like():
    table = study.control_table(ROWS)
    assert table["numbers learned"].tolist() == ["512", "2,048", "7,680", "2,696"]
    assert table.loc[study.WIDE, "new, over CoOp"].startswith("−12.0 [")
    assert table.loc[study.WIDE, "new, over 16 vectors"].startswith("−7.0 [")
    assert table.loc["CoCoOp", "new, over CoOp"].startswith("+9.0 [")
    assert table["new, over CoOp (published)"].tolist() == ["–", "–", "−2.5", "+8.5"]
    assert study.control_table(ROWS[ROWS["arm"] != study.WIDE]).loc[study.WIDE, "base"] == "not run"


def test_both_published_coops_stand_there_with_their_source():
    table = study.published_averages()
    coops = table.loc["CoOp"]
    assert coops["new"].tolist() == ["63.22", "67.99"] and coops["source"].tolist() == ["MaPLe README", "KgCoOp README"]
    assert coops["new, over CLIP"].tolist() == ["−11.0", "−6.2"] and "4.8 points" in table.caption


def test_single_published_numbers_stand_beside_the_same_half():
    table = study.details_table(ROWS)
    first = table.iloc[0]
    assert (table.index[0], first["data set"], first["half"], first["published"]) == ("CoOp", "imagenet", "new", "67.9")
    assert first["here"] == "58.0"
    cars = table.loc["CoCoOp − CoOp"]
    assert cars["published"].tolist() == ["−7.6", "+13.2"] and cars["here"].tolist() == ["−2.0", "+7.0"]
    assert set(study.details_table(ROWS[ROWS["dataset"] == B]).loc["CoOp", ["here"]]) == {"not run"}


# -- sentences ---------------------------------------------------------------------------------------------------------


def many(shift: float) -> pd.DataFrame:
    """CoOp loses about 10 on new, CoCoOp wins back about 5 + shift, on four data sets; KgCoOp gains about 3."""
    sets = {name: i / 4 for i, name in enumerate(("toy/dtd", "toy/eurosat", "toy/food101", "toy/ucf101"))}
    arms = {"zero": (60, 60, 0), "CoOp": (80, 50, 1), "CoCoOp": (75, 55 + shift, -1), "KgCoOp": (65, 63, 1)}
    return rows_of(**{arm: {d: (b, n + s * x) for d, x in sets.items()} for arm, (b, n, s) in arms.items()})


def test_statement_follows_the_rows():
    said = study.statement(many(0))
    assert "CoOp, new minus base: −29.6 [" in said and "zero-shot CLIP: +0.0 [" in said and ": CoOp loses." in said
    assert "CoCoOp over CoOp: +4.2 [" in said and "(wins back)" in said
    above, below = ([line for line in said.splitlines() if f"{side} zero-shot:" in line] for side in ("above", "below"))
    assert above == [line for line in above if "KgCoOp" in line and "CoCoOp" not in line] and len(above) == 1
    assert "CoOp −9.6" in below[0] and "below on 4 of 4" in below[0]
    assert "(loses more)" in study.statement(many(-10)) and "holds 0" in study.statement(many(-4.25))


def test_without_zero_shot_nothing_is_said():
    assert "nothing can be said" in study.statement(ROWS[ROWS["arm"] != ZERO])
    assert "CoCoOp over" not in study.statement(ROWS[ROWS["arm"] != "CoCoOp"])


def test_published_sentence_takes_zero_shots_own_change_away():
    first, second = study.published_statement().splitlines()
    assert "(MaPLe README): CoOp, new minus base −19.5; zero-shot CLIP +4.9; beyond it −24.3" in first
    assert first.endswith("+8.5.") and second.endswith("+3.7.")


# -- figures -----------------------------------------------------------------------------------------------------------


def test_slopes_have_a_panel_per_arm_a_grey_line_per_data_set_and_bars():
    figure = study.slopes(ROWS, [*LABELS, "MaPLe"])
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_visible()}
    assert list(panels) == [*LABELS[1:], "MaPLe"] and figure.get_figwidth() <= 7
    grey = [tuple(line.get_ydata()) for line in panels["CoOp"].get_lines() if line.get_color() == "#B0B0B0"]
    assert grey == [(20, -12), (10, -8)] and len(panels["CoOp"].containers) == 1
    assert [text.get_text() for text in panels["MaPLe"].texts] == ["not run"]


def test_dots_show_units_means_and_intervals():
    figure = study.losses(ROWS, [*LABELS, "MaPLe"])
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == [*LABELS, "MaPLe"]
    grey = [line.get_xdata().tolist() for line in left.get_lines() if line.get_color() == "#9A9A9A"]
    assert grey[:2] == [[10, -10], [-22, -28]] and len(left.containers) == 5 and len(right.containers) == 4
    assert [text.get_text() for text in left.texts] == ["not run"]  # zero-shot has no place on the right
    assert len(right.texts) == 1


def test_figure_data_are_those_of_the_figures():
    table = study.points(ROWS).set_index(["arm", "dataset"])
    line = table.loc[("CoOp", A)]
    names = ["base", "new", "base_over_zero_shot", "new_over_zero_shot", "new_minus_base", "beyond_zero_shot"]
    assert line[names].tolist() == [80, 58, 20, -12, -22, -32] and len(table) == 10


def test_nothing_run_is_shown_as_such():
    empty = ROWS.iloc[:0]
    tables = [study.averages_table(empty, LABELS, [A, B]), study.gains_table(empty, LABELS), study.control_table(empty)]
    tables += [study.dataset_table(empty, half, LABELS, [A, B]) for half in study.COLUMNS]
    assert all("not run" in table.html() for table in tables)
    assert set(study.details_table(empty)["here"]) == {"not run"} and study.points(empty).empty
    study.slopes(empty, LABELS), study.losses(empty, LABELS)


def test_text_of_a_difference():
    assert differences.shown(Effect(-1.25, -3.0, 0.5, 11, "data sets")) == "−1.2 [−3.0, +0.5]"
    assert differences.shown(differences.average(pd.DataFrame())) == "not run"
