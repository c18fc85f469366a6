"""Accuracy against the number of pictures, for more methods than one panel can show.

A family of methods has a hue and a kind of marker, a member its shade, marker and dashes; a method looks the same on
every page, and markers and dashes alone tell any two apart. Nobody has to read sixteen lines at once: a panel brings few
methods to the front, and the others stand behind them as thin grey lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from fewshot.errors import FewshotError
from fewshot.report import _in_order, _origin, _title, literal, summary, use_style


class Look(NamedTuple):
    colour: str
    marker: str | tuple
    dashes: str | tuple


# Hues after Okabe and Ito; shades of one hue differ in lightness, neighbours the most.
FAMILIES = {
    "linear and closed-form heads": {
        "linear_probe": ("#0072B2", "o"),
        "cross_modal_probe": ("#10315E", "s"),
        "lpplusplus": ("#4796D6", "D"),
        "gda": ("#4053C7", "p"),
    },
    "caches and adapters": {
        "tip_adapter": ("#8A3B00", "^"),
        "tip_adapter_f": ("#D55E00", "v"),
        "clip_adapter": ("#B98400", "<"),
        "taskres": ("#4A1F0C", ">"),
    },
    "prompts": {
        "coop": ("#009E73", "P"),
        "cocoop": ("#45A88F", "X"),
        "kgcoop": ("#00889C", "d"),
        "prograd": ("#6B8E23", (4, 1, 0)),
        "plotpp": ("#2E7D32", "H"),
        "maple": ("#00402F", (6, 1, 0)),
    },
    "low rank": {"clip_lora": ("#A8327D", "*")},
    "the whole encoder": {"fine_tune": ("#C40018", "X")},
    "sentences as pictures": {"text_adapter": ("#6A3D9A", "h")},
}
DASHES = ("-", (0, (6, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1.5)), (0, (4, 1, 1, 1, 1, 1)))
# of markers that look larger or smaller than the others
SIZES = {"*": 10, (4, 1, 0): 9, (6, 1, 0): 9, "P": 7.5, "X": 7.5, "d": 7.5, "D": 5.5, "s": 5.5}
OTHERS = "#C4C4C4"
GRID = "#EDEDED"  # lighter than the lines
ZERO_SHOT = "#666666"
WIDTH = 7.0  # inches: the width of a page's text, so that nothing is scaled on a desktop


def look(method: str) -> Look:
    """The look of a trained method; any that belongs to no family is drawn in black."""
    for members in FAMILIES.values():
        if method in members:
            return Look(*members[method], DASHES[list(members).index(method)])
    return Look("#000000", ".", "-")


def shot_curves(
    rows: pd.DataFrame,
    published: pd.DataFrame | None = None,
    columns: int = 3,
    highlight: Iterable[str] | None = None,
):
    """A panel per data set: mean with a band of one standard deviation, zero-shot as a line.

    `highlight` names the methods in front (None: all); the others are grey. `published` adds the papers' numbers as
    hollow markers. Returns the matplotlib Figure (closed: a notebook shows it once).
    """
    import matplotlib.pyplot as plt

    points, methods, shots = _points(rows)
    front = [m for m in methods if highlight is None or m in set(highlight)]
    datasets = sorted(points["dataset"].unique())
    columns = min(columns, len(datasets))
    figure, axes = _panels(len(datasets), columns)
    for axis, dataset in zip(axes, datasets, strict=False):
        panel = points[points["dataset"] == dataset]
        _draw(axis, panel, methods, front)
        if published is not None:
            for method in front:
                paper = _published_points(published, method, dataset, shots)
                style = look(method)
                axis.plot(paper["shots"], paper["top1"], "", marker=style.marker, mfc="none", mec=style.colour, ms=9)
        axis.set_title(literal(dataset))
    found = {text: handle for axis in axes for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    legend = list(found.items())
    if len(front) < len(methods):
        legend.append(("the other methods", plt.Line2D([], [], color=OTHERS, linewidth=1)))
    if published is not None:
        legend.append(
            ("published (hollow)", plt.Line2D([], [], linestyle="", marker="o", mfc="none", mec="#333333", ms=9))
        )
    figure.legend(
        [handle for _, handle in legend], [text for text, _ in legend], loc="outside lower center", ncols=3,
        frameon=False, handlelength=3.2,
    )  # fmt: skip
    return _finished(figure, axes, rows, shots, columns)


def family_curves(rows: pd.DataFrame):
    """One data set (or the average), a panel per family: its members in front with their names, all others in grey.

    Raises FewshotError when the rows are of several data sets.
    """
    points, methods, shots = _points(rows)
    if points["dataset"].nunique() > 1:
        raise FewshotError("a figure of families shows one data set; average the rows first, or choose one.")
    families = {name: [m for m in methods if m in members] for name, members in FAMILIES.items()}
    rest = [m for m in methods if not any(m in members for members in families.values())]
    families = {name: members for name, members in [*families.items(), ("other methods", rest)] if members}
    columns = min(2, len(families)) or 1
    figure, axes = _panels(max(1, len(families)), columns, sharey=True, height=2.8)
    for axis, (name, members) in zip(axes, families.items(), strict=False):
        _draw(axis, points, methods, members)
        axis.set_title(name)
    if not families:
        _draw(axes[0], points, [], [])
    _finished(figure, axes, rows, shots, columns, points["dataset"].iloc[0])
    for axis in axes:
        _name_the_ends(axis)
    return figure


def _points(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str], list[int]]:
    """Means and deviations to draw, the trained methods in order, and the numbers of shots."""
    use_style()
    points = summary(rows)
    if points.empty:
        raise FewshotError("there is no row to draw; run the experiment first.")
    trained = points[points["method"] != "zero_shot"]
    return points, _in_order(trained["method"].unique()), sorted(trained["shots"].unique())


def _panels(count: int, columns: int, sharey: bool = False, height: float = 2.5):
    import matplotlib.pyplot as plt

    lines = -(-count // columns)
    size = (WIDTH if columns > 1 else 5.4, height * lines + 0.9)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, sharey=sharey, layout="constrained")
    axes = list(axes.flat)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def _draw(axis, panel: pd.DataFrame, methods: list[str], front: list[str]) -> None:
    """The curves of one panel; those of `front` in their own look, with their bands."""
    for method in sorted(methods, key=lambda m: (m in front, methods.index(m))):
        curve = panel[panel["method"] == method].sort_values("shots")
        if method not in front:
            axis.plot(curve["shots"], curve["mean"], color=OTHERS, linewidth=1, label="_other", zorder=1)
            continue
        style = look(method)
        axis.plot(
            curve["shots"], curve["mean"], color=style.colour, marker=style.marker, linestyle=style.dashes,
            label=_title(method), markersize=SIZES.get(style.marker, 6.5), markeredgecolor="white",
            markeredgewidth=0.5, zorder=3,
        )  # fmt: skip
        low, high = curve["mean"] - curve["std"], curve["mean"] + curve["std"]
        axis.fill_between(curve["shots"], low, high, color=style.colour, alpha=0.13, lw=0, zorder=2)
    for mean in panel.loc[panel["method"] == "zero_shot", "mean"]:
        axis.axhline(mean, color=ZERO_SHOT, linestyle=(0, (4, 3)), linewidth=1.2, label=_title("zero_shot"), zorder=1)


def _name_the_ends(axis) -> None:
    """Each named line's marker and name at its right end, pushed apart where they would overlap."""
    lines = [line for line in axis.get_lines() if not line.get_label().startswith("_") and len(line.get_xdata())]
    zero_shot = _title("zero_shot")
    low, high = limits = axis.get_ylim()
    left, right = axis.get_xlim()
    lines.sort(key=lambda line: line.get_ydata()[-1])
    ends = [float(line.get_ydata()[-1]) for line in lines]
    for line, end, height in zip(lines, ends, spread(ends, (high - low) * 0.065, low, high), strict=True):
        start = right if line.get_label() == zero_shot else line.get_xdata()[-1]
        across = dict(color=line.get_color(), linewidth=0.6, clip_on=False, label="_leader", zorder=1)
        axis.plot([start, right * 1.25], [end, height], **across)
        if line.get_label() != zero_shot:
            mark = dict(marker=line.get_marker(), markersize=line.get_markersize(), markeredgewidth=0)
            axis.plot([right * 1.25], [height], linestyle="", **mark, **across)
        axis.text(right * 1.45, height, line.get_label(), color=line.get_color(), va="center", fontsize="small")
    axis.set_xlim(left, right)
    axis.set_ylim(limits)


