"""Comparisons of arms on invented numbers: each kind of test holds, does not hold, is undecided, and was not run."""

import math

import numpy as np
import pandas as pd
import pytest

from fewshot.comparisons import FAILS, HOLDS, KINDS, NOT_RUN, UNDECIDED, compare
from fewshot.errors import FewshotError

NAMES = ("dtd", "eurosat", "food101", "sun397")
WOBBLE = {"dtd": -0.5, "eurosat": 0.5, "food101": -1.0, "sun397": 1.0}


def numbers(arms: dict, datasets=NAMES, shots=(16,), seeds=(1, 2, 3), half="all", noise=1.0, **columns) -> pd.DataFrame:
    """Rows of arms: a level, or a function (dataset, shots) -> level; seeds and data sets wobble by `noise`."""
    lines = []
    for number, (arm, level) in enumerate(arms.items()):
        for name in datasets:
            for k in (0,) if arm == "zero" else shots:
                for seed in (1,) if arm == "zero" else seeds:
                    value = level(name, k) if callable(level) else level
                    value += noise * (1, -1, -2)[number] * (WOBBLE[name] + 0.1 * (0 if arm == "zero" else seed - 2))
                    lines.append(
                        {"arm": arm, "dataset": name, "half": half, "shots": k, "seed": seed, "accuracy": value}
                    )
    return pd.DataFrame(lines).assign(seconds_fit=1.0, **columns)


def told(kind: str, frame: pd.DataFrame, **arguments):
    return KINDS[kind](frame, **arguments)


