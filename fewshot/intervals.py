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


def bootstrap_interval(
    samples: Sequence[Sequence[float]], confidence: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """(mean, low, high) of the mean of the samples' means: each sample is drawn again by itself, with replacement.

    One sample of eleven data sets' values asks about other data sets; eleven samples, each of the values of one data set's
    seeds, ask about other seeds on these data sets. The interval is that of the percentiles. Drawing again from n values
    finds only (n - 1)/n of their variance, which with three seeds is two thirds; each sample is stretched around its mean by
    as much. Endless where a sample is a single value. Raises FewshotError for an empty sample.
    """
    from scipy.stats import bootstrap

    samples = [np.asarray(sample, float) for sample in samples]
    if not samples or not all(map(len, samples)):
        raise FewshotError("there is no value to draw again; run the experiment first.")
    mean = float(np.mean([sample.mean() for sample in samples]))
    if any(len(sample) < 2 for sample in samples):
        return mean, float("-inf"), float("inf")
    if all(np.ptp(sample) == 0 for sample in samples):
        return mean, mean, mean
    wide = [s.mean() + (s - s.mean()) * (len(s) / (len(s) - 1)) ** 0.5 for s in samples]

    def statistic(*drawn, axis: int = -1):
        return np.mean([part.mean(axis=axis) for part in drawn], axis=0)

    rng = np.random.default_rng(seed)
    found = bootstrap(
        wide, statistic, vectorized=True, method="percentile", confidence_level=confidence, n_resamples=draws,
        random_state=rng, batch=1000,
    ).confidence_interval  # fmt: skip
    return mean, float(found.low), float(found.high)


@dataclass(frozen=True)
class Noise:
    """Standard deviations in points of accuracies on one data set: what methods and seeds add to each other.

    `method`: between the methods' true means. `seed`: what a seed does to all methods alike, since all get its pictures.
    `rest`: what is left, a method's own answer to a seed. `spread`: of one method over seeds, seed and rest together.
    `seeds` seeds; `freedom` degrees of freedom of the rest, `freedom_spread` of the spread.
    """

    method: float
    seed: float
    rest: float
    spread: float
    seeds: int
    freedom: int
    freedom_spread: int

    def least(self, same_draws: bool = True, confidence: float = 0.95) -> float:
        """Least difference of two methods' means over the seeds that can be told from 0 on one data set, in points.

        Student's t with the deviation pooled over all methods: of the rest, where both had the same seeds; of the spread,
        where they had not, as when a number is compared with somebody else's.
        """
        from scipy.stats import t

        deviation, freedom = (self.rest, self.freedom) if same_draws else (self.spread, self.freedom_spread)
        if freedom < 1:
            return float("inf")
        return float(t.ppf((1 + confidence) / 2, freedom)) * deviation * (2 / self.seeds) ** 0.5


def noise(tables: Sequence[pd.DataFrame]) -> Noise | None:
    """The components of variance of tables method x seed, one per data set: two-way analysis of variance, mean squares pooled.

    All tables need the same number of seeds; methods or seeds with a gap are left out of their table. None where nothing
    is left that has two methods and two seeds. Raises FewshotError for tables with different numbers of seeds.
    """
    tables = [table.dropna(axis="columns", how="all").dropna(axis="index") for table in tables]
    tables = [table.to_numpy() for table in tables if min(table.shape) > 1]
    if not tables:
        return None
    if len({table.shape[1] for table in tables}) > 1:
        raise FewshotError("some data sets have more seeds than others; compare those that all of them have.")
    squares = np.zeros(4)  # of methods, seeds, the rest, and seeds within a method
    freedom = np.zeros(4, int)
    for table in tables:
        k, n = table.shape
        methods, seeds = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
        rest = table - methods - seeds + table.mean()
        parts = [
            n * methods.var(ddof=0) * k,
            k * seeds.var(ddof=0) * n,
            (rest**2).sum(),
            ((table - methods) ** 2).sum(),
        ]
        squares += parts
        freedom += [k - 1, n - 1, (k - 1) * (n - 1), k * (n - 1)]
    method, seed, rest, spread = squares / freedom
    lines = sum(len(table) for table in tables) / len(tables)
    n = tables[0].shape[1]
    between, common = max(0.0, (method - rest) / n), max(0.0, (seed - rest) / lines)
    return Noise(between**0.5, common**0.5, rest**0.5, spread**0.5, n, int(freedom[2]), int(freedom[3]))
