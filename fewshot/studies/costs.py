"""What accuracy costs: seconds to fit beside accuracy, and the methods that no other beats in both."""

from __future__ import annotations

import pandas as pd

from fewshot.curves import GRID, SIZES, WIDTH, ZERO_SHOT, look
from fewshot.report import Table, _average, _cell, _in_order, _origin, _shots, _title, use_style
from fewshot.rows import Rows
from fewshot.runs import Profile, results_folder

ALONE = "measured one by one"
BESIDE = "measured beside other work on the same processor"


def timed_alone(profile: Profile) -> pd.DataFrame | None:
    """The rows of the experiment on training time, whose seconds were measured one by one, of the profile's own settings.

    None where the project has none.
    """
    path = results_folder() / f"training_time-{profile.name}.jsonl"
    if not path.is_file():
        return None
    rows = Rows(path).frame()
    if rows.empty:
        return None
    usual = [o == profile.methods.get(m, {}) for m, o in rows[["method", "overrides"]].values]
    rows = rows[pd.Series(usual, index=rows.index) & (rows["backbone"] == profile.backbone)]
    for name in ("target", "limit", "selection_asked"):
        rows = rows[rows[name].isna()] if name in rows else rows
    return rows if len(rows) else None


def costs(rows: pd.DataFrame, shots: int, alone: pd.DataFrame | None = None) -> pd.DataFrame:
    """Seconds to fit and accuracy of every method at one number of shots, averaged over data sets; quickest first.

    Columns method, accuracy, accuracy_std, seconds, seconds_std (population, over the seeds' averages), datasets and
    seconds_datasets (numbers of data sets averaged), seeds, front (nobody is quicker and as good, or better and as quick).
    Seconds are those of `alone` where it has every method at these shots, otherwise those of the rows; `measured` says which.
    """
    part = rows[rows["shots"].isin([0, shots])]
    methods = _in_order(part["method"].unique()) if (part["shots"] == shots).any() else []
    datasets = [set(part.loc[part["method"] == m, "dataset"]) for m in methods]
    common = sorted(set.intersection(*datasets)) if datasets else []
    timed, how = part, BESIDE
    if alone is not None:
        own = alone[alone["shots"].isin([0, shots])]
        if set(methods) <= set(own["method"]):
            timed, how = own, ALONE
    where = [set(timed.loc[timed["method"] == m, "dataset"]) for m in methods]
    there = sorted(set.intersection(*where)) if where else []
    if how == ALONE and there != common:
        how += f" on {', '.join(there) if len(there) < 3 else f'{len(there)} data sets'}"
    lines = []
    for method in methods if common and there else []:
        own, clock = part[part["method"] == method], timed[timed["method"] == method]
        accuracy, accuracy_std, n = _average(own, common)
        seconds, seconds_std, _ = _average(clock.assign(accuracy=clock["seconds_fit"]), there)
        lines.append((method, accuracy, accuracy_std, seconds, seconds_std, len(common), len(there), n, how))
    columns = ["method", "accuracy", "accuracy_std", "seconds", "seconds_std", "datasets", "seconds_datasets", "seeds"]
    frame = pd.DataFrame(lines, columns=[*columns, "measured"]).sort_values("seconds", kind="stable", ignore_index=True)
    return frame.assign(front=front(frame["seconds"], frame["accuracy"]))


def front(cost: pd.Series, gain: pd.Series) -> list[bool]:
    """Of each point, whether no other one costs as little and gains more, or costs less and gains as much."""
    points = list(zip(cost, gain, strict=True))
    return [not any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points) for cost, gain in points]


def cost_table(found: pd.DataFrame, rows: pd.DataFrame, shots: int) -> Table:
    """The lines of `costs`, quickest first; methods on the front are bold."""
    table = Table(
        {
            "seconds to fit": [_seconds(one.seconds, one.seconds_std, one.seeds) for one in found.itertuples()],
            "accuracy": [_cell(one.accuracy, one.accuracy_std, one.seeds) for one in found.itertuples()],
            "on the front": ["yes" if one.front else "no" for one in found.itertuples()],
        },
        index=[_title(m) for m in found["method"]],
    )
    table.index.name = "method"
    table.marks = {(_title(one.method), "accuracy"): "strong" for one in found.itertuples() if one.front}
    if len(found):
        one = found.iloc[0]
        table.caption = (
            f"{_shots(shots)} per class. Accuracy in percent over {one['datasets']} data sets; seconds to fit over "
            f"{one['seconds_datasets']}, {one['measured']}: means ± population standard deviation over the seeds (number of "
            f"seeds). On the front: no other method is as quick and better, or quicker and as good. {_origin(rows)}"
        )
    return table


def cost_figure(found: pd.DataFrame, rows: pd.DataFrame, shots: int):
    """Accuracy against seconds to fit, seconds on a logarithmic axis; the line joins the front. None without a line."""
    import matplotlib.pyplot as plt

    from fewshot.curves import spread

    if found.empty:
        return None
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    best = found[found["front"]].sort_values("seconds")
    axis.plot(best["seconds"], best["accuracy"], drawstyle="steps-post", color="#222222", linewidth=1, zorder=1)
    for one in found.itertuples():
        style, colour = look(one.method), ZERO_SHOT if one.method == "zero_shot" else look(one.method).colour
        several = one.seeds > 1
        bar = min(one.seconds_std, 0.95 * one.seconds) if several else None  # a logarithmic axis has no 0
        axis.errorbar(
            one.seconds, one.accuracy, one.accuracy_std if several else None, bar, color=colour, marker=style.marker,
            markersize=1.2 * SIZES.get(style.marker, 6.5), capsize=2, elinewidth=1, zorder=3, markeredgewidth=1.2,
            markeredgecolor="#000000" if one.front else "white",
        )  # fmt: skip
    axis.set(xscale="log", xlabel=f"seconds to fit, {found['measured'].iloc[0]}", ylabel="accuracy in percent")
    left, right = axis.get_xlim()
    low, high = axis.get_ylim()
    order = found.sort_values("accuracy")
    places = spread(list(order["accuracy"]), (high - low) * 0.052, low, high)
    wide = (right / left) ** 0.04
    for one, height in zip(order.itertuples(), places, strict=True):
        colour = ZERO_SHOT if one.method == "zero_shot" else look(one.method).colour
        axis.plot([one.seconds, right, right * wide], [one.accuracy, one.accuracy, height], color=colour, linewidth=0.4,
                  linestyle=":", clip_on=False, zorder=1)  # fmt: skip
        name = _title(one.method)
        axis.text(right * wide * 1.05, height, name, color=colour, va="center", fontsize="small",
                  fontweight="bold" if one.front else "normal")  # fmt: skip
    axis.set(xlim=(left, right), ylim=(low, high))
    axis.grid(color=GRID)
    words = f"{_shots(shots)}; line, black edge and bold: the front; bars: population std over seeds"
    figure.suptitle(f"{_origin(rows, short=True)}, {words}", fontsize="small", color="#444444")
    plt.close(figure)
    return figure


def _seconds(mean: float, std: float, n: int) -> str:
    digits = 2 if mean < 1 else 1
    return f"{mean:.{digits}f} ± {std:.{digits}f} ({n})" if n > 1 else f"{mean:.{digits}f} ({n})"