def spread(values: list[float], gap: float, low: float, high: float) -> list[float]:
    """Sorted values moved as little as possible until neighbours are `gap` apart and none leaves [low, high]."""
    blocks: list[list[float]] = []  # neighbours that touch; a block stands around the mean of its values

    def first(block: list[float]) -> float:
        length = gap * (len(block) - 1)
        return max(low, min(sum(block) / len(block) - length / 2, high - length))

    for value in values:
        blocks.append([value])
        while len(blocks) > 1 and first(blocks[-1]) < first(blocks[-2]) + gap * len(blocks[-2]):
            last = blocks.pop()
            blocks[-1] += last
    return [first(block) + gap * i for block in blocks for i in range(len(block))]


def _finished(figure, axes: list, rows: pd.DataFrame, shots: list[int], columns: int, what: str = ""):
    import matplotlib.pyplot as plt

    for place, axis in enumerate(axes):
        if place + columns >= len(axes):  # nothing below it
            axis.set_xlabel("training images per class")
        if place % columns == 0:
            axis.set_ylabel("accuracy in percent")
        axis.grid(color=GRID)
        if shots:
            axis.set_xscale("log", base=2)
            axis.set_xticks(shots, [str(k) for k in shots])
            axis.minorticks_off()
    origin = ", ".join(filter(None, (what.removeprefix("toy/"), _origin(rows, short=True))))
    figure.suptitle(literal(origin), fontsize="small", color="#444444")
    plt.close(figure)
    return figure


def _published_points(published: pd.DataFrame, method: str, dataset: str, shots: list[int]) -> pd.DataFrame:
    name = dataset.removeprefix("toy/")
    part = published[(published["method"] == method) & (published["dataset"] == name) & (published["classes"] == "all")]
    return part[part["shots"].isin(shots)].drop_duplicates("shots")


def closed(figure, rows: pd.DataFrame, what: str):
    """The finished figure, with where its rows are from and `what` there is to see above it."""
    import matplotlib.pyplot as plt

    title = "; ".join(filter(None, (_origin(rows, short=True), what)))
    figure.suptitle(title, fontsize="small", color="#444444")
    plt.close(figure)
    return figure
