"""What choosing settings buys: ways of choosing compared run by run, in rows and on one fitted model.

fixed: the values of the method's Config. fewval: the best on the few validation pictures of a task. oracle: the best on the
test pictures themselves. oracle - fewval is called optimism, fewval - fixed gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from fewshot.evaluation import evaluate
from fewshot.intervals import paired
from fewshot.report import TITLES
from fewshot.studies.differences import average

OPTIMISM, GAIN = ("oracle", "fewval"), ("fewval", "fixed")
NAMES = {OPTIMISM: "optimism: oracle − fewval", GAIN: "gain: fewval − fixed"}


def label(method: str, selection: str) -> str:
    """The arm of a method with one way of choosing: "Tip-Adapter, fixed"."""
    return f"{TITLES[method]}, {selection}"


def change(rows: pd.DataFrame, method: str, pair: tuple[str, str] = OPTIMISM, shots: int | None = None) -> pd.DataFrame:
    """One way of choosing minus another, a table data set x seed in points; only where both were run.

    `rows` have a column arm (see `label`); shots None: whatever the rows have, which must be one number.
    """
    rows = rows if shots is None else rows[rows["shots"] == shots]
    left, right = (rows[rows["arm"] == label(method, how)] for how in pair)
    return paired(left, right) if len(left) and len(right) else pd.DataFrame()


def over_methods(rows: pd.DataFrame, pair: tuple[str, str], shots: int, methods: Iterable[str]) -> pd.DataFrame:
    """The mean of `change` over the methods, a table data set x seed; only where all of the methods have it."""
    tables = [change(rows, method, pair, shots) for method in methods]
    if not tables or any(table.empty for table in tables):
        return pd.DataFrame()
    total = sum(tables[1:], start=tables[0]) / len(tables)  # nan where one of them is missing
    return total.dropna(how="all").dropna(axis="columns", how="all")


def differences(rows: pd.DataFrame, methods: Iterable[str], shots: Iterable[int]) -> pd.DataFrame:
    """Every mean difference with its 95 % interval: columns method, difference, shots, mean, low, high, n, unit."""
    lines = []
    for method in methods:
        for pair, name in NAMES.items():
            for k in shots:
                one = average(change(rows, method, pair, k))
                if one.n:
                    lines.append((TITLES[method], name, k, one.mean, one.low, one.high, one.n, one.unit))
    return pd.DataFrame(lines, columns=["method", "difference", "shots", "mean", "low", "high", "n", "unit"])


def points(rows: pd.DataFrame, methods: Iterable[str], shots: Iterable[int]) -> pd.DataFrame:
    """What the figure of the data sets shows: columns method, difference, shots, dataset, mean, std, seeds."""
    lines = []
    for method in methods:
        for pair, name in NAMES.items():
            for k in shots:
                table = change(rows, method, pair, k)
                for dataset, own in table.iterrows():
                    values = own.dropna()
                    lines.append((TITLES[method], name, k, dataset, values.mean(), values.std(ddof=0), len(values)))
    return pd.DataFrame(lines, columns=["method", "difference", "shots", "dataset", "mean", "std", "seeds"])


def oracle_below(rows: pd.DataFrame, method: str, shots: Iterable[int]) -> tuple[int, int]:
    """In how many runs, of how many, the test itself was a worse choice than validation."""
    found = [change(rows, method, OPTIMISM, k).to_numpy().ravel() for k in shots]
    values = np.concatenate(found) if found else np.empty(0)
    values = values[~np.isnan(values.astype(float))]
    return int((values < -1e-9).sum()), len(values)


def averages(rows: pd.DataFrame, by: str, datasets: Sequence[str]) -> pd.Series:
    """The average accuracy of each method or arm that has every one of the data sets, each data set weighing the same."""
    if rows.empty:
        return pd.Series(dtype=float)
    cells = rows.pivot_table(index=by, columns="dataset", values="accuracy").reindex(columns=list(datasets))
    return cells.dropna().mean(axis=1)


def margins(averages: pd.Series) -> pd.Series:
    """The distances between neighbours when methods are ordered by their average accuracy, in points."""
    return averages.dropna().sort_values().diff().dropna()


def ways(model, task, dataset, seed: int = 0) -> pd.DataFrame:
    """What a fitted model is worth by what its settings are chosen on: columns way, pictures, accuracy (percent).

    `model` was fitted on `task` with fixed settings; `dataset` is the whole data set. Half of the test: chosen on one
    half, tested on the other, and the other way round. The model keeps the last choice.
    """
    import torch

    from fewshot.data.features import image_features

    def accuracy(tested, chosen_on=None) -> float:
        if chosen_on is not None:
            features = image_features(model.clip, chosen_on, progress=False)
            model.choose(features, torch.as_tensor(chosen_on.labels))
        return float(evaluate(model, tested).accuracy)

    test = task.test
    order = np.random.default_rng(seed).permutation(len(test))
    one, other = (test.subset(np.sort(half)) for half in np.array_split(order, 2))
    lines = [
        ("nothing: fixed", 0, accuracy(test)),  # first: from here on the settings change
        ("few validation pictures: fewval", len(task.val), accuracy(test, task.val)),
        ("the whole validation split", len(dataset.val), accuracy(test, dataset.val)),
    ]
    halves = (len(other) * accuracy(other, one) + len(one) * accuracy(one, other)) / len(test)
    lines.append(("half of the test, tested on the other half", len(one), halves))
    lines.append(("the test itself: oracle", len(test), accuracy(test, test)))
    return pd.DataFrame(lines, columns=["way", "pictures", "accuracy"])
