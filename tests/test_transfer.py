"""Transfer: what is run, and that every number of its tables, sentences and figures is that of its rows."""

from __future__ import annotations

import pandas as pd
import pytest

from fewshot.errors import FewshotError
from fewshot.report import TITLES
from fewshot.studies import base_to_new, profile_of, runs_of
from fewshot.studies import transfer as study
from fewshot.studies.transfer import PHOTO, ZERO_SHOT

TOY, PAPER = profile_of("toy"), profile_of("paper")
HOME, PETS, DTD = "toy/imagenet", "toy/oxford_pets", "toy/dtd"
METHODS = {ZERO_SHOT: "zero_shot", PHOTO: "zero_shot"} | {label: m for label, (m, _) in study.MOVABLE.items()}
METHODS |= {TITLES[m]: m for m in study.BOUND}


def rows_of(arms: dict[str, dict[str, float]]) -> pd.DataFrame:
    """{"CoOp": {place: accuracy}}: three seeds that differ by one point, tested at home without a target; zero-shot has one."""
    lines = []
    for arm, places in arms.items():
        free = METHODS[arm] == "zero_shot"
        for place, accuracy in places.items():
            for seed, shift in [(1, 0)] if free else [(1, -1), (2, 0), (3, 1)]:
                lines.append(
                    {
                        "arm": arm,
                        "method": METHODS[arm],
                        "dataset": place if free else HOME,
                        "accuracy": float(accuracy + shift),
                        "target": None if free or place == HOME else place,
                        "seed": seed,
                        "shots": 0 if free else 16,
                        "profile": "toy",
                        "backbone": "toy",
                        "pretrained": None,
                    }  # fmt: skip
                )
    return pd.DataFrame(lines)


ROWS = rows_of({
    ZERO_SHOT: {HOME: 70, PETS: 60, DTD: 40}, PHOTO: {HOME: 70, PETS: 62, DTD: 30},
    "CoOp": {HOME: 80, PETS: 54, DTD: 32}, "KgCoOp": {HOME: 74, PETS: 63, DTD: 41},
})  # fmt: skip
LABELS, TARGETS = [ZERO_SHOT, PHOTO, "CoOp", "KgCoOp"], [PETS, DTD]


# -- what is run -------------------------------------------------------------------------------------------------------


def test_what_can_move_goes_everywhere_and_what_is_bound_to_the_shifts():
    arms = study.arms(TOY)
    assert list(arms)[:5] == [ZERO_SHOT, PHOTO, "CLIP-Adapter", "CoOp", "CoOp, 16 vectors"] and len(arms) == 18
    shifts = {f"toy/imagenet_{name}" for name in ("v2", "sketch", "a", "r")}
    for label, runs in arms.items():
        targets = {one.target for one in runs if one.shots}
        if label in study.MOVABLE:
            assert targets >= {None, PETS, *shifts} and len(targets) == 15 and len(runs) == 45
        elif label not in (ZERO_SHOT, PHOTO):
            assert targets == {None, *shifts} and len(runs) == 15 and not study.moves(label)
        assert all(one.dataset == HOME for one in runs if one.shots)


def test_methods_on_other_data_sets_are_those_that_can_change_their_classes():
    bound = base_to_new.class_bound()
    assert {TITLES[name] for name in study.BOUND} <= set(bound) and not set(study.MOVABLE) & set(bound)


def test_zero_shot_is_asked_on_each_place_with_the_words_of_the_place():
    arms = study.arms(TOY)
    for label in (ZERO_SHOT, PHOTO):
        assert [one.target for one in arms[label]] == [None] * 15 and len({one.dataset for one in arms[label]}) == 15
    assert arms[ZERO_SHOT][0].config == {} and arms[PHOTO][0].config == {"templates": "photo"}


def test_runs_of_one_training_follow_each_other():
    for runs in study.arms(TOY).values():
        trainings = [one.seed for one in runs]
        assert trainings == sorted(trainings)


