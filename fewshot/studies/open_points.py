"""What the paper of the LLM-text adapter leaves open, with a converter without training: each choice against the default."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import pandas as pd

from fewshot.curves import GRID, WIDTH
from fewshot.grids import grid
from fewshot.intervals import Effect, paired
from fewshot.report import NOT_RUN, Table, _cell, _origin, _shots, use_style
from fewshot.runs import Profile, Run
from fewshot.studies import with_options
from fewshot.studies.differences import average, shown

DEFAULT = "all as by default"
# option: what is tried beside the default
CHOICES = {
    "name_policy": ("mask", "prefix", "require"),
    "texts_from": ("templates",),
    "pick": ("random", "diverse"),
    "shift": (0.0, 0.5, 1.5),
    "match": ("top_t",),
    "text_weight": (0.5, 2.0),
    "mix": ("half",),
    "init": ("zeroshot", "class_mean"),
    "bias": (False,),
    "learn_scale": (True,),
    "select": ("val",),
}


def label(option: str, value) -> str:
    """The arm of a choice, as it is written in code: init="zeroshot"."""
    return f"{option}={value!r}".replace("'", '"')


LABELS = tuple(label(option, value) for option, values in CHOICES.items() for value in values)


def arms(
    profile: Profile, dataset: str, shots: int, seeds: Sequence[int], converter: str = "mean_shift", limit: int | None = None
) -> dict[str, list[Run]]:  # fmt: skip
    """The default and an arm per choice, with this converter."""
    tried = {DEFAULT: {}} | {label(name, value): {name: value} for name, values in CHOICES.items() for value in values}
    return {
        arm: grid(
            "llm_text_adapter",
            ["text_adapter"],
            [dataset],
            [shots],
            seeds,
            with_options(profile, "text_adapter", converter=converter, **options),
            limit=limit,
        )  # fmt: skip
        for arm, options in tried.items()
    }


def change(rows: pd.DataFrame, arm: str) -> Effect:
    """Points over the default, seed by seed, with the 95 % interval."""
    return average(paired(*(rows[rows["arm"] == name] for name in (arm, DEFAULT))))


def changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Every change that is there: columns choice, mean, low, high, n."""
    found = [(arm, change(rows, arm)) for arm in LABELS]
    lines = [(arm, one.mean, one.low, one.high, one.n) for arm, one in found if one.n]
    return pd.DataFrame(lines, columns=["choice", "mean", "low", "high", "n"])


def table(rows: pd.DataFrame) -> Table:
    """A line per choice: accuracy, and points over the default."""
    lines = {}
    for arm in (DEFAULT, *LABELS):
        a = rows[rows["arm"] == arm]["accuracy"]
        over = shown(change(rows, arm)) if arm != DEFAULT else "–"
        accuracy = _cell(a.mean(), a.std(ddof=0), len(a)) if len(a) else NOT_RUN
        lines[arm] = {"accuracy": accuracy, "over the default [95 %]": over}
    found = Table(pd.DataFrame.from_dict(lines, orient="index").rename_axis("choice"))
    part = rows[rows["arm"].isin([DEFAULT, *LABELS])]
    where = ", ".join([*part["dataset"].unique(), *(_shots(k) for k in sorted(part["shots"].unique()))])
    found.caption = (
        f"{where}: mean ± population standard deviation (number of seeds); points over the default, seed by seed. "
    )
    found.caption += _origin(part)
    return found


def statement(rows: pd.DataFrame) -> str:
    """Which choices matter: better than the default, worse, and how many cannot be told from it."""
    sides: dict[str, list[str]] = {"above": [], "below": [], "undecided": []}
    for arm in LABELS:
        one = change(rows, arm)
        if one.n:
            sides[one.against()].append(f"{arm} ({shown(one)})" if one.against() != "undecided" else arm)
    words = {"above": "Better than the default", "below": "Worse", "undecided": "Not told from the default"}
    lines = [f"{words[side]}: {', '.join(found)}." for side, found in sides.items() if found]
    return "\n".join(fill(line, 80, subsequent_indent="  ", break_on_hyphens=False) for line in lines) or NOT_RUN


def figure(rows: pd.DataFrame):
    """Points over the default with their 95 % intervals, a line per choice."""
    import matplotlib.pyplot as plt

    use_style()
    found = changes(rows)
    plate, axis = plt.subplots(figsize=(WIDTH, 0.24 * max(len(found), 3) + 0.9), layout="constrained")
    for y, one in enumerate(found.itertuples(index=False)):
        sure = one.n > 1 and (one.low > 0 or one.high < 0)
        bar = None if one.n < 2 else [[one.mean - one.low], [one.high - one.mean]]
        fill_of = "#0072B2" if sure else "white"
        axis.errorbar(one.mean, y, xerr=bar, fmt="o", color="#0072B2", markerfacecolor=fill_of, capsize=3)
    axis.axvline(0, color="#222222", linewidth=1)
    axis.set(yticks=range(len(found)), yticklabels=list(found["choice"]), xlabel="points over the default")
    axis.grid(axis="x", color=GRID)
    axis.grid(axis="y", visible=False)
    axis.invert_yaxis()
    note = "bars: 95 % interval over the seeds; filled: without 0"
    part = rows[rows["arm"].isin([DEFAULT, *LABELS])]
    axis.set_title(f"{_origin(part, short=True)}; {note}", fontsize="small", color="#444444")
    plt.close(plate)
    return plate
