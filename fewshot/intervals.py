"""How sure a difference is: intervals over data sets and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fewshot.errors import FewshotError


@dataclass(frozen=True)
class Effect:
    """A mean with its 95 % interval, over `n` values of one `unit` ("data sets", or "seeds" where there is one data set)."""

    mean: float
    low: float
    high: float
    n: int
    unit: str

    def __str__(self) -> str:
        text = f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}] over {self.n} {self.unit}"
        return text.replace("-", "−")

    def against(self, threshold: float = 0.0) -> str:
        """On which side of the threshold the whole interval lies: "above", "below" or "undecided"."""
        return "above" if self.low > threshold else "below" if self.high < threshold else "undecided"


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) by Student's t; endless with a single value."""
    from scipy.stats import t

    values = np.asarray(values, float)
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, float("-inf"), float("inf")
    half = float(t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / n**0.5)
    return mean, mean - half, mean + half


def paired(left: pd.DataFrame, right: pd.DataFrame, value: str = "accuracy", unit: str = "dataset") -> pd.DataFrame:
    """left - right where both have a row: a table unit x seed. Rows without a seed (zero-shot) stand beside every seed.

    Raises FewshotError when one side has two rows of a unit and seed.
    """
    tables = []
    for rows in (left, right):
        if rows.duplicated([unit, "seed"]).any():
            raise FewshotError(f"the rows mix settings: two of one {unit} and seed; compare one setting with another.")
        tables.append(rows.pivot(index=unit, columns="seed", values=value))
    for i, rows in enumerate((left, right)):
        if len(rows) and (rows["shots"] == 0).all():  # nothing is drawn: one row for all seeds
            once = tables[i].mean(axis=1)
            tables[i] = pd.DataFrame({seed: once for seed in tables[1 - i].columns})
    return (tables[0] - tables[1]).dropna(how="all").dropna(axis="columns", how="all")


def effect(differences: pd.DataFrame, unit: str = "data sets") -> Effect:
    """The mean of a table unit x seed with Student's interval: over the units' means, or over the seeds of a single unit."""
    values = differences.mean(axis=1).to_numpy()
    if len(values) == 1:
        values, unit = differences.iloc[0].dropna().to_numpy(), "seeds"
    if not len(values):
        return Effect(float("nan"), float("-inf"), float("inf"), 0, unit)
    return Effect(*t_interval(values), len(values), unit)
