"""How far an arm is from another: the text of a cell, and a figure with a dot for every data set."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from fewshot.curves import GRID, SIZES, WIDTH, ZERO_SHOT, look
from fewshot.intervals import Effect, effect
from fewshot.report import NOT_RUN, _signed, use_style

Differences = Mapping[str, pd.DataFrame]  # of each arm: a table unit x seed, as intervals.paired makes it


def shown(found: Effect) -> str:
    """ "+1.2 [−0.3, +2.7]"; without brackets where there is a single value, "not run" where there is none."""
    if not found.n:
        return NOT_RUN
    if math.isinf(found.low):
        return f"{_signed(found.mean)} (1 {found.unit.removesuffix('s')}, no interval)"
    return f"{_signed(found.mean)} [{_signed(found.low)}, {_signed(found.high)}]"


def average(found: pd.DataFrame) -> Effect:
    """The Effect of a table unit x seed; of nothing where nothing was run."""
    return effect(found) if found.size else Effect(math.nan, -math.inf, math.inf, 0, "data sets")


def dots(
    panels: Mapping[str, Differences],
    methods: Mapping[str, str],
    xlabel: str,
    title: str = "",
    marks: Mapping[str, Mapping[str, float]] | None = None,
    mark: str = "",
):
    """A line per arm, a panel beside a panel: a grey dot per unit (mean over seeds) below the mean with its 95 % interval.

    `methods` says which method an arm is of (its colour and marker). `marks` are further values of the arms, by
    panel: hollow diamonds that the legend calls `mark`. Returns the matplotlib Figure (closed: a notebook shows it once).
    """
    import matplotlib.pyplot as plt

    use_style()
    labels = list(dict.fromkeys(label for panel in panels.values() for label in panel))
    height = 0.27 * max(len(labels), 3) + 1.2
    figure, axes = plt.subplots(
        1, len(panels), figsize=(WIDTH, height), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (name, panel) in zip(axes[0], panels.items(), strict=True):
        for y, label in enumerate(labels):
            if label not in panel:  # the arm has no place in this panel
                continue
            table, found = panel[label], average(panel[label])
            if not found.n:
                place = dict(transform=axis.get_yaxis_transform(), va="center", ha="right")
                axis.text(0.98, y, NOT_RUN, color="#666666", fontsize="x-small", **place)
                continue
            if label in (marks or {}).get(name, {}):
                axis.plot(marks[name][label], y, "D", mfc="none", mec="#222222", ms=7, zorder=4)
            units = table.mean(axis=1)
            axis.plot(units, [y + 0.25] * len(units), "o", color="#9A9A9A", markersize=3, zorder=2)
            style = look(methods[label])
            bar = None if math.isinf(found.low) else [[found.mean - found.low], [found.high - found.mean]]
            axis.errorbar(
                found.mean, y, xerr=bar, marker=style.marker, color=style.colour, capsize=3, linewidth=1.8,
                markersize=SIZES.get(style.marker, 6.5), markeredgecolor="white", markeredgewidth=0.5, zorder=3,
            )  # fmt: skip
        axis.axvline(0, color=ZERO_SHOT, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
        axis.set(title=name, xlabel=xlabel, yticks=range(len(labels)), yticklabels=labels)
        axis.grid(axis="x", color=GRID)
        axis.grid(axis="y", visible=False)
    axes[0][0].invert_yaxis()
    legend = [plt.Line2D([], [], marker="o", color="#9A9A9A", markersize=3, linestyle="", label="one data set")]
    legend.append(plt.Line2D([], [], marker="|", color="#333333", markersize=6, label="mean, 95 % interval"))
    if marks:
        legend.append(plt.Line2D([], [], marker="D", mfc="none", mec="#222222", ms=7, linestyle="", label=mark))
    figure.legend(handles=legend, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title, fontsize="small", color="#444444")
    plt.close(figure)
    return figure
