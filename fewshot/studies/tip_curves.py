"""The figures of Tip-Adapter's study: rows of `studies.tip_adapter_study` (column arm) in, closed matplotlib Figures out.

Wherever the published numbers of RN50 are drawn they have a panel of their own: another backbone and real data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from math import ceil, floor, inf, log10

import pandas as pd

from fewshot.curves import GRID, SIZES, WIDTH, look
from fewshot.curves import ZERO_SHOT as GREY
from fewshot.report import NOT_RUN, _average, _origin, _shots, literal, use_style
from fewshot.studies.tip_adapter_study import (
    COOP,
    FREE,
    MAIN,
    PAIRS,
    TUNED,
    differences,
    epochs_label,
    epochs_of,
    name,
    paper_rows,
)  # fmt: skip

LINES = (  # of the pairs: colour, marker, dashes
    ("#8A3B00", "^", "-"),
    ("#D55E00", "v", (0, (6, 2))),
    ("#000000", "s", (0, (1, 1.2))),
    ("#009E73", "o", (0, (6, 1.5, 1, 1.5))),
    ("#0072B2", "D", (0, (3, 1.5))),
)
PAPER_NAME = "RN50, eleven real data sets (published)"


def average_points(
    rows: pd.DataFrame, timed: pd.DataFrame, shots: Sequence[int], datasets: Sequence[str]
) -> pd.DataFrame:
    """What the figures of averages and of seconds draw: a line per source, arm and number of shots.

    Columns numbers (here, published, or timed alone), arm, shots, accuracy, accuracy_std, seconds, seconds_std (population
    standard deviations over the seeds; seconds are of fitting) and n (seeds). An average has all the data sets.
    """
    paper, lines = paper_rows(), []
    for numbers, source, names in (("here", rows, datasets), ("published", paper, sorted(set(paper["dataset"])))):
        for arm, k in product(MAIN, shots):
            own = source[(source["arm"] == arm) & source["shots"].isin([0, k])]
            if len(own) and set(names) <= set(own["dataset"]):
                seconds = own.groupby("seed")["seconds_fit"].mean() if "seconds_fit" in own else pd.Series(dtype=float)
                mean, std, n = _average(own, list(names))
                lines.append((numbers, arm, k, mean, std, seconds.mean(), seconds.std(ddof=0), n))
    for arm, own in timed.groupby("arm", sort=False) if len(timed) else ():
        ends = [f(own[c]) for c in ("accuracy", "seconds_fit") for f in (pd.Series.mean, partial(pd.Series.std, ddof=0))]
        lines.append(("timed alone", arm, int(own["shots"].max()), *ends, len(own)))
    columns = ["numbers", "arm", "shots", "accuracy", "accuracy_std", "seconds", "seconds_std", "n"]
    return pd.DataFrame(lines, columns=columns)


def average_curves(rows: pd.DataFrame, shots: Sequence[int], datasets: Sequence[str]):
    """Average accuracy against shots, here and as published for RN50 (one seed, so without a band). A closed Figure."""
    import matplotlib.pyplot as plt

    use_style()
    points = average_points(rows, rows[:0], shots, datasets)
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.3), layout="constrained")
    for axis, numbers in zip(axes, ("here", "published"), strict=True):
        for arm, method in MAIN.items():
            own = points[(points["numbers"] == numbers) & (points["arm"] == arm)]
            if own.empty:
                continue
            if method == "zero_shot":
                axis.axhline(own["accuracy"].iloc[0], color=GREY, linestyle=(0, (4, 3)), linewidth=1.2, label=arm)
                continue
            style = look(method)
            axis.errorbar(
                own["shots"], own["accuracy"], own["accuracy_std"] if numbers == "here" else None, color=style.colour,
                marker=style.marker, linestyle=style.dashes, capsize=2, markersize=SIZES.get(style.marker, 6.5), label=arm,
            )  # fmt: skip
        _shot_axis(axis, shots)
    what = f"{len(datasets)} data sets" if len(datasets) > 1 else literal(datasets[0].removeprefix("toy/"))
    axes[0].set(title=f"here: {what}", ylabel="accuracy in percent")
    axes[1].set(title=PAPER_NAME)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, handlelength=3
    )
    figure.suptitle(
        f"here: ± one population standard deviation over the seeds, {_origin(rows, short=True)}",
        fontsize="small",
        color="#444444",
    )
    plt.close(figure)
    return figure


def difference_curves(rows: pd.DataFrame, shots: Sequence[int]):
    """Differences against shots with 95 % intervals, here and as published for RN50; a single run has none. A closed Figure."""
    import matplotlib.pyplot as plt

    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6), layout="constrained")
    for axis, source in ((axes[0], rows), (axes[1], paper_rows())):
        found = differences(source)
        for i, (pair, (colour, marker, dashes)) in enumerate(zip(PAIRS, LINES, strict=True)):
            own = found[(found["pair"] == name(*pair)) & found["shots"].isin(shots)]
            bars = [(own["mean"] - own["low"]).replace(inf, 0), (own["high"] - own["mean"]).replace(inf, 0)]
            x = [list(shots).index(k) + 0.09 * (i - 2) for k in own["shots"]]
            axis.errorbar(
                x, own["mean"], bars, color=colour, marker=marker, linestyle=dashes,
                capsize=2, linewidth=1.2, markersize=5, label=name(*pair),
            )  # fmt: skip
        axis.axhline(0, color=GREY, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
        axis.set_xticks(range(len(shots)), [str(k) for k in shots])
        axis.set_xlabel("training images per class")
        axis.grid(axis="x", visible=False)
        axis.grid(axis="y", color=GRID)
    axes[0].set(title="here", ylabel="points, mean and 95 % interval")
    axes[1].set(title=PAPER_NAME)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, handlelength=3
    )
    figure.suptitle(_origin(rows, short=True), fontsize="small", color="#444444")
    plt.close(figure)
    return figure


def epoch_curves(rows: pd.DataFrame, some: Sequence[str], epochs: Sequence[int], shots: int):
    """Tip-Adapter-F against epochs, a panel per data set; no training as a band, CoOp at 20 and at its own. A closed Figure."""
    import matplotlib.pyplot as plt

    use_style()
    rows = rows[rows["shots"] == shots]
    columns = min(2, len(some))
    figure, axes = plt.subplots(
        -(-len(some) // columns), columns, figsize=(WIDTH, 2.5 * -(-len(some) // columns) + 0.7), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis in axes.flat[len(some) :]:
        axis.set_visible(False)
    for axis, dataset in zip(axes.flat, some, strict=False):
        own = rows[rows["dataset"] == dataset]
        free, tuned, coop = (look(MAIN[arm]) for arm in (FREE, TUNED, COOP))
        a = own[own["arm"] == FREE]["accuracy"]
        if len(a):
            axis.axhline(a.mean(), color=free.colour, linestyle=free.dashes, label=f"{FREE}: no epoch")
            axis.axhspan(a.mean() - a.std(ddof=0), a.mean() + a.std(ddof=0), color=free.colour, alpha=0.13, lw=0)
        arms_of = [(n, own[own["arm"] == epochs_label("tip_adapter_f", n)]["accuracy"]) for n in epochs]
        points = [(n, a.mean(), a.std(ddof=0)) for n, a in arms_of if len(a)]
        if points:
            x, mean, std = zip(*points, strict=True)
            axis.errorbar(x, mean, std, color=tuned.colour, marker=tuned.marker, linestyle="-", capsize=2, label=TUNED)
        for arm, face in ((epochs_label("coop", 20), "none"), (COOP, coop.colour)):
            part = own[own["arm"] == arm]
            if len(part):
                a, n = part["accuracy"], epochs_of(part.iloc[0].to_dict())
                title = f"{COOP}, 20 epochs" if arm != COOP else f"{COOP}, its own number of epochs"
                axis.errorbar(
                    n, a.mean(), a.std(ddof=0), color=coop.colour, marker=coop.marker, mfc=face, linestyle="", capsize=2,
                    markersize=8, label=title,
                )  # fmt: skip
        axis.set_xscale("log")
        axis.set_xticks(
            [1, 2, 5, 10, 20, 50, 100, 200], ["1", "2", "5", "10", "20", "50", "100", "200"], fontsize="x-small"
        )
        axis.set_xlim(0.8, 260)
        axis.minorticks_off()
        axis.grid(color=GRID)
        axis.set(title=literal(dataset.removeprefix("toy/")), xlabel="epochs")
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel("accuracy in percent")
    found = {t: h for axis in axes.flat for h, t in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=2, frameon=False, handlelength=3)
    seeds = rows["seed"].nunique()
    title = (
        f"{_shots(shots)} per class, mean ± population standard deviation of {seeds} seeds, {_origin(rows, short=True)}"
    )
    figure.suptitle(title, fontsize="small", color="#444444")
    plt.close(figure)
    return figure


def seconds_curves(rows: pd.DataFrame, timed: pd.DataFrame, shots: Sequence[int], datasets: Sequence[str]):
    """Accuracy against seconds to fit: the grid at every number of shots (average), beside it the timed runs. A closed Figure."""
    import matplotlib.pyplot as plt

    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.4), layout="constrained")
    points = average_points(rows, timed, shots, datasets)
    for arm, method in list(MAIN.items())[1:]:
        style = look(method)
        marks = dict(color=style.colour, marker=style.marker, capsize=2, label=arm)
        for axis, numbers, more in (
            (axes[0], "here", dict(linestyle=style.dashes)),
            (axes[1], "timed alone", dict(linestyle="", markersize=8)),
        ):
            own = points[(points["numbers"] == numbers) & (points["arm"] == arm)]
            if len(own):
                axis.errorbar(
                    own["seconds"], own["accuracy"], own["accuracy_std"], own["seconds_std"], **marks, **more
                )
    if not len(timed):
        axes[1].set_yticks([])
        axes[1].text(0.5, 0.5, NOT_RUN, transform=axes[1].transAxes, ha="center", color="#666666")
    for axis in axes:
        axis.set_xscale("log")
        low, high = (round_(log10(end)) for round_, end in zip((floor, ceil), axis.get_xlim(), strict=True))
        axis.set_xticks([10.0**p for p in range(low, high + 1)], [f"{10.0**p:g}" for p in range(low, high + 1)])
        axis.set_xlim(10.0**low, 10.0**high)
        axis.minorticks_off()
        axis.grid(color=GRID)
        axis.set_xlabel("seconds to fit")
    k = int(timed["shots"].max()) if len(timed) else max(shots)
    axes[0].set(title=f"grid: beside other work, {min(shots)} to {_shots(max(shots))}", ylabel="accuracy in percent")
    axes[1].set(title=f"timed alone: ImageNet, {_shots(k)}")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, handlelength=3
    )
    title = f"mean ± population standard deviation over the seeds, {_origin(rows, short=True)}"
    figure.suptitle(title, fontsize="small", color="#444444")
    plt.close(figure)
    return figure


def _shot_axis(axis, shots: Sequence[int]) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(shots), [str(k) for k in shots])
    axis.minorticks_off()
    axis.grid(color=GRID)
    axis.set_xlabel("training images per class")
