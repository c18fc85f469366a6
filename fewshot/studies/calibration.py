"""Can a confidence be believed? Of pictures classified with a confidence of 80 percent, 80 percent should be right.

Rows carry `reliability`: for each of 15 bins of confidence (the highest softmax value) the pictures in it, the sum of their
confidence, and how many of them are right; and `nll`, the mean negative log-likelihood in nats.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fewshot.curves import FAMILIES, GRID, SIZES, WIDTH, ZERO_SHOT, look
from fewshot.report import (
    NOT_RUN,
    TITLES,
    Table,
    _average,
    _cell,
    _in_order,
    _origin,
    _ranked,
    _shots,
    _signed,
    _title,
    use_style,
)

FEWEST = 20  # pictures of a bin that is drawn


def with_confidence(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that carry `reliability` and `nll`; older rows do not."""
    if not {"reliability", "nll"} <= set(rows.columns):
        return rows.iloc[:0].assign(reliability=[], nll=[])
    return rows[rows["reliability"].map(lambda bins: isinstance(bins, list | np.ndarray)) & rows["nll"].notna()]


def calibration_error(reliability) -> float:
    """The expected calibration error in points of bins [n, 3]: |accuracy - mean confidence| over the bins, by their pictures."""
    bins = np.asarray(reliability, float)
    return 100 * float(np.abs(bins[:, 2] - bins[:, 1]).sum() / bins[:, 0].sum())


def overconfidence(reliability) -> float:
    """Mean confidence minus accuracy in points: above 0, the answers promise more than they hold."""
    bins = np.asarray(reliability, float)
    return 100 * float((bins[:, 1] - bins[:, 2]).sum() / bins[:, 0].sum())


def chance_error(reliability) -> float:
    """The calibration error in points that a true confidence would show by chance, since every bin holds few pictures.

    The expected size of a binomial share's error: sqrt(2 c (1 - c) / (pi n)) in a bin of n pictures with mean confidence c.
    """
    bins = np.asarray(reliability, float)
    bins = bins[bins[:, 0] > 0]
    n, c = bins[:, 0], np.clip(bins[:, 1] / bins[:, 0], 0, 1)
    return 100 * float((n * np.sqrt(2 * c * (1 - c) / (np.pi * n))).sum() / n.sum())


