"""Curves that cross: which method is ahead at which number of labels, with the figures of it.

Rows have a column `arm`, the title of their method. -1 shots are all training pictures of a data set.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fewshot.curves import GRID, SIZES, WIDTH, ZERO_SHOT, look
from fewshot.errors import FewshotError
from fewshot.intervals import Effect, bootstrap_interval, paired
from fewshot.report import TITLES, _average, _origin, literal, use_style
from fewshot.runs import ALL
from fewshot.toy import LARGE, MANY


def training_pictures(dataset: str) -> tuple[int, int]:
    """(classes, training pictures); the large stand-ins are not drawn for it. Raises FewshotError where nothing is known."""
    from fewshot.plan import pictures
    from fewshot.toy.benchmark import STAND_INS

    name = dataset.removeprefix("toy/")
    if name in LARGE:
        classes = len(STAND_INS[LARGE[name]].kinds)
        return classes, MANY * classes
    known = pictures(dataset)
    if known is None:
        raise FewshotError(f"nobody knows how many pictures {dataset} has; check the path, or leave -1 out of shots.")
    return known[:2]


def lead(rows: pd.DataFrame, ahead: str, behind: str, shots: int) -> Effect:
    """By how many points one method is ahead of another: mean over the data sets that both have, with a 95 % interval.

    The interval asks about other seeds on these data sets (each data set's seeds are drawn again). n is 0 where nothing is.
    """
    samples = _differences(rows, ahead, behind, shots)
    if not samples:
        return Effect(float("nan"), -float("inf"), float("inf"), 0, "seeds")
    return Effect(*bootstrap_interval(samples), min(map(len, samples)), "seeds")


def _differences(rows: pd.DataFrame, ahead: str, behind: str, shots: int) -> list[np.ndarray]:
    """Seed by seed, for each data set that both have."""
    sides = [rows[(rows["arm"] == TITLES[m]) & rows["shots"].isin([0, shots])] for m in (ahead, behind)]
    if not all(map(len, sides)):
        return []
    return [line.dropna().to_numpy() for _, line in paired(*sides).iterrows()]


def crossing(rows: pd.DataFrame, ahead: str, behind: str, shots: Sequence[int], surely: bool = False) -> int | None:
    """From how many shots on one method stays ahead of another: the smallest number at which, and at all larger ones that
    were run, its mean lead is above 0 (`surely`: the whole interval is). None where it is not ahead at the largest.
    """
    found = None
    for k in sorted(shots, key=by_size, reverse=True):
        samples = _differences(rows, ahead, behind, k)
        if not samples:
            continue
        mean = float(np.mean([sample.mean() for sample in samples]))
        if not (bootstrap_interval(samples)[1] if surely else mean) > 0:
            break
        found = k
    return found


# the figures


def points(rows: pd.DataFrame, methods: Sequence[str], datasets: Sequence[str]) -> pd.DataFrame:
    """What `curves` draws: columns dataset (or "average"), method, shots, pictures per class, mean, std, n.

    The average has the points that every data set has; its "all" stands at the geometric mean of the data sets' numbers.
    """
    every = {}
    if (rows["shots"] == ALL).any():
        every = {d: count / classes for d in datasets for classes, count in [training_pictures(d)]}
        every["average"] = float(np.exp(np.mean(np.log(list(every.values())))))
    lines = []
    for method in methods:
        own = rows[rows["arm"] == TITLES[method]]
        for k in sorted(own["shots"].unique(), key=by_size):
            part = own[own["shots"] == k]
            covered = [d for d in datasets if d in set(part["dataset"])]
            panels = {d: [d] for d in covered} | ({"average": covered} if len(covered) == len(datasets) > 1 else {})
            for panel, used in panels.items():
                place = every.get(panel, np.nan) if k == ALL else k
                lines.append((panel, method, int(k), place, *_average(part, used)))
    return pd.DataFrame(lines, columns=["dataset", "method", "shots", "pictures", "mean", "std", "n"])


def curves(rows: pd.DataFrame, methods: Sequence[str], datasets: Sequence[str]):
    """Accuracy against training pictures per class, a panel per data set and one of their average; bars: one deviation.

    Returns the matplotlib Figure (closed: a notebook shows it once).
    """
    import matplotlib.pyplot as plt

    use_style()
    found = points(rows, methods, datasets)
    panels = [d for d in (*datasets, "average") if d in set(found["dataset"])]
    if not panels:
        raise FewshotError("there is no row to draw; run the experiment first.")
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(WIDTH, 2.9 * lines + 1), squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for place, (axis, panel) in enumerate(zip(axes.flat, panels, strict=False)):
        part = found[found["dataset"] == panel]
        for method in (m for m in methods if m != "zero_shot"):
            own, style = part[part["method"] == method].sort_values("pictures"), look(method)
            axis.errorbar(
                own["pictures"], own["mean"], own["std"], color=style.colour, marker=style.marker,
                linestyle=style.dashes, capsize=2, linewidth=1.4, elinewidth=0.9, label=TITLES[method],
                markersize=SIZES.get(style.marker, 6.5), markeredgecolor="white", markeredgewidth=0.5,
            )  # fmt: skip
        for mean in part.loc[part["method"] == "zero_shot", "mean"]:
            axis.axhline(
                mean, color=ZERO_SHOT, linestyle=(0, (4, 3)), linewidth=1.2, label=TITLES["zero_shot"], zorder=1
            )
        axis.set_title(literal(panel.removeprefix("toy/")))
        _ticks(axis, part)
        if place + columns >= len(panels):
            axis.set_xlabel("training pictures per class")
        if place % columns == 0:
            axis.set_ylabel("accuracy in percent")
    _legend(figure, axes)
    note = f"mean ± population standard deviation of {int(found['n'].max())} seeds"
    figure.suptitle(literal(f"{note}, {_origin(rows, short=True)}"), fontsize="small", color="#444444")
    plt.close(figure)
    return figure


def lead_points(
    rows: pd.DataFrame, ahead: str, methods: Sequence[str], shots: Sequence[int], datasets: Sequence[str]
) -> pd.DataFrame:
    """What `leads` draws: columns method, against, shots, lead (points), low, high (95 % interval over seeds), seeds."""
    rows = rows[rows["dataset"].isin(datasets)]
    found = ((m, k, lead(rows, ahead, m, k)) for m in methods if m != ahead for k in shots)
    lines = [(ahead, m, k, one.mean, one.low, one.high, one.n) for m, k, one in found if one.n]
    return pd.DataFrame(lines, columns=["method", "against", "shots", "lead", "low", "high", "seeds"])


def leads(rows: pd.DataFrame, ahead: str, methods: Sequence[str], shots: Sequence[int], datasets: Sequence[str]):
    """The lead of a method over each of the others against the number of shots, with 95 % intervals over the seeds.

    Where a line crosses 0 from below, the method overtakes. Returns the matplotlib Figure (closed).
    """
    import matplotlib.pyplot as plt

    use_style()
    found = lead_points(rows, ahead, methods, shots, datasets)
    figure, axis = plt.subplots(figsize=(WIDTH, 3.8), layout="constrained")
    others = [m for m in methods if m != ahead]
    for i, other in enumerate(others):
        own, style = found[found["against"] == other], look(other)
        if own.empty:
            continue
        ends = np.array([own["lead"] - own["low"], own["high"] - own["lead"]])
        places = np.array([list(shots).index(k) for k in own["shots"]]) + 0.07 * (i - (len(others) - 1) / 2)
        axis.errorbar(
            places, own["lead"], np.where(np.isinf(ends), 0, ends),
            color=ZERO_SHOT if other == "zero_shot" else style.colour, marker=style.marker, linestyle=style.dashes,
            capsize=2, linewidth=1.3, elinewidth=0.9, label=TITLES[other], markersize=SIZES.get(style.marker, 6.5),
            markeredgecolor="white", markeredgewidth=0.5,
        )  # fmt: skip
    axis.axhline(0, color="#222222", linewidth=1.2, zorder=1)
    axis.set_xticks(range(len(shots)), [named(k) for k in shots])
    axis.set(xlabel="training pictures per class", ylabel=f"lead of {TITLES[ahead]} in points")
    axis.grid(axis="y", color=GRID)
    axis.grid(axis="x", visible=False)
    _legend(figure, [axis])
    note = f"{over(datasets)}, 95 % intervals over the seeds"
    figure.suptitle(literal(f"{note}, {_origin(rows, short=True)}"), fontsize="small", color="#444444")
    plt.close(figure)
    return figure


def _ticks(axis, part: pd.DataFrame) -> None:
    trained = part[part["shots"] != 0].drop_duplicates("shots")
    axis.set_xscale("log", base=2)
    axis.set_xticks(trained["pictures"], [named(k) for k in trained["shots"]])
    axis.minorticks_off()
    axis.grid(color=GRID)


def _legend(figure, axes) -> None:
    found = {}
    for axis in np.ravel(axes):
        found |= {text: handle for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found, loc="outside lower center", ncols=3, frameon=False, handlelength=3.2)


# what things are called


def by_size(shots: int) -> tuple[bool, int]:
    """All training pictures come after every number of them."""
    return shots == ALL, shots


def named(shots: int) -> str:
    return "all" if shots == ALL else str(shots)


def over(datasets: Sequence[str]) -> str:
    names = ", ".join(d.removeprefix("toy/") for d in datasets)
    return f"average over {names}" if len(datasets) > 1 else f"on {names}"


def how_many(rows: pd.DataFrame) -> str:
    """What "all" is, where it was run: (all: 512)."""
    names = rows.loc[rows["shots"] == ALL, "dataset"].unique() if len(rows) else ()
    counts = sorted({round(count / classes) for classes, count in map(training_pictures, names)})
    return f" (all: {', '.join(map(str, counts))})" if counts else ""
