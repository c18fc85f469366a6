"""Figures of training time (see fewshot/studies/training_time.py), drawn from its `costs`."""

from __future__ import annotations

import math

import pandas as pd

from fewshot.curves import GRID, SIZES, WIDTH, closed, look
from fewshot.methods import get_method
from fewshot.report import use_style
from fewshot.studies.training_time import number, unit


def time_bars(found: pd.DataFrame, rows: pd.DataFrame):
    """Time to train as a ratio to CLIP-LoRA's on a logarithmic axis, slowest first; hollow diamonds: the papers' ratios.

    Bars of error: one population standard deviation over the seeds. Hatched: an image encoder runs in every step.
    """
    import matplotlib.pyplot as plt

    use_style()
    name, seconds = unit(rows)
    own = found.dropna(subset="ratio").sort_values("ratio", ascending=False, ignore_index=True)
    figure, axis = plt.subplots(figsize=(WIDTH, 0.29 * max(len(own), 4) + 1.2), layout="constrained")
    for y, one in enumerate(own.itertuples()):
        hatch = "////" if get_method(one.method).needs == "images" else ""
        error = [[min(one.ratio_std, 0.9 * one.ratio)], [one.ratio_std]] if one.n > 1 else None
        axis.barh(
            y, one.ratio, 0.7, xerr=error, color=look(one.method).colour, hatch=hatch, edgecolor="white",
            error_kw=dict(ecolor="#222222", capsize=2.5, elinewidth=1),
        )  # fmt: skip
        if not math.isnan(one.published_ratio):
            axis.plot(one.published_ratio, y, "D", mfc="none", mec="#111111", mew=1.4, ms=7, zorder=4)
        place = dict(transform=axis.get_yaxis_transform(), va="center", fontsize="small")
        axis.text(1.015, y, number(one.seconds / seconds), **place)
    axis.text(1.015, -0.9, name, transform=axis.get_yaxis_transform(), va="center", fontsize="small", style="italic")
    axis.axvline(1, color="#666666", linestyle=(0, (4, 3)), linewidth=1, zorder=0)
    axis.set(xscale="log", xlabel="time to train, CLIP-LoRA = 1", yticks=range(len(own)), yticklabels=own["arm"])
    low, high = own["ratio"].min(), max(own["ratio"].max(), own["published_ratio"].max())
    if len(own):
        axis.set_xlim(low / 2, high * 2)
    axis.grid(axis="x", color=GRID)
    axis.grid(axis="y", visible=False)
    axis.invert_yaxis()
    hollow = dict(marker="D", mfc="none", mec="#111111", linestyle="")
    legend = [plt.Line2D([], [], **hollow, label="published (CLIP-LoRA, table 1)")]
    hatched = dict(fc="#888888", ec="white", hatch="////")
    legend.append(plt.Rectangle((0, 0), 1, 1, **hatched, label="the image encoder runs in every step"))
    figure.legend(handles=legend, loc="outside lower center", ncols=2, frameon=False)
    return closed(figure, rows, "bars of error: one standard deviation over the seeds")


def accuracy_against_time(found: pd.DataFrame, rows: pd.DataFrame):
    """Accuracy against seconds of training, a point per method; bars of error: one population standard deviation."""
    import matplotlib.pyplot as plt

    use_style()
    name, seconds = unit(rows)
    figure, axis = plt.subplots(figsize=(WIDTH, 4.2), layout="constrained")
    for one in found.itertuples():
        style = look(one.method)
        axis.errorbar(
            one.seconds / seconds, one.accuracy, one.accuracy_std, min(one.seconds_std, 0.9 * one.seconds) / seconds,
            linestyle="", marker=style.marker, color=style.colour, markersize=SIZES.get(style.marker, 6.5) + 1.5, capsize=2,
            elinewidth=0.9, markeredgecolor="white", markeredgewidth=0.5, label=one.arm,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set(xlabel=f"{name} to train", ylabel="accuracy in percent")
    axis.grid(color=GRID)
    if len(found):
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    return closed(figure, rows, "bars: one standard deviation over the seeds")
