"""Equation (4) corrected and as printed, by the length of the converter's training.

With the corrected loss a converter that puts every sentence at one point, at a right angle to all pictures, pays 1 for each
of its N pairs and nothing for the others: 1 / N in all. To come below that it has to tell the sentences apart; a training
that ends there is too short, whatever its accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import pandas as pd

from fewshot.curves import GRID, WIDTH, ZERO_SHOT
from fewshot.grids import grid
from fewshot.intervals import Effect, paired
from fewshot.report import NOT_RUN, Table, _cell, _is_toy, _origin, _shots, use_style
from fewshot.runs import Profile, Run
from fewshot.studies import with_options
from fewshot.studies.differences import average, shown

LENGTHS = (300, 1000, 2000)  # steps of stage 1; the paper's settings have 2000 at least
TOY_LENGTHS = LENGTHS[:2]
MARGIN = 0.01  # by which share a training has to end below the level to count as one: the loss goes up and down
LOSSES = {"swapped": "corrected", "printed": "as printed"}
STYLES = {"swapped": ("#0072B2", "o", "-"), "printed": ("#A84800", "s", (0, (4, 2)))}


def label(loss: str, steps: int) -> str:
    """The arm of a loss after so many steps."""
    return f"{LOSSES[loss]}, {steps} steps"


def arms(
    profile: Profile, datasets: Sequence[str], shots: int, seeds: Sequence[int], lengths: Sequence[int] = LENGTHS,
    limit: int | None = None,
) -> dict[str, list[Run]]:  # fmt: skip
    """An arm per loss and number of steps; the profile's Q-Former."""
    found = {}
    for loss in LOSSES:
        for steps in lengths:
            options = {"converter_steps": steps} | ({} if loss == "swapped" else {"loss": loss})
            own = with_options(profile, "text_adapter", **options)
            found[label(loss, steps)] = grid(
                "llm_text_adapter", ["text_adapter"], datasets, [shots], seeds, own, limit=limit
            )
    return found


def lead(rows: pd.DataFrame, dataset: str, steps: int) -> Effect:
    """Points by which the corrected loss is ahead of the printed one, seed by seed, with its interval."""
    own = rows[rows["dataset"] == dataset]
    return average(paired(*(own[own["arm"] == label(loss, steps)] for loss in LOSSES)))


def leads(rows: pd.DataFrame, datasets: Sequence[str], lengths: Sequence[int] = LENGTHS) -> pd.DataFrame:
    """Every lead: columns dataset, steps, mean, low, high, n; those that are there."""
    found = [(name, steps, lead(rows, name, steps)) for name in datasets for steps in lengths]
    lines = [(name, steps, one.mean, one.low, one.high, one.n) for name, steps, one in found if one.n]
    return pd.DataFrame(lines, columns=["dataset", "steps", "mean", "low", "high", "n"])


def table(rows: pd.DataFrame, datasets: Sequence[str], alone: str, lengths: Sequence[int] = LENGTHS) -> Table:
    """A line per data set and length: both losses and the lead; `alone` is the arm of pictures without sentences."""
    lines = {}
    arms = {loss: [label(loss, steps) for steps in lengths] for loss in LOSSES}
    there = rows[rows["arm"].isin(arms["swapped"] + arms["printed"])]
    for name in datasets:
        own = rows[rows["dataset"] == name]
        for steps in lengths:
            line = {what: _accuracy(own[own["arm"] == label(loss, steps)]) for loss, what in LOSSES.items()}
            line["corrected − as printed [95 %]"] = shown(lead(rows, name, steps))
            line["trained"] = share(own[own["arm"] == label("swapped", steps)])
            line["pictures alone"] = _accuracy(own[(own["arm"] == alone) & own["shots"].isin(there["shots"])])
            lines[f"{name}, {steps} steps"] = line
    found = Table(pd.DataFrame.from_dict(lines, orient="index").rename_axis("data set, stage 1"))
    shots = ", ".join(_shots(k) for k in sorted(there["shots"].unique()))
    found.caption = (
        f"Accuracy in percent with converted sentences, {shots}: mean ± population standard deviation (number of seeds); the "
        "difference in points, seed by seed, with its 95 % interval. Trained: how many trainings of the corrected loss ended "
        f"below what being near no picture costs. {_origin(there)}"
    )
    return found


def _accuracy(rows: pd.DataFrame) -> str:
    a = rows["accuracy"]
    return _cell(a.mean(), a.std(ddof=0), len(a)) if len(a) else NOT_RUN


def statement(rows: pd.DataFrame, datasets: Sequence[str], lengths: Sequence[int] = LENGTHS) -> str:
    """A sentence per data set: after how many steps the corrected loss is ahead, behind, or neither for certain."""
    words = {"above": "ahead", "below": "behind", "undecided": "neither ahead nor behind for certain"}
    lines = []
    for name in datasets:
        said: dict[str, list[str]] = {}
        for steps in lengths:
            one = lead(rows, name, steps)
            said.setdefault(words[one.against()] if one.n else NOT_RUN, []).append(
                f"{steps} steps ({shown(one)}, {one.n} seeds)" if one.n else f"{steps} steps"
            )
        toy = " (toy)" if _is_toy("", name) else ""
        each = "; ".join(f"{what} after {', '.join(places)}" for what, places in said.items())
        lines.append(f"{name}{toy}, the corrected loss against the printed one: {each}.")
    return "\n".join(fill(line, 80, subsequent_indent="  ", break_on_hyphens=False) for line in lines)


