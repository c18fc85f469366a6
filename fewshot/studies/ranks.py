"""Methods compared over data sets by rank (Demšar 2006): average ranks, Friedman's test, Nemenyi's critical difference,
Wilcoxon's signed-rank test with Holm's correction, and the diagram that shows them.

Scores are a table data set x method, higher is better. A rank of 1 is the best of a data set; equal scores share the mean
of their ranks. Everything asks the same question: would it be so on other data sets like these?
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from fewshot.errors import FewshotError

DECIMALS = 6  # scores that agree so far are equal: sums of floats leave dust behind the comma


@dataclass(frozen=True, eq=False)
class Ranking:
    """Average ranks of methods over data sets, the best first, with Friedman's test and the critical distance.

    `average` is a Series method -> average rank; `statistic` and `p` are nan with fewer than three methods or where no
    two scores differ. Two methods whose average ranks differ by less than `distance` cannot be told apart.
    """

    average: pd.Series
    datasets: int
    statistic: float
    p: float
    distance: float
    alpha: float

    def groups(self) -> list[tuple[int, int]]:
        """(first, last) places of the methods that cannot be told apart: the longest such stretches, best first."""
        values = self.average.to_numpy()
        last = [int(np.flatnonzero(values < value + self.distance)[-1]) for value in values]
        return [(i, end) for i, end in enumerate(last) if end > i and (i == 0 or end > last[i - 1])]

    def beside(self, method: str) -> list[str]:
        """The other methods that cannot be told apart from this one. Raises FewshotError for a method that has no rank."""
        if method not in self.average.index:
            raise FewshotError(f"{method} has no rank; choose one of {', '.join(self.average.index)}.")
        near = (self.average - self.average[method]).abs() < self.distance
        return [name for name in self.average.index[near] if name != method]


def complete(scores: pd.DataFrame) -> pd.DataFrame:
    """The part of a table data set x method without gaps: methods without any score go first, then data sets with a gap."""
    return scores.dropna(axis="columns", how="all").dropna(axis="index")


def ranking(scores: pd.DataFrame, alpha: float = 0.05) -> Ranking:
    """The Ranking of a table data set x method. Raises FewshotError for a gap, or fewer than two data sets or methods."""
    from scipy.stats import friedmanchisquare

    n, k = scores.shape
    if n < 2 or k < 2:
        raise FewshotError(f"ranks compare two or more methods on two or more data sets, not {k} on {n}.")
    if scores.isna().any(axis=None):
        raise FewshotError("a score is missing, and a method without a score has no rank; take ranks.complete(scores).")
    scores = scores.round(DECIMALS)
    each = scores.rank(axis=1, ascending=False)
    differ = each.nunique(axis=1).max() > 1  # ties everywhere have no statistic
    statistic, p = friedmanchisquare(*scores.to_numpy().T) if k > 2 and differ else (np.nan, np.nan)
    average = each.mean().sort_values(kind="stable")
    return Ranking(average, n, float(statistic), float(p), critical_distance(k, n, alpha), alpha)


@functools.cache
def critical_distance(methods: int, datasets: int, alpha: float = 0.05) -> float:
    """Nemenyi's: average ranks of `methods` over `datasets` that lie further apart differ, all pairs looked at together.

    q sqrt(k (k + 1) / (6 N)), where q is the studentised range's quantile for endless degrees of freedom over sqrt(2).
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, methods, np.inf)) / 2**0.5
    return q * (methods * (methods + 1) / (6 * datasets)) ** 0.5


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values corrected for their number by Holm's step-down rule, in their order: the smallest times m, the next m - 1 ..."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return corrected


def signed_rank(differences: Sequence[float]) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test, exact for any number of differences, with ties too.

    Zeros are left out, equal sizes share the mean of their ranks; 1 where nothing is left.
    """
    d = np.round(np.asarray(differences, float), DECIMALS)
    d = d[d != 0]
    if not len(d):
        return 1.0
    doubled = (2 * pd.Series(np.abs(d)).rank()).astype(int).to_numpy()  # whole numbers even where ranks are halves
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1  # of reaching each sum of ranks by choosing signs
    for rank in doubled:
        ways[rank:] = ways[rank:] + ways[:-rank]
    positive = doubled[d > 0].sum()
    smaller = min(positive, doubled.sum() - positive)
    return float(min(1, 2 * ways[: smaller + 1].sum() / ways.sum()))


def smallest_p(n: int) -> float:
    """The least two-sided p-value that `n` differences can reach: all of one sign, one of 2^n ways each side."""
    return min(1.0, 2 / 2**n)


def most_tests(n: int, alpha: float = 0.05) -> int:
    """Among how many tests Holm's correction can still call the clearest one of `n` differences significant."""
    return int(alpha / smallest_p(n))