def missing(frame: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The same, and the first number of an arm was asked for and not measured."""
    frame = frame.copy()
    frame.loc[frame.index[frame["arm"] == arm][0], "accuracy"] = float("nan")
    return frame


A, B, C = {"arm": "a"}, {"arm": "b"}, {"arm": "c"}
PAIR = {"of": A, "minus": B}


@pytest.mark.parametrize(
    "rule, gap, verdict",
    [
        ({}, 8, HOLDS),
        ({}, -8, FAILS),
        ({}, 0.5, UNDECIDED),
        ({"above": 10}, 8, UNDECIDED),
        ({"above": 10}, 20, HOLDS),
        ({"above": 10}, 2, FAILS),
        ({"below": 0}, -8, HOLDS),
        ({"below": 0}, 8, FAILS),
        ({"below": -1}, -1.5, UNDECIDED),
    ],
)
def test_difference_is_decided_by_the_side_of_its_whole_interval(rule, gap, verdict):
    found = told("difference", numbers({"a": 50 + gap, "b": 50}), **PAIR, **rule)
    assert found.verdict == verdict and found.effect.mean == pytest.approx(gap) and found.effect.n == 4
    assert (found.rows, found.asked) == (24, 24)


def test_difference_is_not_run_until_every_number_is_there():
    frame = numbers({"a": 58, "b": 50})
    found = told("difference", missing(frame, "b"), **PAIR)
    assert found.verdict == NOT_RUN and "(23 of 24 rows: no verdict)" in found.text and "+8" in found.text
    empty = told("difference", frame.assign(accuracy=float("nan")), **PAIR)
    assert empty.verdict == NOT_RUN and empty.text == NOT_RUN
    nobody = told("difference", frame[frame["arm"] == "a"], **PAIR)
    assert nobody.verdict == NOT_RUN


def test_difference_on_one_data_set_is_over_its_seeds():
    frame = numbers({"a": 53, "b": 50})
    found = told("difference", frame, of=A | {"dataset": "dtd"}, minus=B | {"dataset": "dtd"})
    assert found.effect.unit == "seeds" and found.effect.n == 3 and found.verdict == HOLDS
    assert found.effect.mean == pytest.approx(3 + 2 * WOBBLE["dtd"])


def test_zero_shot_stands_beside_every_seed_and_every_number_of_shots():
    frame = numbers({"a": lambda name, k: 60 + k, "zero": 50}, shots=(1, 4), noise=0)
    each = [told("difference", frame, of=A | {"shots": k}, minus={"arm": "zero", "shots": k}) for k in (1, 4)]
    assert [one.effect.mean for one in each] == [11, 14]
    both = told("difference", frame, of=A | {"shots": [1, 4]}, minus={"arm": "zero", "shots": [1, 4]})
    assert both.effect.mean == 12.5 and both.effect.n == 4 and both.asked == 16


def test_a_mean_over_shots_is_not_there_when_one_of_them_is_missing():
    frame = missing(numbers({"a": 55, "b": 50}, shots=(1, 4)), "a")
    found = told("difference", frame, of=A | {"shots": [1, 4]}, minus=B | {"shots": [1, 4]})
    assert (found.rows, found.asked, found.verdict) == (23, 24, NOT_RUN)


def test_two_settings_of_one_arm_are_not_mixed():
    with pytest.raises(FewshotError, match="mix settings"):
        told("difference", numbers({"a": 55, "b": 50}, shots=(1, 4)), **PAIR)


@pytest.mark.parametrize(
    "levels, rule, verdict, rival",
    [
        ({"a": 60, "b": 50, "c": 52}, {}, HOLDS, "c"),
        ({"a": 50, "b": 60, "c": 70}, {}, FAILS, "c"),
        ({"a": 50, "b": 45, "c": 50.4}, {}, UNDECIDED, "c"),
        ({"a": 50, "b": 45, "c": 49.6}, {}, UNDECIDED, "c"),
        ({"a": 50, "b": 60, "c": 40}, {"below": 0}, HOLDS, "b"),
        ({"a": 50, "b": 40, "c": 40.5}, {"below": 0}, FAILS, "c"),
    ],
)
def test_best_is_measured_against_the_best_other(levels, rule, verdict, rival):
    found = told("best", numbers(levels, noise=0.2), of=A, among=["a", "b", "c"], **rule)
    assert found.verdict == verdict and found.note == f"the best other is {rival}"


def test_best_fails_by_an_arm_that_is_surely_better_even_if_another_has_the_higher_mean():
    frame = numbers({"a": 50, "b": 53, "c": lambda name, k: {"dtd": 90, "eurosat": 20, "food101": 90, "sun397": 20}[name]},
                    noise=0.1)  # fmt: skip
    found = told("best", frame, of=A, among=["b", "c"])
    assert found.verdict == FAILS and "b" in found.note


def test_best_is_not_run_while_a_rival_is_missing():
    frame = numbers({"a": 60, "b": 50, "c": 52})
    assert told("best", missing(frame, "c"), of=A, among=["b", "c"]).verdict == NOT_RUN
    assert told("best", frame, of=A, among=["b", "c", "nobody"]).verdict == NOT_RUN
    assert told("best", frame, of=A, among=["nobody"]).verdict == NOT_RUN


def seconds(a: float, b: float, noise: float = 0.2) -> pd.DataFrame:
    frame = numbers({"a": 50, "b": 50})
    wobble = np.exp(noise * frame["dataset"].map(WOBBLE) * np.where(frame["arm"] == "a", 1, -1))
    return frame.assign(seconds_fit=np.where(frame["arm"] == "a", a, b) * wobble)


@pytest.mark.parametrize(
    "a, b, rule, verdict",
    [
        (10, 40, {"below": 1}, HOLDS),
        (40, 10, {"below": 1}, FAILS),
        (10, 11, {"below": 1}, UNDECIDED),
        (50, 10, {"above": 2}, HOLDS),
        (50, 10, {"above": 30}, FAILS),
    ],
)
def test_ratio_of_seconds_is_geometric(a, b, rule, verdict):
    found = told("ratio", seconds(a, b), of=A, to=B, **rule)
    assert found.verdict == verdict and math.exp(found.effect.mean) == pytest.approx(a / b)
    assert found.text.startswith(f"{a / b:.2f}×") and found.scale == "times"


def test_ratio_is_not_run_without_seconds():
    frame = seconds(10, 40)
    frame.loc[0, "seconds_fit"] = float("nan")
    assert told("ratio", frame, of=A, to=B, below=1).verdict == NOT_RUN
    assert told("ratio", numbers({"a": 1, "b": 1}).drop(columns="seconds_fit"), of=A, to=B, below=1).verdict == NOT_RUN


@pytest.mark.parametrize(
    "levels, noise, verdict",
    [
        ({"a": 50, "b": 50.2, "c": 50.4}, 0.05, HOLDS),
        ({"a": 50, "b": 50.2, "c": 55}, 0.05, FAILS),
        ({"a": 55, "b": 50.2, "c": 50}, 0.05, FAILS),
        ({"a": 50, "b": 50.2, "c": 50.4}, 2.0, UNDECIDED),
    ],
)
def test_spread_asks_whether_all_are_the_same_within_a_margin(levels, noise, verdict):
    found = told("spread", numbers(levels, noise=noise), of=[A, B, C], within=1)
    assert found.verdict == verdict and found.effect.mean >= 0
    low, high = sorted(levels, key=levels.get)[:: len(levels) - 1]
    assert found.note.startswith(f"{high} minus {low}") and found.effect.mean == pytest.approx(
        levels[high] - levels[low]
    )


def test_spread_is_not_run_while_an_arm_is_missing():
    frame = numbers({"a": 50, "b": 50.2, "c": 50.4}, noise=0.05)
    assert told("spread", missing(frame, "c"), of=[A, B, C], within=1).verdict == NOT_RUN
    assert told("spread", frame, of=[A, B, {"arm": "nobody"}], within=1).verdict == NOT_RUN


@pytest.mark.parametrize(
    "gain, rule, verdict",
    [
        ({1: 9, 16: 1}, {}, HOLDS),
        ({1: 1, 16: 9}, {}, FAILS),
        ({1: 3, 16: 2.5}, {}, UNDECIDED),
        ({1: 1, 16: 9}, {"below": 0}, HOLDS),
    ],
)
def test_trend_is_a_difference_of_differences(gain, rule, verdict):
    frame = numbers({"a": lambda name, k: 50 + gain[k] + k + (WOBBLE[name] if k == 1 else 0), "b": lambda name, k: 50 + k},
                    shots=(1, 16), noise=0.1)  # fmt: skip
    found = told("trend", frame, of=A, minus=B, first={"shots": 1}, then={"shots": 16}, **rule)
    assert found.verdict == verdict and found.effect.mean == pytest.approx(gain[1] - gain[16]) and found.asked == 48
    assert told("trend", missing(frame, "a"), of=A, minus=B, first={"shots": 1}, then={"shots": 16}).verdict == NOT_RUN


@pytest.mark.parametrize(
    "a, low, high, verdict, note",
    [
        (70, 50, 72, HOLDS, "91% of 22.0 points"),
        (52, 50, 72, FAILS, "9% of 22.0 points"),
        (61.5, 50, 72, UNDECIDED, "52% of 22.0 points"),
        (70, 72, 50, UNDECIDED, "the loss itself is −22.0 ["),  # nothing was lost, so nothing can be won back
    ],
)
def test_fraction_of_a_loss_that_is_won_back(a, low, high, verdict, note):
    frame = numbers({"a": a, "b": low, "zero": high}, noise=0.5)
    found = told("fraction", frame, of=A, low=B, high={"arm": "zero"})
    assert found.verdict == verdict and note in found.note
    assert found.effect.mean == pytest.approx(a - low - 0.5 * (high - low))
    assert told("fraction", missing(frame, "zero"), of=A, low=B, high={"arm": "zero"}).verdict == NOT_RUN


@pytest.mark.parametrize(
    "least, rule, verdict, there",
    [
        (5, {}, HOLDS, 4),
        (-5, {}, FAILS, 3),
        (0.1, {}, UNDECIDED, 4),
        (5, {"below": 0}, FAILS, 0),
        (-5, {"below": 9}, FAILS, 2),
    ],
)
def test_every_is_decided_by_the_data_set_that_speaks_most_against_it(least, rule, verdict, there):
    frame = numbers({"a": lambda name, k: 50 + (least if name == "dtd" else 9 + WOBBLE[name]), "b": 50}, noise=0)
    frame["accuracy"] += np.where(frame["arm"] == "a", 0.2 * (frame["seed"] - 2), 0)
    found = told("every", frame, of=A, minus=B, **rule)
    assert found.verdict == verdict and f"{there} of 4 data sets" in found.note and found.effect.unit == "seeds"
    if rule == {}:
        assert "on dtd, the least" in found.note and found.effect.mean == pytest.approx(least)
    assert told("every", missing(frame, "a"), of=A, minus=B, **rule).verdict == NOT_RUN


@pytest.mark.parametrize("inner, verdict", [(30, HOLDS), (2, FAILS), (11, UNDECIDED)])
def test_groups_compare_the_effect_on_some_data_sets_with_that_on_the_others(inner, verdict):
    names = [f"fine{i}" for i in range(4)] + [f"rest{i}" for i in range(4)]
    lines = []
    for i, name in enumerate(names):
        for seed in (1, 2, 3):
            gain = (inner if name.startswith("fine") else 10) + (-1, 1, -2, 2)[i % 4]
            lines.append(
                {"arm": "a", "dataset": name, "half": "all", "shots": 16, "seed": seed, "accuracy": 50.0 + gain}
            )
        lines.append({"arm": "zero", "dataset": name, "half": "all", "shots": 0, "seed": 1, "accuracy": 50.0})
    frame = pd.DataFrame(lines)
    found = told("groups", frame, of=A, minus={"arm": "zero"}, inside=names[:4])
    assert found.verdict == verdict and found.effect.mean == pytest.approx(inner - 10) and found.effect.n == 8
    from scipy.stats import ttest_ind

    gains = [inner + w for w in (-1, 1, -2, 2)], [10 + w for w in (-1, 1, -2, 2)]
    assert found.effect.low == pytest.approx(ttest_ind(*gains, equal_var=False).confidence_interval().low)
    assert told("groups", missing(frame, "a"), of=A, minus={"arm": "zero"}, inside=names[:4]).verdict == NOT_RUN
    assert told("groups", frame, of=A, minus={"arm": "zero"}, inside=["nowhere"]).verdict == NOT_RUN


def test_changing_one_number_moves_the_effect_and_can_turn_the_verdict():
    frame = numbers({"a": 53, "b": 50})
    before = told("difference", frame, **PAIR)
    frame.loc[(frame["arm"] == "b") & (frame["dataset"] == "dtd") & (frame["seed"] == 1), "accuracy"] += 30
    after = told("difference", frame, **PAIR)
    assert before.verdict == HOLDS and after.verdict == UNDECIDED
    assert after.effect.mean == pytest.approx(before.effect.mean - 30 / 12)


def test_the_second_look_takes_the_data_sets_as_given():
    """A gain that varies much between data sets and little between seeds holds on these, and is open for others."""
    frame = numbers({"a": 54, "b": 50}, noise=2.5)
    found = compare(frame, {"kind": "difference", **PAIR})
    assert found.verdict == UNDECIDED and found.effect.n == 4 and found.effect.unit == "data sets"
    assert found.these.verdict == HOLDS and found.these.effect.n == 3 and found.these.effect.unit == "seeds"
    assert found.these.effect.mean == pytest.approx(found.effect.mean)
    means = frame.groupby(["arm", "seed"])["accuracy"].mean()
    gaps = (means["a"] - means["b"]).to_numpy()
    half = 4.302653 * gaps.std(ddof=1) / 3**0.5
    assert found.these.effect.low == pytest.approx(gaps.mean() - half, abs=1e-5)


@pytest.mark.parametrize("kind", ["ratio", "best", "spread", "trend", "fraction", "groups"])
def test_every_kind_but_every_can_be_looked_at_over_seeds(kind):
    frame = numbers({"a": 70, "b": 50, "c": 72}, shots=(1, 16))
    seconds = frame.assign(seconds_fit=np.where(frame["arm"] == "a", 3.0, 2.0) + 0.1 * frame["seed"])
    early = [one | {"shots": 1} for one in (A, B, C)]
    arguments = {
        "ratio": {"of": early[0], "to": early[1], "above": 1},
        "best": {"of": early[2], "among": ["a", "b"]},
        "spread": {"of": early, "within": 1},
        "trend": {"of": A, "minus": B, "first": {"shots": 1}, "then": {"shots": 16}},
        "fraction": {"of": early[0], "low": early[1], "high": early[2]},
        "groups": {"of": early[0], "minus": early[1], "inside": ["dtd", "eurosat"]},
    }[kind]
    found = compare(seconds, {"kind": kind, **arguments})
    assert found.these.effect.unit == "seeds" and found.these.effect.n == 3
    assert found.these.effect.mean == pytest.approx(found.effect.mean)
    assert found.these.threshold == found.threshold


def test_there_is_no_second_look_at_one_data_set_one_seed_or_every_data_set():
    frame = numbers({"a": 54, "b": 50})
    one = {"of": A | {"dataset": "dtd"}, "minus": B | {"dataset": "dtd"}}
    assert compare(frame, {"kind": "difference", **one}).these is None
    assert compare(frame[frame["seed"] == 1], {"kind": "difference", **PAIR}).these is None
    assert compare(frame, {"kind": "every", **PAIR}).these is None
