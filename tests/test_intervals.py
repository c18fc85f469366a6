"""Intervals: against scipy's own, and what they refuse."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fewshot import intervals
from fewshot.errors import FewshotError


def rows(accuracy, shots=4, seeds=(1, 2, 3), datasets=("a", "b")):
    return pd.DataFrame(
        [
            {"dataset": d, "seed": s, "shots": shots, "accuracy": accuracy + 10 * i + s}
            for i, d in enumerate(datasets)
            for s in seeds
        ]
    )


def test_interval_is_the_one_of_the_one_sample_t_test():
    values = np.array([1.0, 4.0, 2.0, 8.0])
    mean, low, high = intervals.t_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean == values.mean() and np.allclose((low, high), (expected.low, expected.high))


def test_one_value_says_nothing():
    assert intervals.t_interval([3.0]) == (3.0, -np.inf, np.inf)
    assert intervals.effect(pd.DataFrame([[3.0]])).against() == "undecided"


def test_pairs_share_data_set_and_seed():
    left, right = rows(60.0), rows(50.0, seeds=(2, 3))
    found = intervals.paired(left, right)
    assert list(found.columns) == [2, 3] and (found == 10.0).all().all()


def test_zero_shot_stands_beside_every_seed():
    zero = pd.DataFrame([{"dataset": d, "seed": 1, "shots": 0, "accuracy": 50.0} for d in ("a", "b")])
    found = intervals.paired(rows(60.0), zero)
    assert found.shape == (2, 3) and found.loc["b", 3] == 23.0


def test_units_are_data_sets_and_for_one_data_set_seeds():
    table = intervals.paired(rows(60.0), rows(50.0).assign(accuracy=lambda f: f["accuracy"] - f["seed"]))
    assert intervals.effect(table).n == 2 and intervals.effect(table).unit == "data sets"
    alone = intervals.effect(table.iloc[:1])
    assert (alone.n, alone.unit) == (3, "seeds") and np.isclose(alone.mean, 12.0)


def test_the_side_is_that_of_the_whole_interval():
    assert intervals.Effect(2.0, 1.0, 3.0, 5, "seeds").against(0.5) == "above"
    assert intervals.Effect(2.0, 1.0, 3.0, 5, "seeds").against(2.5) == "undecided"
    assert intervals.Effect(2.0, 1.0, 3.0, 5, "seeds").against(4.0) == "below"


def test_two_settings_in_one_arm_are_refused():
    with pytest.raises(FewshotError, match="mix settings"):
        intervals.paired(pd.concat([rows(60.0), rows(61.0)]), rows(50.0))