def pairs(scores: pd.DataFrame, against: str | None = None) -> pd.DataFrame:
    """Wilcoxon's test of all pairs of methods, or of one method `against` each other, corrected together by Holm's rule.

    Columns one, other, difference (mean of one - other, points), won, lost, n (data sets), p, p_holm; the smallest p first.
    Raises FewshotError for a method that is not there.
    """
    if against is not None and against not in scores:
        raise FewshotError(f"{against} has no scores; choose one of {', '.join(scores.columns)}.")
    names = list(scores.columns)
    chosen = combinations(names, 2) if against is None else ((against, name) for name in names if name != against)
    lines = []
    for one, other in chosen:
        d = (scores[one] - scores[other]).round(DECIMALS)
        lines.append((one, other, d.mean(), int((d > 0).sum()), int((d < 0).sum()), len(d), signed_rank(d)))
    frame = pd.DataFrame(lines, columns=["one", "other", "difference", "won", "lost", "n", "p"])
    return frame.assign(p_holm=holm(frame["p"])).sort_values("p", kind="stable", ignore_index=True)


def diagram(panels: Mapping[str, Ranking], methods: Mapping[str, str], title: str = ""):
    """Critical-difference diagrams one below the other: an axis of average ranks, the best on the left; names at the sides.

    A bar joins methods that cannot be told apart; the bracket above the axis is as long as the critical distance.
    `methods` says which method a label is of (its colour and marker). Returns the matplotlib Figure (closed).
    """
    import matplotlib.pyplot as plt

    from fewshot.curves import WIDTH
    from fewshot.report import use_style

    use_style()
    heights = [_depth(one) + 2.6 for one in panels.values()]
    size = (WIDTH, 0.19 * sum(heights) + 0.35)
    figure, axes = plt.subplots(
        len(panels), 1, figsize=size, height_ratios=heights, squeeze=False, layout="constrained"
    )
    for axis, (name, found) in zip(axes[:, 0], panels.items(), strict=True):
        _draw(axis, found, methods)
        axis.set_title(name, loc="left", fontsize="small")
    figure.suptitle(title, fontsize="small", color="#444444")
    plt.close(figure)
    return figure


def _depth(found: Ranking) -> float:
    """How far a diagram reaches below its axis, in lines of text."""
    return 0.45 * len(found.groups()) + (len(found.average) + 1) // 2 + 0.95


def _draw(axis, found: Ranking, methods: Mapping[str, str]) -> None:
    from fewshot.curves import SIZES, look

    k, half = len(found.average), (len(found.average) + 1) // 2
    bars = 0.45 * len(found.groups())
    axis.set(xlim=(1 - 0.42 * (k - 1), k + 0.42 * (k - 1)), ylim=(-_depth(found), 2.6))
    axis.axis("off")
    grey, dark = dict(color="#888888", linewidth=0.7), dict(color="#222222", linewidth=1.2)
    axis.plot([1, k], [0, 0], **dark)
    for rank in range(1, k + 1):
        axis.plot([rank, rank], [0, 0.25], **dark)
        axis.text(rank, 0.4, str(rank), ha="center", va="bottom", fontsize="x-small")
    reach = min(found.distance, k - 1)
    more = "" if found.distance <= k - 1 else ", longer than the axis"
    axis.plot([1, 1, 1 + reach, 1 + reach], [1.5, 1.75, 1.75, 1.5], **dark)
    words = f"critical distance {found.distance:.2f}{more} ({k} methods, {found.datasets} data sets)"
    axis.text(1, 1.85, words, va="bottom", fontsize="x-small")
    for place, (first, last) in enumerate(found.groups()):
        y = -0.55 - 0.45 * place
        ends = found.average.iloc[[first, last]] + [-0.07, 0.07]
        axis.plot(ends, [y, y], color="#222222", linewidth=2.6, solid_capstyle="butt")
    for place, (label, rank) in enumerate(found.average.items()):
        left = place < half
        y = -bars - 0.95 - (place if left else k - 1 - place)
        side = 1 - 0.03 * (k - 1) if left else k + 0.03 * (k - 1)
        style = look(methods[label])
        axis.plot([rank, rank, side], [0, y, y], zorder=1, **grey)
        axis.plot(
            rank, 0, marker=style.marker, color=style.colour, markersize=SIZES.get(style.marker, 6.5),
            markeredgecolor="white", markeredgewidth=0.5, zorder=3,
        )  # fmt: skip
        mark = dict(marker=style.marker, color=style.colour, markersize=0.8 * SIZES.get(style.marker, 6.5))
        axis.plot(side, y, zorder=3, **mark)
        words = f"{label}  {rank:.1f}" if left else f"{rank:.1f}  {label}"
        step = (-0.03 if left else 0.03) * (k - 1)
        axis.text(side + step, y, words, ha="right" if left else "left", va="center", fontsize="small")
