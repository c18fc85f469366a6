"""Figures of the speed page, drawn from the rows of benchmarks/speed.py (see fewshot/studies/speed.py)."""

from __future__ import annotations

import pandas as pd

from fewshot.curves import GRID, WIDTH, look
from fewshot.report import TITLES, use_style
from fewshot.studies.speed import ELSEWHERE, OURS, REFERENCE, marks_of, origin, ratios
from fewshot.studies.training_time import number

TOWERS = {"text": "text tower", "vit": "ViT"}


def ratio_bars(rows: pd.DataFrame, classes: int = 100):
    """Times faster than the authors' computation, a bar per method on a logarithmic axis; hollow diamonds: the targets."""
    import matplotlib.pyplot as plt

    from fewshot.studies.speed import target

    use_style()
    found = ratios(rows).query("classes == @classes").reset_index(drop=True)
    figure, axis = plt.subplots(figsize=(WIDTH, 0.3 * max(len(found), 4) + 1.2), layout="constrained")
    for y, one in enumerate(found.itertuples()):
        axis.barh(y, one.ratio, 0.7, color=look(one.method).colour, hatch="////" if one.scaled else "", edgecolor="white")
        axis.plot(target(one.method, one.classes), y, "D", mfc="none", mec="#111111", mew=1.4, ms=7, zorder=4)
        times = f"{number(one.ratio)}×" + marks_of(one)
        axis.text(1.015, y, times, transform=axis.get_yaxis_transform(), va="center", fontsize="small")
    axis.axvline(1, color="#666666", linestyle=(0, (4, 3)), linewidth=1, zorder=0)
    axis.set(xscale="log", xlabel=f"times faster than the authors' computation, {classes} classes")
    axis.set(yticks=range(len(found)), yticklabels=[TITLES[m] for m in found["method"]])
    _plain(axis.xaxis)
    axis.grid(axis="x", color=GRID)
    axis.grid(axis="y", visible=False)
    axis.invert_yaxis()
    diamond = plt.Line2D([], [], marker="D", mfc="none", mec="#111111", linestyle="", label="target")
    hatched = plt.Rectangle((0, 0), 1, 1, fc="#888888", ec="white", hatch="////", label="reference as a straight line")
    figure.legend(handles=[diamond, hatched], loc="outside lower center", ncols=2, frameon=False)
    return _closed(figure, rows, "" if found["rested"].all() else "† disturbed: not held against the target")