def measures(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that carry it, with columns `ece`, `over`, `chance` (points) and `nll` (nats)."""
    rows = with_confidence(rows)
    return rows.assign(
        ece=rows["reliability"].map(calibration_error).astype(float),
        over=rows["reliability"].map(overconfidence).astype(float),
        chance=rows["reliability"].map(chance_error).astype(float),
        nll=rows["nll"].astype(float),
    )


def curve(rows: pd.DataFrame, fewest: int = FEWEST) -> pd.DataFrame:
    """The reliability curve of one method: the bins of its rows added up, those with fewer than `fewest` pictures left out.

    Columns confidence, accuracy (percent, all rows together), std (population, of the accuracy over the seeds that have
    pictures in the bin), pictures (of all rows), share (of all pictures, percent).
    """
    rows = with_confidence(rows)
    if rows.empty:
        return pd.DataFrame(columns=["confidence", "accuracy", "std", "pictures", "share"])
    by_seed = {seed: sum(np.asarray(bins, float) for bins in own) for seed, own in rows.groupby("seed")["reliability"]}
    every = np.stack(list(by_seed.values()))  # [seeds, bins, 3]
    total = every.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        frame = pd.DataFrame(
            {
                "confidence": 100 * total[:, 1] / total[:, 0],
                "accuracy": 100 * total[:, 2] / total[:, 0],
                "std": pd.DataFrame(100 * every[:, :, 2] / every[:, :, 0]).std(ddof=0).to_numpy(),
                "pictures": total[:, 0].astype(int),
                "share": 100 * total[:, 0] / total[:, 0].sum(),
            }
        )
    return frame[frame["pictures"] >= max(1, fewest)].reset_index(drop=True)


def calibration_table(rows: pd.DataFrame, methods: Sequence[str], datasets: Sequence[str]) -> Table:
    """Accuracy, calibration error, overconfidence and likelihood of every method, averaged over data sets; then by data set.

    A data set counts the same whatever its number of pictures. The two smallest errors of a column are marked; a method that
    lacks a data set has no mark in the average.
    """
    rows = measures(rows)
    columns = [
        "ECE",
        "by chance",
        "confidence − accuracy",
        "NLL",
        "accuracy",
        *(f"ECE, {d.removeprefix('toy/')}" for d in datasets),
    ]
    text, means = {}, {}
    for method in methods:
        own = rows[rows["method"] == method]
        covered = [d for d in datasets if (own["dataset"] == d).any()]
        for name, column in zip(columns, ("ece", "chance", "over", "nll", "accuracy"), strict=False):
            mean, std, n = _average(own.assign(accuracy=own[column]), covered) if covered else (np.nan, np.nan, 0)
            text[method, name] = _value(column, mean, std, n) if covered else NOT_RUN
            if column == "ece" and covered:
                if len(covered) == len(datasets):
                    means[method, name] = -mean
                else:
                    text[method, name] += f", {len(covered)} of {len(datasets)} sets"
        for dataset, name in zip(datasets, columns[5:], strict=True):
            ece = own.loc[own["dataset"] == dataset, "ece"]
            text[method, name] = _cell(ece.mean(), ece.std(ddof=0), len(ece)) if len(ece) else NOT_RUN
            if len(ece):
                means[method, name] = -ece.mean()
    table = _ranked(text, means, list(methods), columns)
    shots = " and ".join(_shots(int(k)) for k in sorted(rows.loc[rows["shots"] > 0, "shots"].unique())) or "no shots"
    table.caption = (
        "Expected calibration error (15 bins), confidence minus accuracy and accuracy in points, NLL in nats a picture; "
        f"{shots} per class. Averages over {len(datasets)} data sets, each counting the same: mean ± population standard "
        "deviation over the seeds (number of seeds). By chance: the ECE that a true confidence would have. Least error bold. "
        f"{_origin(rows)}"
    )
    return table


def _value(column: str, mean: float, std: float, n: int) -> str:
    if column == "nll":
        return f"{mean:.2f} ± {std:.2f} ({n})" if n > 1 else f"{mean:.2f} ({n})"
    if column == "over":
        return f"{_signed(mean)} ± {std:.1f} ({n})" if n > 1 else f"{_signed(mean)} ({n})"
    return _cell(mean, std, n)


def curves(rows: pd.DataFrame, fewest: int = FEWEST) -> pd.DataFrame:
    """The data of the figure: `curve` of every method, with a column `method`."""
    rows = with_confidence(rows)
    parts = [curve(own, fewest).assign(method=method) for method, own in rows.groupby("method")]
    return pd.concat(parts, ignore_index=True) if parts else curve(rows).assign(method=[])


def reliability_figure(rows: pd.DataFrame, each: int = 4, fewest: int = FEWEST):
    """Accuracy by confidence, at most `each` methods in a panel, zero-shot grey in all; dotted: a confidence that is true.

    A marker's area is the share of the pictures in its bin, its bar the population standard deviation over the seeds.
    Returns the matplotlib Figure (closed), or None where no row has its confidence.
    """
    import matplotlib.pyplot as plt

    points = curves(rows, fewest)
    if points.empty:
        return None
    use_style()
    known = [m for members in FAMILIES.values() for m in members]
    there = _in_order(m for m in points["method"].unique() if m != "zero_shot")
    there.sort(key=lambda m: known.index(m) if m in known else len(known))
    panels = [there[i : i + each] for i in range(0, len(there), each)] or [[]]
    lines = -(-len(panels) // 2)
    figure, axes = plt.subplots(
        lines, min(2, len(panels)), figsize=(WIDTH, 3.1 * lines + 0.4), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, methods in zip(axes.flat, panels, strict=False):
        axis.plot([0, 100], [0, 100], color="#222222", linestyle=":", linewidth=1.2, zorder=1)
        for method in ["zero_shot", *methods]:
            own, style = points[points["method"] == method], look(method)
            if own.empty:
                continue
            colour = ZERO_SHOT if method == "zero_shot" else style.colour
            axis.errorbar(
                own["confidence"], own["accuracy"], own["std"].fillna(0), color=colour, linestyle=style.dashes,
                linewidth=1.2, elinewidth=0.8, capsize=1.5, zorder=2,
            )  # fmt: skip
            large = SIZES.get(style.marker, 6.5) / 6.5
            sizes = 4 + 6 * large * own["share"]
            axis.scatter(own["confidence"], own["accuracy"], sizes, color=colour, marker=style.marker, alpha=0.85,
                         edgecolor="white", linewidth=0.4, zorder=3, label=_title(method))  # fmt: skip
        handles = [
            plt.Line2D([], [], color=ZERO_SHOT if m == "zero_shot" else look(m).colour, linestyle=look(m).dashes, linewidth=1.2,
                       marker=look(m).marker, markersize=5, label=TITLES.get(m, m))
            for m in ["zero_shot", *methods] if (points["method"] == m).any()
        ]  # fmt: skip
        axis.legend(handles=handles, loc="upper left", fontsize="x-small", frameon=False, handlelength=3)
        axis.set(xlim=(0, 102), ylim=(0, 102))
        axis.grid(color=GRID)
    figure.supxlabel("confidence, percent", fontsize="small")
    figure.supylabel("right, percent", fontsize="small")
    words = f"bars: population std over seeds; area: share of the pictures; bins under {fewest} pictures left out"
    figure.suptitle(f"{_origin(with_confidence(rows), short=True)}; {words}", fontsize="x-small", color="#444444")
    plt.close(figure)
    return figure
