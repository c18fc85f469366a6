"""How sure a difference of two methods is: intervals over data sets and over seeds, and what the seeds alone do.

Rows are those of `studies.measured`, with the column arm: a method's title.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from fewshot.curves import GRID, SIZES, WIDTH, look
from fewshot.intervals import Effect, bootstrap_interval, noise, paired
from fewshot.report import NOT_RUN, Table, _origin, _shots, use_style
from fewshot.studies.differences import shown
from fewshot.studies.rank_report import METHOD_OF, nothing


def interval_numbers(rows: pd.DataFrame, shots: Sequence[int], against: str) -> pd.DataFrame:
    """Each method minus `against`, averaged over data sets, with two bootstrap intervals of 95 %: other data sets, other seeds.

    Columns shots, method, average (percent, over the data sets that both have), difference, low_datasets, high_datasets,
    low_seeds, high_seeds (points), datasets, seeds.
    """
    lines = []
    for k in shots:
        part = rows[rows["shots"].isin([0, k])]
        by_arm = dict(list(part.groupby("arm", sort=False)))
        if against not in by_arm or not (part["shots"] == k).any():
            continue
        for arm, own in by_arm.items():
            table = paired(own, by_arm[against])
            if not table.size:
                continue
            average = own[own["dataset"].isin(table.index)].groupby("dataset")["accuracy"].mean().mean()
            datasets = bootstrap_interval([table.mean(axis=1)])
            seeds = bootstrap_interval([line.dropna() for _, line in table.iterrows()])
            lines.append((k, arm, average, *datasets, *seeds[1:], len(table), int(table.notna().sum(axis=1).min())))
    columns = ["shots", "method", "average", "difference", "low_datasets", "high_datasets", "low_seeds", "high_seeds"]
    return pd.DataFrame(lines, columns=[*columns, "datasets", "seeds"])


def interval_table(numbers: pd.DataFrame, rows: pd.DataFrame, shots: int, against: str) -> Table:
    """The lines of `interval_numbers` at one number of shots, the best average first."""
    part = numbers[numbers["shots"] == shots].sort_values("average", ascending=False, kind="stable")
    if part.empty:
        return nothing(f"{against} at {_shots(shots)}")
    cells, marks = {}, {}
    for one in part.itertuples(index=False):
        both = {
            "other data sets?": Effect(one.difference, one.low_datasets, one.high_datasets, one.datasets, "data sets"),
            "other pictures and seeds?": Effect(one.difference, one.low_seeds, one.high_seeds, one.seeds, "seeds"),
        }
        cells[one.method] = {"average": f"{one.average:.1f}", "data sets": str(one.datasets)}
        cells[one.method] |= {name: "–" if one.method == against else shown(e) for name, e in both.items()}
        marks |= {(one.method, name): "strong" for name, e in both.items() if e.against() in ("above", "below")}
    table = Table(pd.DataFrame.from_dict(cells, orient="index"))
    table.index.name, table.marks = "method", marks
    table.caption = (
        f"Average accuracy in percent, {_shots(shots)}; then the difference to {against} in points with a 95 % bootstrap "
        f"interval, once over data sets, once over seeds. Bold: the interval leaves out 0. {_origin(rows)}"
    )
    return table


def interval_figure(numbers: pd.DataFrame, rows: pd.DataFrame, against: str):
    """Each method minus `against`: a thick bar for other seeds, a thin one with caps for other data sets; a panel per shots."""
    import matplotlib.pyplot as plt

    if numbers.empty:
        return None
    use_style()
    shots = list(dict.fromkeys(numbers["shots"]))
    last = numbers[(numbers["shots"] == shots[-1]) & (numbers["method"] != against)]
    labels = list(last.sort_values("difference", ascending=False)["method"])
    labels += [m for m in dict.fromkeys(numbers["method"]) if m not in labels and m != against]
    figure, axes = plt.subplots(
        1,
        len(shots),
        figsize=(WIDTH, 0.25 * max(4, len(labels)) + 1.2),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, k in zip(axes[0], shots, strict=True):
        part = numbers[numbers["shots"] == k].set_index("method")
        for y, label in enumerate(labels):
            if label not in part.index:
                axis.text(0, y, NOT_RUN, va="center", ha="center", color="#666666", fontsize="x-small")
                continue
            one, style = part.loc[label], look(METHOD_OF.get(label, label))
            if np.isfinite(one["low_seeds"]):
                axis.plot([one["low_seeds"], one["high_seeds"]], [y, y], color=style.colour, linewidth=5, alpha=0.45)
            if np.isfinite(one["low_datasets"]):
                bar = [[one["difference"] - one["low_datasets"]], [one["high_datasets"] - one["difference"]]]
                axis.errorbar(one["difference"], y, xerr=bar, color="#333333", capsize=2.5, linewidth=1)
            axis.plot(
                one["difference"], y, marker=style.marker, color=style.colour, zorder=3,
                markersize=SIZES.get(style.marker, 6.5), markeredgecolor="white", markeredgewidth=0.5,
            )  # fmt: skip
        axis.axvline(0, color="#666666", linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
        axis.set(title=_shots(k), yticks=range(len(labels)), yticklabels=labels)
        axis.grid(axis="x", color=GRID)
        axis.grid(axis="y", visible=False)
    axes[0][0].invert_yaxis()
    axes[0][len(shots) // 2].set_xlabel(f"points over {against}")
    bars = [("thin: 95 % over data sets", 1, 1), ("thick: 95 % over seeds", 5, 0.45)]
    handles = [plt.Line2D([], [], color="#333333", linewidth=w, alpha=a, label=text) for text, w, a in bars]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(_origin(rows, short=True), fontsize="small", color="#444444")
    plt.close(figure)
    return figure


# what the seeds do


def tables(rows: pd.DataFrame, shots: int) -> dict[str, pd.DataFrame]:
    """Accuracies arm x seed of every data set at one number of shots, of the trained methods that have all of its seeds.

    Data sets with fewer seeds than the others are left out.
    """
    part = rows[rows["shots"] == shots]
    found = {}
    for dataset, own in part.groupby("dataset"):
        table = own.pivot_table(index="arm", columns="seed", values="accuracy").dropna()
        if min(table.shape) > 1:
            found[dataset] = table
    most = max((table.shape[1] for table in found.values()), default=0)
    return {dataset: table for dataset, table in found.items() if table.shape[1] == most}


def gaps(found: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """How far any two methods are apart on a data set, by their means over the seeds: dataset, one, other, gap (points, >= 0)."""
    means = {dataset: table.mean(axis=1) for dataset, table in found.items()}
    lines = [(d, a, b, abs(m[a] - m[b])) for d, m in means.items() for a, b in combinations(m.index, 2)]
    return pd.DataFrame(lines, columns=["dataset", "one", "other", "gap"])


def gap_numbers(rows: pd.DataFrame, shots: Sequence[int]) -> pd.DataFrame:
    """The data of the figure of gaps: `gaps` at every number of shots, with a column `shots`."""
    return pd.concat([gaps(tables(rows, k)).assign(shots=k) for k in shots], ignore_index=True)


def noise_numbers(rows: pd.DataFrame, shots: Sequence[int]) -> pd.DataFrame:
    """The components of the noise, a line per number of shots: all in points.

    Columns shots, datasets, seeds, between_methods, seed_common, seed_rest, one_method_over_seeds, least_same_draws,
    least_other_draws, and share_closer: of all pairs of methods on a data set, those closer than least_same_draws, percent.
    """
    lines = []
    for k in shots:
        found = tables(rows, k)
        one = noise(list(found.values()))
        if one is not None:
            least = one.least()
            lines.append((k, len(found), one.seeds, one.method, one.seed, one.rest, one.spread, least, one.least(False),
                          100 * (gaps(found)["gap"] < least).mean()))  # fmt: skip
    columns = ["shots", "datasets", "seeds", "between_methods", "seed_common", "seed_rest", "one_method_over_seeds"]
    return pd.DataFrame(lines, columns=[*columns, "least_same_draws", "least_other_draws", "share_closer"])


def noise_table(rows: pd.DataFrame, shots: Sequence[int]) -> Table:
    """The components of the noise as a table, a line per number of shots."""
    numbers = noise_numbers(rows, shots)
    if numbers.empty:
        return nothing("two methods with two seeds on a data set")
    names = {
        "between_methods": "between methods", "one_method_over_seeds": "one method over seeds",
        "seed_common": "of it common to all methods", "seed_rest": "the method's own",
        "least_same_draws": "told apart above, same seeds", "least_other_draws": "told apart above, other seeds",
    }  # fmt: skip
    cells = {name: [f"{value:.1f}" for value in numbers[column]] for column, name in names.items()}
    cells["pairs closer than that"] = [f"{value:.0f} %" for value in numbers["share_closer"]]
    table = Table(cells, index=[_shots(k) for k in numbers["shots"]])
    table.index.name = "shots"
    table.caption = (
        "Standard deviations (n − 1) in points on one data set, pooled over trained methods and "
        f"{_either(numbers['datasets'])} data sets; {_either(numbers['seeds'])} seeds. Told apart above: the least difference "
        "of two methods' means over the seeds that Student's t calls one at the 5 % level, when both learned from the same "
        f"draws and when they did not. Pairs closer than the first of the two: of all pairs on all data sets. {_origin(rows)}"
    )
    return table


def least_numbers(rows: pd.DataFrame, shots: Sequence[int]) -> pd.DataFrame:
    """The least difference that can be told from 0 by data set, in points.

    Columns dataset, shots, seeds, methods, same_draws, other_draws.
    """
    lines = []
    for k in shots:
        for dataset, table in tables(rows, k).items():
            one = noise([table])
            lines.append((dataset, k, one.seeds, len(table), one.least(), one.least(False)))
    return pd.DataFrame(lines, columns=["dataset", "shots", "seeds", "methods", "same_draws", "other_draws"])


def least_table(rows: pd.DataFrame, shots: Sequence[int]) -> Table:
    """Differences smaller than this cannot be told apart, by data set and shots; all of them pooled in the first line."""
    numbers = least_numbers(rows, shots)
    pooled = noise_numbers(rows, shots).set_index("shots")["least_same_draws"]
    if numbers.empty:
        return nothing("two methods with two seeds on a data set")
    each = numbers.pivot(index="dataset", columns="shots", values="same_draws")
    lines = {"all, pooled": [f"{pooled[k]:.1f}" for k in each.columns]}
    lines |= {
        name: [NOT_RUN if v != v else f"{v:.1f}" for v in line]
        for name, line in zip(each.index, each.to_numpy(), strict=True)
    }
    table = Table(pd.DataFrame.from_dict(lines, orient="index", columns=[_shots(k) for k in each.columns]))
    table.index.name = "data set"
    table.caption = (
        f"Points: two methods that are closer than this on the data set, by their means over {_either(numbers['seeds'])} shared "
        "seeds, cannot be told apart at the 5 % level (Student's t, deviation pooled over "
        f"{_either(numbers['methods'])} methods). {_origin(rows)}"
    )
    return table


def gap_figure(rows: pd.DataFrame, shots: Sequence[int]):
    """How far two methods are apart on a data set: the share of all pairs that are closer than x, a panel per shots.

    Hatched: too close to be told apart. Returns the matplotlib Figure (closed), or None without two methods and two seeds.
    """
    import matplotlib.pyplot as plt

    found = {k: tables(rows, k) for k in shots}
    found = {k: own for k, own in found.items() if own}
    if not found:
        return None
    use_style()
    lines = -(-len(found) // 3)
    figure, axes = plt.subplots(
        lines, min(3, len(found)), figsize=(WIDTH, 2.3 * lines + 0.6), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    right = max(1.0, *(float(gaps(own)["gap"].quantile(0.95)) for own in found.values()))
    right = max(right, *(1.5 * noise(list(own.values())).least() for own in found.values()))
    for axis, (k, own) in zip(axes.flat, found.items(), strict=False):
        values, least = np.sort(gaps(own)["gap"]), noise(list(own.values())).least()
        share = 100 * np.arange(1, len(values) + 1) / len(values)
        x, y = np.r_[0, values], np.r_[0, share]
        axis.fill_between(
            x, y, step="post", where=x <= least, facecolor="#D7E3EF", edgecolor="#5B84AB", hatch="////", linewidth=0
        )
        axis.step(x, y, where="post", color="#10315E", linewidth=1.8)
        axis.axvline(least, color="#222222", linestyle=(0, (4, 3)), linewidth=1.2)
        words = f"{least:.1f} points:\n{100 * (values < least).mean():.0f} % are closer"
        axis.text(0.97, 0.05, words, transform=axis.transAxes, ha="right", fontsize="small")
        axis.set(title=_shots(k), xlim=(0, right), ylim=(0, 102))
        axis.grid(color=GRID)
    figure.supylabel("percent of all pairs", fontsize="small")
    figure.supxlabel("closer than ... points, two methods on one data set", fontsize="small")
    title = "dashed: least difference that can be told from 0"
    figure.suptitle(f"{_origin(rows, short=True)}; {title}", fontsize="small", color="#444444")
    plt.close(figure)
    return figure


def _either(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"