def test_maple_is_trained_as_its_authors_do_for_transfer_outside_the_toy_world():
    assert study.arms(PAPER)["MaPLe"][0].config == study.MAPLE
    assert study.arms(TOY)["MaPLe"][0].config == TOY.methods["maple"]
    assert {one.dataset for one in study.arms(PAPER)["CoOp"]} == {"imagenet"}


def test_some_methods_and_targets():
    arms = study.arms(TOY, ["coop", "gda"], [DTD], ["toy/imagenet_a"], 2, [5], 90)
    assert list(arms) == ["CoOp", "CoOp, 16 vectors", "GDA"]
    assert [one.target for one in arms["CoOp"]] == [None, DTD, "toy/imagenet_a"]
    assert {(one.shots, one.seed, one.limit) for one in runs_of(arms)} == {(2, 5, 90)}


# -- tables ------------------------------------------------------------------------------------------------------------


def test_accuracies_stand_under_the_place_of_the_test():
    table = study.accuracy_table(ROWS, LABELS, TARGETS, drop=True)
    cells = ["80.0 ± 0.8 (3)", "43.0 ± 0.8 (3)", "−37.0 ± 0.0 (3)", "54.0 ± 0.8 (3)", "32.0 ± 0.8 (3)"]
    assert list(table.columns) == ["source", "average of targets", "target − source", *TARGETS]
    assert table.loc["CoOp"].tolist() == cells
    assert table.loc[ZERO_SHOT].tolist() == ["70.0 (1)", "50.0 (1)", "−20.0 (1)", "60.0 (1)", "40.0 (1)"]
    assert table.marks["CoOp", "source"] == "strong" and table.marks["KgCoOp", "average of targets"] == "strong"
    assert "toy world" in table.caption and "16 shots per class" in table.caption and HOME in table.caption
    moved = ROWS.assign(accuracy=ROWS["accuracy"].mask(ROWS["target"] == DTD, 90.0))
    assert study.accuracy_table(moved, LABELS, TARGETS).loc["CoOp", "average of targets"] == "72.0 ± 0.4 (3)"


def test_a_missing_target_is_not_run_and_its_average_is_not_ranked():
    part = ROWS[~((ROWS["arm"] == "KgCoOp") & (ROWS["target"] == DTD))]
    table = study.accuracy_table(part, [*LABELS, "MaPLe"], TARGETS, drop=True)
    line = table.loc["KgCoOp"]
    assert (line[DTD], line["average of targets"], line["target − source"]) == (
        "not run",
        "63.0 ± 0.8 (3), 1 of 2",
        "not run",
    )
    assert ("KgCoOp", "average of targets") not in table.marks and set(table.loc["MaPLe"]) == {"not run"}
    away = study.accuracy_table(ROWS[ROWS["dataset"] == HOME], [ZERO_SHOT], TARGETS)
    assert away.loc[ZERO_SHOT].tolist() == ["70.0 (1)", "not run", "not run", "not run"]


def test_gains_are_taken_place_by_place_against_both_zero_shots():
    table = study.gains_table(ROWS, LABELS, TARGETS)
    half = 12.7062 * 1  # Student's t with one degree of freedom times the standard error of -6 and -8
    assert table.loc["CoOp", "on the targets"] == f"−7.0 [−{7 + half:.1f}, +{half - 7:.1f}]"
    assert table.loc["CoOp", "above on"] == "0 of 2" and table.loc["KgCoOp", "above on"] == "2 of 2"
    assert table.loc["CoOp", "targets, over a photo of a"].startswith("−3.0 [")  # -8 and +2
    assert table.loc["CoOp", "on the source"].startswith("+10.0 [") and table.loc[PHOTO, "on the source"] == "+0.0"
    assert ZERO_SHOT not in table.index and "above" not in study.gains_table(ROWS, LABELS, TARGETS, photo=False)
    assert study.gains_table(ROWS[ROWS["arm"] != ZERO_SHOT], LABELS, TARGETS).loc["CoOp", "on the targets"] == "not run"