def figure(rows: pd.DataFrame, datasets: Sequence[str], alone: str, lengths: Sequence[int] = LENGTHS):
    """Accuracy by the length of stage 1, a panel per data set; bars are one standard deviation over the seeds."""
    import matplotlib.pyplot as plt

    use_style()
    plate, axes = plt.subplots(1, len(datasets), figsize=(WIDTH, 3.1), sharey=True, squeeze=False, layout="constrained")
    arms = {loss: [label(loss, steps) for steps in lengths] for loss in LOSSES}
    there = rows[rows["arm"].isin(arms["swapped"] + arms["printed"])]
    for axis, name in zip(axes[0], datasets, strict=True):
        own = rows[rows["dataset"] == name]
        pictures = own[(own["arm"] == alone) & own["shots"].isin(there["shots"])]["accuracy"]
        for shift, (loss, what) in zip((-0.06, 0.06), LOSSES.items(), strict=True):
            colour, marker, dashes = STYLES[loss]
            groups = [own[own["arm"] == arm]["accuracy"] for arm in arms[loss]]
            x = [i + shift for i, a in enumerate(groups) if len(a)]
            mean, std = ([f(a) for a in groups if len(a)] for f in (pd.Series.mean, lambda a: a.std(ddof=0)))
            if x:
                axis.errorbar(x, mean, std, color=colour, marker=marker, linestyle=dashes, capsize=3, label=what)
        if len(pictures):
            axis.axhline(pictures.mean(), color=ZERO_SHOT, linestyle=":", label="pictures alone")
        axis.set(
            title=name, xlabel="steps of stage 1", xticks=range(len(lengths)), xticklabels=[str(n) for n in lengths]
        )
        axis.grid(color=GRID)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize="x-small")
    axes[0][0].set_ylabel("accuracy in percent")
    seeds = f"; bars: standard deviation over {there['seed'].nunique()} seeds" if len(there) else ""
    plate.suptitle(f"{_origin(there, short=True)}{seeds}", fontsize="small", color="#444444")
    plt.close(plate)
    return plate


def nothing(pictures: int, shots: int, batch: int = 128) -> float:
    """The corrected loss of a converter that is near no picture, with so many `pictures` in all: 1 / N with one shot.

    Pairs of two pictures of one class do not count: where a batch holds all pictures, a row of the N x N pairs has
    N - shots + 1; in a part of them, drawn at random, each picture meets its share of the others of its class.
    """
    batch = min(batch, pictures)
    return 1 / (batch - (batch - 1) * (shots - 1) / max(1, pictures - 1))


def trained(rows: pd.DataFrame) -> pd.Series:
    """Per row: whether the training loss of its converter ended below the level of `nothing`; no value without one."""
    return pd.Series([_below(*one) for one in zip(rows["chosen"], rows["config"], rows["shots"])], rows.index, dtype=object)


def _below(chosen: dict, config: dict, shots: int) -> bool | None:
    if "converter_loss" not in chosen or config["loss"] != "swapped":
        return None
    return chosen["converter_loss"] < (1 - MARGIN) * nothing(chosen["converter_saw"], shots, config["converter_batch"])


def share(rows: pd.DataFrame) -> str:
    """How many of the trainings of these rows are `trained`, as "4 of 5"."""
    done = trained(rows).dropna()
    return f"{sum(done)} of {len(done)}" if len(done) else NOT_RUN


def enough(rows: pd.DataFrame, lengths: Sequence[int] = LENGTHS) -> int | None:
    """The rule for the length of stage 1: the shortest after which every training of the corrected loss is `trained`."""
    for steps in sorted(lengths):
        done = trained(rows[rows["arm"] == label("swapped", steps)]).dropna()
        if len(done) and done.all():
            return steps
    return None


def rule(rows: pd.DataFrame, lengths: Sequence[int] = LENGTHS) -> str:
    """The rule and what it gives, in words."""
    each = [f"{share(rows[rows['arm'] == label('swapped', steps)])} after {steps} steps" for steps in sorted(lengths)]
    found = enough(rows, lengths)
    told = "No length tried is enough." if found is None else f"The shortest after which all are: {found} steps."
    return fill(f"Trainings that ended below the level: {', '.join(each)}. {told}", 80, break_on_hyphens=False)


def course(history: Sequence[float], near_nothing: float, every: int = 50, title: str = ""):
    """The loss of stage 1 by its steps (means over `every` steps), and what a converter pays that tells nothing apart."""
    import matplotlib.pyplot as plt

    use_style()
    plate, axis = plt.subplots(figsize=(WIDTH, 2.4), layout="constrained")
    axis.plot(
        [every * (i + 1) for i in range(len(history))], history, color=STYLES["swapped"][0], label="the converter"
    )
    axis.axhline(near_nothing, color="#222222", linestyle=(0, (4, 2)), label=f"near no picture: {near_nothing:.3f}")
    axis.set(xlabel="steps", ylabel="corrected loss", title=title, ylim=(0, 2 * near_nothing))
    axis.grid(color=GRID)
    axis.legend()
    plt.close(plate)
    return plate


def reached(losses: Mapping[int, float], near_nothing: float) -> str:
    """A line per length of training: whether its last loss {steps: loss} is below what being near no picture costs."""
    lines = []
    for steps, loss in losses.items():
        below = 100 * (1 - loss / near_nothing)
        said = f"{below:.0f} % below it" if below > 100 * MARGIN else "still there: the sentences are hardly told apart"
        lines.append(f"after {steps} steps: {loss:.4f}, {said}")
    return "\n".join([f"Near no picture: {near_nothing:.4f}", *lines])
