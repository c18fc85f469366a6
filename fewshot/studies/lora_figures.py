"""Figures of the LoRA ablation (see fewshot/studies/lora_ablation.py), all drawn from its `cells`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd

from fewshot.curves import GRID, WIDTH, closed
from fewshot.report import NOT_RUN, use_style
from fewshot.studies.lora_ablation import DEFAULT, OWN, cells, label, places

# marker and colour of an encoder: told apart without colour as well
LOOKS = {"text": ("s", "#D55E00"), "vision": ("^", "#0072B2"), "both": ("o", "#A8327D")}
SHADING = "Blues"  # of the maps: lightness alone says it, so grey says it too
HATCHES = ("", "///", "...", "xx", "--", "++")
SHADES = ("#10315E", "#4796D6", "#B9D7F0", "#5A5A5A", "#9A9A9A", "#E2E2E2")


def heat_maps(
    rows: pd.DataFrame,
    lines: Mapping[str, Mapping[str, str]],
    datasets: Sequence[str],
    across: int,
    names: tuple[str, str],
):
    """A map per data set and one of their average; `lines` are {line: {column: arm}}, `names` those of the two axes.

    In each cell mean and population standard deviation over the seeds; each map has its own shades, the darkest its best.
    The authors' own setting is framed. `across` maps stand in a line. Returns the matplotlib Figure (closed).
    """
    import matplotlib.pyplot as plt

    use_style()
    columns = list(dict.fromkeys(name for line in lines.values() for name in line))
    found = cells(rows, [arm for line in lines.values() for arm in line.values()], datasets)
    found = found.drop_duplicates(["arm", "dataset"]).set_index(["arm", "dataset"])
    panels = places(datasets)
    across = min(across, len(panels))
    down = -(-len(panels) // across)
    size = (WIDTH, (0.36 * len(lines) + 0.85) * down + 0.3)
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for i, (axis, panel) in enumerate(zip(axes.flat, panels, strict=False)):
        means = pd.DataFrame(
            {
                c: {n: found["mean"].get((line.get(c), panel), float("nan")) for n, line in lines.items()}
                for c in columns
            }
        )
        axis.imshow(means.to_numpy(float), cmap=SHADING, aspect="auto", vmin=_floor(means), vmax=means.max(axis=None))
        for (y, line), (x, column) in product(enumerate(lines), enumerate(columns)):
            arm = lines[line].get(column)
            _cell_of_map(axis, x, y, found.loc[(arm, panel)] if (arm, panel) in found.index else None, means)
            if arm == OWN:
                axis.add_patch(plt.Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, ec="#D55E00", lw=1.8))
        axis.set_title(panel, fontsize="small")
        axis.set_xticks(range(len(columns)), [c.replace("-", "-\n") for c in columns], fontsize="x-small")
        axis.set_yticks(range(len(lines)), list(lines) if i % across == 0 else [], fontsize="small")
        axis.set_xlabel(names[1], fontsize="small")
        if i % across == 0:
            axis.set_ylabel(names[0], fontsize="small")
        axis.grid(visible=False)
    return closed(figure, rows, "mean ± standard deviation over the seeds; framed: the authors' own")


def _floor(means: pd.DataFrame) -> float:
    """The lightest shade stands a little below the least value, so that this one is no white cell."""
    low, high = means.min(axis=None), means.max(axis=None)
    return low - 0.15 * (high - low) - 0.01


def _cell_of_map(axis, x: int, y: int, cell, means: pd.DataFrame) -> None:
    import matplotlib.pyplot as plt

    if cell is None:
        axis.add_patch(plt.Rectangle((x - 0.5, y - 0.5), 1, 1, fc="#F4F4F4", ec="#CCCCCC", hatch="///", lw=0))
        axis.text(x, y, NOT_RUN, ha="center", va="center", fontsize=6.5, color="#444444")
        return
    share = (cell["mean"] - _floor(means)) / (means.max(axis=None) - _floor(means))
    text = f"{cell['mean']:.1f}" + (f"\n±{cell['std']:.1f}" if cell["n"] > 1 else "")
    axis.text(
        x,
        y,
        text,
        ha="center",
        va="center",
        fontsize=7.5,
        color=_readable(plt.get_cmap(SHADING)(share)),
        linespacing=0.95,
    )


def _readable(colour: tuple) -> str:
    """Black or white, whichever stands out more on a colour (WCAG's relative luminance)."""
    red, green, blue = ((c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in colour[:3])
    return "#111111" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "#FFFFFF"


def bars(rows: pd.DataFrame, arms: Mapping[str, str], datasets: Sequence[str], what: str):
    """A group of bars per data set and for their average, a bar per arm, {name: arm}; bars of error: one deviation."""
    import matplotlib.pyplot as plt

    use_style()
    found = cells(rows, list(arms.values()), datasets).set_index(["arm", "dataset"])
    panels = places(datasets)
    figure, axis = plt.subplots(figsize=(WIDTH, 3.0), layout="constrained")
    width = 0.8 / len(arms)
    for i, (name, arm) in enumerate(arms.items()):
        place = [x + width * (i - (len(arms) - 1) / 2) for x in range(len(panels))]
        there = [(x, found.loc[(arm, p)]) for x, p in zip(place, panels, strict=True) if (arm, p) in found.index]
        axis.bar(
            [x for x, _ in there], [c["mean"] for _, c in there], 0.92 * width, yerr=[c["std"] for _, c in there],
            color=SHADES[i % len(SHADES)], hatch=HATCHES[i % len(HATCHES)], linewidth=0.6,
            edgecolor="#333333" if i in (2, 5) else "white",
            error_kw=dict(ecolor="#222222", capsize=2.5, elinewidth=1), label=name if there else f"{name} ({NOT_RUN})",
        )  # fmt: skip
    axis.set(xticks=range(len(panels)), xticklabels=panels, xlim=(-0.5, len(panels) - 0.5))
    axis.set_ylabel("accuracy in percent")
    axis.grid(axis="y", color=GRID)
    axis.grid(axis="x", visible=False)
    figure.legend(
        loc="outside lower center",
        ncols=min(len(arms), 6 if len(found) else 3),
        frameon=False,
        title=what,
        fontsize="small",
    )
    return closed(figure, rows, "mean; bars of error: one standard deviation over the seeds")


def rank_curves(rows: pd.DataFrame, ranks: Sequence[int], datasets: Sequence[str]):
    """Accuracy against the rank, a line per data set and for the average, with bands of one deviation over the seeds."""
    import matplotlib.pyplot as plt

    use_style()
    found = cells(rows, [label(r=r) for r in ranks], datasets)
    figure, axis = plt.subplots(figsize=(WIDTH, 3.2), layout="constrained")
    looks = [("#111111", "o", "-"), ("#0072B2", "s", "--"), ("#D55E00", "^", "-."), ("#009E73", "D", ":")]
    for i, name in enumerate(places(datasets)):
        own = found[found["dataset"] == name].sort_values("r")
        colour, marker, dashes = looks[i % len(looks)]
        axis.errorbar(
            own["r"], own["mean"], own["std"], color=colour, marker=marker, linestyle=dashes, capsize=3, label=name
        )
    axis.axvline(DEFAULT["r"], color="#888888", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(ranks), [str(r) for r in ranks])
    axis.minorticks_off()
    axis.set(xlabel="rank (dashed: the authors' own)", ylabel="accuracy in percent")
    axis.grid(color=GRID)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, handlelength=3.2)
    return closed(figure, rows, "q, k, v of both encoders; bars: one standard deviation over the seeds")


def accuracy_against_numbers(rows: pd.DataFrame, labels: Sequence[str], datasets: Sequence[str]):
    """Every setting: accuracy (of the average, where there are several data sets) against how many numbers are learned."""
    import matplotlib.pyplot as plt

    use_style()
    found = cells(rows, labels, datasets)
    found = found[found["dataset"] == places(datasets)[0]]
    figure, axis = plt.subplots(figsize=(WIDTH, 3.6), layout="constrained")
    for encoder, whole in product(LOOKS, (True, False)):
        own = found[(found["encoder"] == encoder) & ((found["position"] == "all") == whole)]
        if own.empty:
            continue
        marker, colour = LOOKS[encoder]
        axis.errorbar(
            own["parameters"], own["mean"], own["std"], linestyle="", marker=marker, color=colour, capsize=2, elinewidth=0.8,
            mfc=colour if whole else "white", label=f"{encoder}, {'all' if whole else 'some'} blocks",
        )  # fmt: skip
    line = found[(found["params"] == DEFAULT["params"]) & (found["encoder"] == "both") & (found["position"] == "all")]
    line = line.sort_values("parameters")
    axis.plot(line["parameters"], line["mean"], color="#777777", linewidth=1, zorder=0, label="qkv, rank after rank")
    for one in found[found["params"].str.len() == 1].itertuples():
        place = dict(xytext=(-11 if one.params in "qv" else 6, -3), textcoords="offset points", fontsize="x-small")
        axis.annotate(one.params, (one.parameters, one.mean), **place)
    for one in found[found["arm"] == OWN].itertuples():
        place = dict(xytext=(14, -20), textcoords="offset points", arrowprops=dict(arrowstyle="-", color="#333333"))
        axis.annotate("the authors' own", (one.parameters, one.mean), fontsize="small", **place)
    axis.set_xscale("log")
    axis.set(xlabel="numbers learned", ylabel=f"accuracy in percent, {places(datasets)[0]}")
    axis.grid(color=GRID)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return closed(figure, rows, "a point per setting; bars: one standard deviation over the seeds")