def test_two_rows_of_one_place_are_refused():
    with pytest.raises(FewshotError, match="mix settings"):
        study.gain(pd.concat([ROWS, ROWS[ROWS["arm"] == "CoOp"]]), "CoOp", TARGETS)


def test_published_averages_are_computed_over_the_shifts_alone():
    table = study.published_shifts()
    assert table.loc["CoOp"].tolist() == ["71.51", "59.28", "−12.2", "64.20", "47.99", "49.71", "75.21"]
    assert table.loc["CoCoOp", "average of targets"] == f"{(64.07 + 48.75 + 50.63 + 76.18) / 4:.2f}"
    assert "not measured here" in table.caption


# -- sentences ---------------------------------------------------------------------------------------------------------


def test_statement_names_sides_and_who_trades_targets_for_the_source():
    more = {place: 0 for place in ("toy/eurosat", "toy/food101", "toy/ucf101")}
    arms = {
        ZERO_SHOT: {HOME: 70, **{p: 50 for p in more}}, "CoOp": {HOME: 80, **{p: 40 + i for i, p in enumerate(more)}},
        "KgCoOp": {HOME: 71, **{p: 54 + i for i, p in enumerate(more)}},
        "MaPLe": {HOME: 72, **dict(zip(more, (60, 50, 41)))},
    }  # fmt: skip
    said = study.statement(rows_of(arms), list(arms), list(more), "Others").splitlines()
    assert said[0] == "Others, above zero-shot: KgCoOp +5.0 [+2.5, +7.5]."
    assert said[1] == "Others, below zero-shot: CoOp −9.0 [−11.5, −6.5]."
    assert said[2].startswith("Others, neither for certain: MaPLe +0.3 [")
    assert said[3].endswith("worse on the average target: CoOp.") and len(said) == 4
    arms["CoOp"][HOME] = 60
    assert not any("worse" in line for line in study.statement(rows_of(arms), list(arms), list(more), "x").splitlines())


# -- figures -----------------------------------------------------------------------------------------------------------


def test_figure_shows_targets_means_and_the_source():
    figure = study.gains(ROWS, [*LABELS, "MaPLe"], TARGETS)
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == [
        "CoOp",
        "KgCoOp",
        "MaPLe",
    ] and figure.get_figwidth() <= 7
    dots = [sorted(line.get_xdata().tolist()) for line in left.get_lines() if line.get_color() == "#9A9A9A"]
    diamonds = [list(line.get_xdata()) for line in left.get_lines() if line.get_marker() == "D"]
    assert dots == [[-8, -6], [1, 3]] and diamonds == [[10], [4]]
    other = [sorted(line.get_xdata().tolist()) for line in right.get_lines() if line.get_color() == "#9A9A9A"]
    assert other == [[-8, 2], [1, 11]] and [text.get_text() for text in left.texts] == ["not run"]
    assert len(study.gains(ROWS, LABELS, TARGETS, photo=False).axes) == 1


def test_figure_data_are_those_of_the_figure():
    table = study.points(ROWS, LABELS, TARGETS).set_index(["arm", "place"])
    line = table.loc[("CoOp", DTD)]
    assert line[["accuracy", "seeds", "over_zero_shot", "over_a_photo_of_a"]].tolist() == [32, 3, -8, 2]
    assert len(table) == 12 and len(study.points(ROWS, ["CoOp"], [DTD])) == 2


def test_nothing_run_is_shown_as_such():
    empty = ROWS.iloc[:0].drop(columns="target")
    for table in (study.accuracy_table(empty, LABELS, TARGETS, drop=True), study.gains_table(empty, LABELS, TARGETS)):
        assert "not run" in table.html() and "nan" not in table.html()
    assert (
        "nothing was run" in study.statement(empty, LABELS, TARGETS, "Others")
        and study.points(empty, LABELS, TARGETS).empty
    )
    study.gains(empty, LABELS, TARGETS)
