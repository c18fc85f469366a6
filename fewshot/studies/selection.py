"""Settings that no gradient reaches: what choosing them on validation pictures buys, and what the test set adds.

The differences themselves are made in `fewshot.studies.optimism`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from fewshot.curves import GRID, SIZES, WIDTH, ZERO_SHOT, look
from fewshot.grids import grid
from fewshot.intervals import Effect, t_interval
from fewshot.methods import get_method
from fewshot.report import NOT_RUN, TITLES, Table, _average, _cell, _origin, _shots, _signed, literal, use_style
from fewshot.runs import SELECTIONS, Profile, Run
from fewshot.studies import datasets_of
from fewshot.studies.differences import average, shown
from fewshot.studies.method_table import ALL_CLASS
from fewshot.studies.optimism import (
    GAIN,
    NAMES,
    OPTIMISM,
    averages,
    change,
    differences,
    label,
    margins,
    oracle_below,
    over_methods,
    points,
)

SHOTS = (1, 4, 16)
MARKS = (("o", "#D55E00", "#D55E00"), ("s", "none", "#0072B2"), ("^", "#111111", "#111111"), ("D", "none", "#666666"))


# the runs


def choosers() -> tuple[str, ...]:
    """The methods that have something to choose: those whose class has a `choose` of its own."""
    from fewshot.methods.method import Method

    return tuple(name for name in ALL_CLASS if get_method(name).choose is not Method.choose)


def arms(
    profile: Profile,
    methods: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = (1, 2, 3),
    limit: int | None = None,
) -> dict[str, list[Run]]:
    """An arm per method and way of choosing; `methods` None: all that choose. The names of all three ways are written
    out, so that no row of another experiment (which leaves the way open) stands for one of them."""
    methods = choosers() if methods is None else list(methods)
    datasets = datasets_of(profile) if datasets is None else list(datasets)
    return {
        label(method, how): grid("selection", [method], datasets, shots, seeds, profile, selection=how, limit=limit)
        for method in methods
        for how in SELECTIONS
    }


# tables


def choice_table(rows: pd.DataFrame, shots: int, methods: Sequence[str], datasets: Sequence[str]) -> Table:
    """A line per method: its average accuracy by each way of choosing, then gain and optimism with their intervals."""
    part, lines = rows[rows["shots"] == shots], {}
    for method in methods:
        lines[TITLES[method]] = line = {}
        for how in SELECTIONS:
            own = part[part["arm"] == label(method, how)]
            covered = [d for d in datasets if d in set(own["dataset"])]
            line[how] = _cell(*_average(own, covered)) if covered else NOT_RUN
            if 0 < len(covered) < len(datasets):
                line[how] += f", {len(covered)} of {len(datasets)} sets"
        for pair in (GAIN, OPTIMISM):
            line[NAMES[pair]] = shown(average(change(part, method, pair)))
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "method"
    table.caption = (
        f"{_shots(shots)} per class, average over {_count(datasets, 'data set')}: accuracy in percent, mean ± population "
        "standard deviation over the seeds (number of seeds); differences in points [95 % interval of Student's t over "
        f"the data sets]. {_origin(part)}"
    )
    return table


def places(
    rows: pd.DataFrame, table_rows: pd.DataFrame, shots: int, methods: Sequence[str], datasets: Sequence[str]
) -> Table:
    """Which place a method takes among all of the method table, once by fewval and once by oracle, the others unchanged.

    `table_rows` are the method table's: each method as its own rule chooses. Methods that lack one of `datasets` do not
    count. The margin is that from the method's fewval average to the next better method.
    """
    others = averages(table_rows[table_rows["shots"].isin([0, shots])], "method", datasets)
    own = averages(rows[rows["shots"] == shots], "arm", datasets)
    lines = {}
    for method in methods:
        rest = others.drop(index=method, errors="ignore")
        found = [own.get(label(method, how), float("nan")) for how in ("fewval", "oracle")]
        line = {}
        for how, value in zip(("fewval", "oracle"), found, strict=True):
            there = value == value and len(rest)
            line[how] = f"{value:.1f}" if value == value else NOT_RUN
            line[f"place by {how}"] = str(1 + int((rest > value).sum())) if there else NOT_RUN
        better = rest[rest > found[0]]
        known = found[0] == found[0] and len(rest)
        line["margin to the next better"] = (
            NOT_RUN
            if not known
            else f"{better.min() - found[0]:.1f} ({TITLES[better.idxmin()]})"
            if len(better)
            else "–"
        )
        line["optimism"] = _signed(found[1] - found[0])
        lines[TITLES[method]] = line
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "method"
    among = f"{len(others)} methods" if len(others) else "no method of the method table that was run"
    table.caption = (
        f"{_shots(shots)} per class, averages over {_count(datasets, 'data set')} and the seeds, in percent: the place "
        f"among {among}, when the method of the line alone chooses on the test set. {_origin(rows)}"
    )
    return table


def margin_table(
    rows: pd.DataFrame,
    table_rows: pd.DataFrame,
    published: pd.DataFrame,
    shots: Sequence[int],
    methods: Sequence[str],
    datasets: Sequence[str],
) -> Table:
    """Optimism beside the distances between neighbouring methods, here and in a published table (`published.published`)."""
    lines = {}
    for k in shots:
        here = margins(averages(table_rows[table_rows["shots"].isin([0, k])], "method", datasets))
        paper = published[published["shots"].isin([0, k]) & (published["dataset"] == "average")]
        paper = paper if (paper["shots"] == k).any() else paper[:0]
        theirs = margins(paper.set_index("variant")["top1"])
        found = {m: average(change(rows, m, OPTIMISM, k)).mean for m in methods}
        found = {m: value for m, value in found.items() if value == value}
        mean = sum(found.values()) / len(found) if found else float("nan")
        largest = max(found, key=found.get) if found else None
        closer = f"{(here < mean).sum()} of {len(here)}" if found and len(here) else NOT_RUN
        lines[_shots(k)] = {
            "optimism, mean of the methods": _signed(mean),
            "the largest": f"{_signed(found[largest])} ({TITLES[largest]})" if largest else NOT_RUN,
            "median margin between neighbours": f"{here.median():.1f}" if len(here) else NOT_RUN,
            "neighbours closer than the mean optimism": closer,
            "median margin, published": f"{theirs.median():.1f} ({len(paper)} methods)" if len(theirs) else "–",
        }
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "shots"
    table.caption = (
        f"Points. Margins are between neighbours when methods are ordered by their average over "
        f"{_count(datasets, 'data set')}. {_origin(rows)} Published: CLIP-LoRA table 2, ViT-B/16, eleven real data sets."
    )
    return table


def way_table(found: pd.DataFrame, what: str) -> Table:
    """The lines of `ways` of several seeds: mean ± deviation, and what each adds to fewval. `what` begins the caption."""
    few = found[found["way"].str.endswith("fewval")].set_index("seed")["accuracy"]
    lines = {}
    for way, own in found.groupby("way", sort=False):
        a = own.set_index("seed")["accuracy"]
        added = (a - few).dropna()
        lines[way] = {
            "pictures": str(int(own["pictures"].iloc[0])),
            "accuracy": _cell(a.mean(), a.std(ddof=0), len(a)),
            "over fewval": "–" if way.endswith("fewval") else shown(Effect(*t_interval(added), len(added), "seeds")),
        }
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "chosen on"
    table.caption = (
        f"{what}: accuracy in percent, mean ± population standard deviation (number of seeds); difference in points "
        "[95 % interval over the seeds]. Measured by this page."
    )
    return table


# sentences


def statement(rows: pd.DataFrame, methods: Sequence[str], shots: Sequence[int]) -> str:
    """What validation buys and what the test set adds at each number of shots, and who cannot be trusted to look everywhere."""
    said = []
    for k in shots:
        there = [m for m in methods if average(change(rows, m, OPTIMISM, k)).n]
        if not there:
            said.append(f"{_shots(k)}: not run.")
            continue
        effects = {m: average(change(rows, m, OPTIMISM, k)) for m in there}
        most = max(effects, key=lambda m: effects[m].mean)
        above = sum(one.against(0) == "above" for one in effects.values())
        said.append(
            f"{_shots(k)}: choosing on the test set adds {_over(rows, OPTIMISM, k, there)} points on average over "
            f"{_count(there, 'method')}, most to {TITLES[most]} ({shown(effects[most])}); the interval is above 0 for "
            f"{above} of {len(there)}."
        )
        gains = {m: average(change(rows, m, GAIN, k)) for m in there}
        gains = {m: one for m, one in gains.items() if one.n}
        if gains:
            up, down = (sum(g.against(0) == side for g in gains.values()) for side in ("above", "below"))
            said.append(
                f"{_shots(k)}: choosing on validation pictures gains {_over(rows, GAIN, k, gains)} points over fixed "
                f"settings; surely more than nothing for {up} of {_count(gains, 'method')}, surely less for {down}."
            )
    worse = {m: oracle_below(rows, m, shots) for m in methods}
    worse = {m: pair for m, pair in worse.items() if pair[0]}
    if worse:
        each = ", ".join(f"{TITLES[m]} in {low} of {n}" for m, (low, n) in worse.items())
        said.append(f"The oracle is below fewval in single runs: {each}. Their search does not look everywhere.")
    return "\n".join(said)


def noise(rows: pd.DataFrame) -> str:
    """How much an accuracy on tests of this size is uncertain by the draw of the test pictures alone, in a sentence."""
    if rows.empty:
        return "Nothing was run, so nothing can be said."
    few, many = int(rows["n_test"].min()), int(rows["n_test"].max())
    errors = [50 / n**0.5 for n in (few, many)]
    return (
        f"The tests have {few} to {many} pictures: the standard error of an accuracy near 50 % is {errors[0]:.1f} to "
        f"{errors[1]:.1f} points; on 50,000 pictures it is {50 / 50_000**0.5:.1f}."
    )


# figures


def difference_curves(rows: pd.DataFrame, methods: Sequence[str], shots: Sequence[int]):
    """Gain and optimism against the number of shots, a line per method with 95 % intervals over the data sets.

    Returns the matplotlib Figure (closed: a notebook shows it once).
    """
    import matplotlib.pyplot as plt

    use_style()
    found = differences(rows, methods, shots)
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6), layout="constrained")
    for axis, pair in zip(axes, (GAIN, OPTIMISM), strict=True):
        part = found[found["difference"] == NAMES[pair]]
        for i, method in enumerate(methods):
            own, style = part[part["method"] == TITLES[method]], look(method)
            x = [shots.index(k) + 0.1 * (i - (len(methods) - 1) / 2) for k in own["shots"]]
            bars = [(own["mean"] - own["low"]).replace(np.inf, 0), (own["high"] - own["mean"]).replace(np.inf, 0)]
            axis.errorbar(
                x, own["mean"], bars, color=style.colour, marker=style.marker, linestyle=style.dashes, capsize=2,
                linewidth=1.2, markersize=SIZES.get(style.marker, 6.5), label=TITLES[method],
            )  # fmt: skip
        axis.axhline(0, color=ZERO_SHOT, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
        axis.set(title=NAMES[pair], xlabel="training images per class")
        axis.set_xticks(range(len(shots)), [str(k) for k in shots])
        axis.grid(axis="y", color=GRID)
        axis.grid(axis="x", visible=False)
    axes[0].set_ylabel("points")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, handlelength=3
    )
    count = rows["dataset"].nunique() if len(rows) else 0
    over = (
        f"mean over {count} data sets with its 95 % interval"
        if count > 1
        else "mean with its 95 % interval over the seeds"
    )
    title = f"{over}, {_origin(rows, short=True)}"
    figure.suptitle(title, fontsize="small", color="#444444")
    plt.close(figure)
    return figure


def dataset_dots(rows: pd.DataFrame, methods: Sequence[str], shots: Sequence[int], datasets: Sequence[str]):
    """Optimism, a panel per method and a line per data set: a marker per number of shots, ± one deviation over the seeds.

    Returns the matplotlib Figure (closed: a notebook shows it once).
    """
    import matplotlib.pyplot as plt

    use_style()
    found = points(rows, methods, shots)
    found = found[found["difference"] == NAMES[OPTIMISM]]
    columns = min(3, len(methods))
    lines = -(-len(methods) // columns)
    size = (WIDTH, lines * (0.3 * max(len(datasets), 3) + 0.7) + 0.8)
    figure, axes = plt.subplots(
        lines, columns, figsize=size, squeeze=False, sharey=True, sharex=True, layout="constrained"
    )
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    for place, (axis, method) in enumerate(zip(axes.flat, methods, strict=False)):
        own = found[found["method"] == TITLES[method]]
        for i, k in enumerate(shots):
            part, (marker, face, colour) = own[own["shots"] == k], MARKS[i % len(MARKS)]
            y = [datasets.index(d) + 0.24 * (i - (len(shots) - 1) / 2) for d in part["dataset"]]
            axis.errorbar(
                part["mean"], y, xerr=part["std"], linestyle="", marker=marker, mfc=face, mec=colour, color=colour,
                capsize=1.5, linewidth=1, markersize=4.5, label=_shots(k),
            )  # fmt: skip
        if own.empty:
            axis.text(0.5, 0.5, NOT_RUN, transform=axis.transAxes, ha="center", color="#666666", fontsize="small")
        axis.axvline(0, color=ZERO_SHOT, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
        axis.set(title=TITLES[method], yticks=range(len(datasets)))
        axis.set_yticklabels([literal(d.removeprefix("toy/")) for d in datasets])
        axis.grid(color=GRID)
        if place + columns >= len(methods):
            axis.set_xlabel("points")
            axis.tick_params(labelbottom=True)
    axes[0][0].set_ylim(len(datasets) - 0.5, -0.5)
    handles, texts = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(shots), frameon=False)
    seeds = rows["seed"].nunique() if len(rows) else 0
    title = f"{NAMES[OPTIMISM]}, mean ± population standard deviation of {seeds} seeds, {_origin(rows, short=True)}"
    figure.suptitle(title, fontsize="small", color="#444444")
    plt.close(figure)
    return figure


# small things


def _over(rows: pd.DataFrame, pair: tuple[str, str], shots: int, methods: Iterable[str]) -> str:
    return shown(average(over_methods(rows, pair, shots, methods)))


def _count(things, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