def roofline(rows: pd.DataFrame, classes: int = 100):
    """Operations per second against operations per byte, under the machine's two limits.

    Bytes are those of all tensors that operators read and write, so points stand further left than with caches counted.
    Filled: our path, hollow: the reference; encoders alone as squares.
    """
    import matplotlib.pyplot as plt

    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 4.6), layout="constrained")
    elsewhere = rows["elsewhere"].astype(bool)  # the two limits are those of one machine
    away = sorted({TITLES[method] for method in rows[elsewhere & (rows["kind"] == "step")]["method"]})
    rows = rows[~elsewhere]
    points = rows[rows["kind"].isin(["step", "tower"]) & rows["scaled_from"].isna() & (rows["flops"] > 0)]
    steps = points[(points["kind"] == "step") & (points["phase"] == "train") & (points["classes"] == classes)]
    steps = steps.drop_duplicates(["method", "path"])
    towers = points[(points["kind"] == "tower") & points["tower"].isin(TOWERS)]
    for one in steps.itertuples():
        style, own = look(one.method), one.path == OURS
        axis.plot(
            one.flops / one.bytes, one.flops / one.seconds / 1e9, linestyle="", marker=style.marker, color=style.colour, ms=8,
            mfc=style.colour if own else "none", label=TITLES[one.method] if own else None,
        )  # fmt: skip
    for one in towers.itertuples():
        axis.plot(
            one.flops / one.bytes, one.flops / one.seconds / 1e9, linestyle="", marker="s", color="black",
            ms=9 if one.tower == "vit" else 6,
            mfc="black" if one.path == OURS else "none", label=TOWERS[one.tower] if one.path == OURS else None,
        )  # fmt: skip
    if len(points):
        peak, bandwidth = points["peak_flops"].max() / 1e9, points["bandwidth"].max() / 1e9
        low, high = (points["flops"] / points["bytes"]).min() / 2, max(2 * peak / bandwidth, 100)
        ridge = peak / bandwidth
        axis.plot([low, ridge, high], [low * bandwidth, peak, peak], color="#444444", linewidth=1.2, zorder=0)
        axis.plot([ridge, high], [0.6 * peak] * 2, color="#444444", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axis.text(high, 1.06 * peak, f"best matrix product, {peak:.0f} GFLOP/s", ha="right", fontsize="small")
        axis.text(high, 0.56 * peak, "60 %", ha="right", va="top", fontsize="small")
        axis.text(low * 1.1, low * bandwidth * 1.6, f"copy, {bandwidth:.0f} GB/s", fontsize="small", rotation=32)
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    axis.set(xscale="log", yscale="log", xlabel="operations per byte that operators move", ylabel="GFLOP per second")
    _plain(axis.xaxis, axis.yaxis)
    axis.grid(color=GRID)
    left_out = f"; not drawn, another machine: {', '.join(away)}" if away else ""
    return _closed(figure, rows, "hollow: the authors' computation" + left_out)


def ablation_bars(rows: pd.DataFrame):
    """Seconds of a step with one saving after the other; at the end of a bar how many times faster than the bar above."""
    import matplotlib.pyplot as plt

    use_style()
    found = rows[rows["kind"] == "ablation"].sort_values("stage").reset_index(drop=True)
    figure, axis = plt.subplots(figsize=(WIDTH, 0.36 * max(len(found), 3) + 1.0), layout="constrained")
    before = None
    for y, one in enumerate(found.itertuples()):
        axis.barh(y, one.seconds, 0.7, color=look("coop").colour if y else "#888888")
        gain = "" if before is None else f"  ({before / one.seconds:.2f}×)"
        axis.text(1.015, y, f"{number(one.seconds)} s{gain}", transform=axis.get_yaxis_transform(), va="center", fontsize="small")
        before = one.seconds
    labels = [("" if y == 0 else "+ ") + saving for y, saving in enumerate(found["saving"])]
    axis.set(xscale="log", xlabel="seconds per training step", yticks=range(len(found)), yticklabels=labels)
    _plain(axis.xaxis)
    axis.grid(axis="x", color=GRID)
    axis.grid(axis="y", visible=False)
    axis.invert_yaxis()
    return _closed(figure, found)


SCALES = {"classes": "classes", "batch": "pictures in a batch", "shots": "shots per class"}


def scaling(rows: pd.DataFrame):
    """Seconds and memory of a training step on our path against classes, batch and shots; both axes logarithmic.

    Grey: slope 1, a straight line through the origin, which nothing exceeds for long; dashed: the reference path.
    """
    import matplotlib.pyplot as plt

    use_style()
    train = rows[(rows["kind"] == "step") & (rows["phase"] == "train")]
    figure, axes = plt.subplots(2, 3, figsize=(1.4 * WIDTH, 5.6), sharex="col", layout="constrained")
    legend = {}
    for column, (name, what) in enumerate(SCALES.items()):
        for method, path, line in series(train, name):
            style = look(method)
            for axis, value in zip(axes[:, column], ("seconds", "memory"), strict=True):
                scale = 1 if value == "seconds" else 1e6
                (drawn,) = axis.plot(
                    line[name], line[value] / scale, color=style.colour, marker=style.marker, ms=5,
                    linestyle="-" if path == OURS else (0, (2, 2)), mfc=style.colour if path == OURS else "none", linewidth=1.1,
                )  # fmt: skip
                if path == OURS:
                    legend[TITLES[method] + (ELSEWHERE if line["elsewhere"].any() else "")] = drawn
        for axis in axes[:, column]:
            axis.set(xscale="log", yscale="log")
            axis.grid(color=GRID)
            _slope(axis)
            _plain(axis.xaxis, axis.yaxis)
        axes[1, column].set_xlabel(what)
    axes[0, 0].set_ylabel("seconds per step")
    axes[1, 0].set_ylabel("peak memory of a step, MB")
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=5, frameon=False, fontsize="small")
    return _closed(figure, rows, "grey: slope 1; dotted and hollow: the authors' computation")


def series(train: pd.DataFrame, name: str):
    """(method, path, rows in order of `name`) wherever `name` was varied with the rest held at one setting."""
    others = [other for other in SCALES if other != name]
    for (method, path), own in train.groupby(["method", "path"], sort=False):
        if path == REFERENCE and name != "classes":
            continue
        groups = [g.drop_duplicates(name).sort_values(name) for _, g in own.groupby(others)]
        longest = max(groups, key=len)
        if len(longest) >= 3:
            yield method, path, longest


def _slope(axis) -> None:
    """A grey line of slope 1 through the lower left of what is drawn."""
    (x0, x1), (y0, y1) = axis.get_xlim(), axis.get_ylim()
    if not axis.lines:
        return
    start = y0 * (y1 / y0) ** 0.25
    axis.plot([x0, x1], [start, start * x1 / x0], color="#BBBBBB", linewidth=1, zorder=0, scalex=False, scaley=False)


def _plain(*axes) -> None:
    """Plain numbers at the decades of an axis, and at 2 and 5 between them where there are few decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in axes:
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())


def _closed(figure, rows: pd.DataFrame, what: str = ""):
    import matplotlib.pyplot as plt

    title = "\n".join(filter(None, (origin(rows).replace(f"; {ELSEWHERE}", f"\n{ELSEWHERE}"), what)))
    figure.suptitle(title, fontsize="small", color="#444444")
    plt.close(figure)
    return figure
