"""Choices that the paper leaves open: each differs from the default in one thing, and is compared with it seed by seed."""

import pandas as pd
import pytest

from fewshot.methods.method import make_config
from fewshot.methods.text_adapter import Config, TextAdapter, check
from fewshot.runs import Profile
from fewshot.studies import open_points
from fewshot.studies.open_points import DEFAULT, LABELS, label


def row(arm, accuracy, seed):
    return {
        "arm": arm, "method": "text_adapter", "dataset": "toy/cub", "shots": 1, "seed": seed, "accuracy": accuracy,
        "profile": "toy", "backbone": "toy", "pretrained": None,
    }  # fmt: skip


def rows_of(changes):
    """The default climbs with the seed; each choice is off it by its changes, in the other order."""
    n = max(map(len, changes.values()))
    rows = [row(DEFAULT, 50 + 5 * s, s) for s in range(n)]
    return rows + [row(arm, 50 + 5 * s + x, s) for arm, xs in changes.items() for s, x in reversed(list(enumerate(xs)))]


MASK, WHOLE, HALF = label("name_policy", "mask"), label("shift", 1.5), label("mix", "half")
FRAME = pd.DataFrame(rows_of({MASK: [-3, -3.1, -2.9], WHOLE: [2, 2.1, 1.9], HALF: [1, -1, 0.1]}))


def test_a_choice_is_one_option_away_from_the_default_and_no_default_itself():
    arms = open_points.arms(Profile("toy", methods={"text_adapter": {"steps": 7}}), "toy/cub", 1, [1, 2])
    assert list(arms) == [DEFAULT, *LABELS] and all(len(runs) == 2 for runs in arms.values())
    plain = arms[DEFAULT][0].config
    assert plain == {"steps": 7, "converter": "mean_shift"}
    for option, values in open_points.CHOICES.items():
        for value in values:
            config = arms[label(option, value)][0].config
            assert config == {**plain, option: value} and getattr(Config(), option) != value
            check(make_config(TextAdapter, config), None)  # not refused


def test_changes_are_taken_seed_by_seed():
    found = open_points.changes(FRAME).set_index("choice")
    assert list(found.index) == [MASK, WHOLE, HALF]  # in the order of CHOICES
    assert found.loc[MASK, "mean"] == pytest.approx(-3) and found.loc[MASK, "high"] < -2.7 and found.loc[MASK, "n"] == 3
    assert found.loc[HALF, "low"] < 0 < found.loc[HALF, "high"]


def test_table_has_every_choice():
    table = open_points.table(FRAME)
    assert list(table.index) == [DEFAULT, *LABELS]
    assert table.loc[DEFAULT, "accuracy"] == "55.0 ± 4.1 (3)" and table.loc[DEFAULT, "over the default [95 %]"] == "–"
    assert table.loc[MASK, "over the default [95 %]"].startswith("−3.0 [")
    assert set(table.loc[label("bias", False)]) == {"not run"}
    assert table.caption.startswith("toy/cub, 1 shot: ") and "toy world" in table.caption


def test_statement_follows_the_rows():
    said = open_points.statement(FRAME)
    assert max(map(len, said.splitlines())) <= 90
    said = " ".join(said.split())
    assert "Better than the default: shift=1.5 (+2.0 [" in said and 'Worse: name_policy="mask" (−3.0 [' in said
    assert 'Not told from the default: mix="half".' in said and "bias" not in said
    assert open_points.statement(FRAME[:0]) == "not run"


def test_figure_fills_what_is_sure():
    figure = open_points.figure(FRAME)
    axis = figure.axes[0]
    faces = [box.lines[0].get_markerfacecolor() for box in axis.containers]
    assert [face == "white" for face in faces] == [False, False, True]
    assert [text.get_text() for text in axis.get_yticklabels()] == [MASK, WHOLE, HALF]
