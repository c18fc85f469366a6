"""Thousands of labels: who wins with 1, 4, 16, 128 and all training pictures per class, and where the curves cross.

Up to 16 shots every method has the budget of its profile. Beyond, what is trained by steps is shown as many pictures in all as
at 16 shots, and what averages augmented views takes fewer of them, so that more labels do not also mean more computing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd

from fewshot.data import full_name
from fewshot.grids import grid
from fewshot.methods import get_method
from fewshot.published import published
from fewshot.report import NOT_RUN, TITLES, Table, _average, _cell, _origin, _ranked, _shots, _signed, published_table
from fewshot.runs import ALL, Profile, Run
from fewshot.studies import toy
from fewshot.studies.crossings import by_size, crossing, how_many, lead, named, over, training_pictures
from fewshot.studies.differences import shown
from fewshot.toy import LARGE

METHODS = ("zero_shot", "linear_probe", "lpplusplus", "gda", "tip_adapter", "tip_adapter_f", "coop", "clip_lora",
           "fine_tune")  # fmt: skip
SHOTS = (1, 4, 16, 128, ALL)
REAL = (
    "eurosat",
    "food101",
    "imagenet",
)  # those of the papers' data sets that have more than 128 pictures of each class
LAST = 16  # shots whose budget the larger numbers keep
MOST = (
    100_000  # training pictures: "all" is left out where there are more, as on ImageNet (a cache of 1.28 million keys)
)


# the runs


def arms(
    profile: Profile,
    methods: Sequence[str] = METHODS,
    datasets: Sequence[str] | None = None,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = (1, 2, 3),
    limit: int | None = None,
) -> dict[str, list[Run]]:
    """An arm per method. -1 shots are all training pictures: the seeds then differ in what is drawn besides pictures."""
    datasets = default_datasets(profile) if datasets is None else list(datasets)
    sizes = {name: training_pictures(name) for name in map(full_name, datasets)} if ALL in shots else {}
    found = {}
    for method in methods:
        found[TITLES[method]] = runs = []
        for one in grid("beyond_sixteen", [method], datasets, 1, seeds, profile, limit=limit):
            if one.shots == 0:
                runs.append(one)
                continue
            for k in shots:
                classes, pictures = sizes.get(one.dataset, (1, 0))
                if k == ALL and pictures > MOST:
                    continue
                count = pictures / classes if k == ALL else k
                runs.append(replace(one, shots=k, config={**one.config, **capped(one, count, k == ALL)}))
    return found


def default_datasets(profile: Profile) -> list[str]:
    """The large stand-ins, or REAL."""
    return [f"toy/{name}" for name in LARGE] if toy(profile) else list(REAL)


def capped(one: Run, count: float, every: bool = False) -> dict:
    """What replaces options of a run with `count` pictures per class (`every`: all there are), beyond LAST; nothing below.

    CoOp and Tip-Adapter-F: fewer epochs (CoOp at least two, for its first is a warm-up). CLIP-LoRA and fine-tuning: the steps
    of LAST shots. Augmented views, where they are kept: as many pictures as at LAST shots, but at least one view.
    """
    if count <= LAST and not every:
        return {}
    method, options, share = get_method(one.method), one.config, min(1.0, LAST / count)
    config, changed = method.Config(), {}
    if "views" in options:
        changed["views"] = max(1, round(options["views"] * share))
    if hasattr(config, "augment_epoch"):
        changed["augment_epoch"] = max(1, round(options.get("augment_epoch", config.augment_epoch) * share))
    if one.method in ("clip_lora", "fine_tune"):
        steps = min(LAST, round(count)) * options.get("per_shot", config.per_shot)
        changed["iterations"] = options.get("iterations", steps)
    elif one.method in ("coop", "tip_adapter_f"):
        usual = method.epochs(SimpleNamespace(dataset=one.dataset, shots=LAST))
        least = 2 if one.method == "coop" else 1
        changed["epochs"] = max(least, round(options.get("epochs", usual) * share))
    return changed


# tables


def accuracy_table(rows: pd.DataFrame, methods: Sequence[str], shots: Sequence[int], datasets: Sequence[str]) -> Table:
    """A line per method, a column per number of shots: the average over the data sets; best bold, second underlined.

    An average that lacks a data set says so and takes no part in the ranking.
    """
    text, means, columns = {}, {}, [named(k) for k in shots]
    for method in methods:
        for k, column in zip(shots, columns, strict=True):
            own = rows[(rows["arm"] == TITLES[method]) & (rows["shots"] == (0 if method == "zero_shot" else k))]
            covered = [d for d in datasets if d in set(own["dataset"])]
            text[method, column] = _cell(*(found := _average(own, covered))) if covered else NOT_RUN
            if covered and len(covered) < len(datasets):
                text[method, column] += f", {len(covered)} of {len(datasets)} sets"
            elif covered:
                means[method, column] = found[0]
    table = _ranked(text, means, list(methods), columns)
    table.caption = (
        f"Top-1 accuracy in percent by training pictures per class{how_many(rows)}, {over(datasets)}: mean ± population standard "
        f"deviation over the seeds (number of seeds). {_origin(rows)}"
    )
    return table


def crossing_table(
    rows: pd.DataFrame, ahead: str, methods: Sequence[str], shots: Sequence[int], datasets: Sequence[str]
) -> Table:
    """Where a method overtakes each of the others: from where on it stays ahead, and its lead at every number of shots."""
    rows, lines = rows[rows["dataset"].isin(datasets)], {}
    for other in (m for m in methods if m != ahead):
        effects = {k: lead(rows, ahead, other, k) for k in shots}
        run = [k for k in sorted(shots, key=by_size) if effects[k].n]
        last = f" (run up to {named(run[-1])})" if run and run[-1] != max(shots, key=by_size) else ""
        lines[TITLES[other]] = line = {
            "ahead from": _from(crossing(rows, ahead, other, shots)) + last if run else NOT_RUN,
            "surely from": _from(crossing(rows, ahead, other, shots, surely=True)) + last if run else NOT_RUN,
            **{named(k): shown(one) for k, one in effects.items()},
        }
        for k in run:
            gone = {d for m in (ahead, other) for d in datasets if not _met(rows, m, k, d)}
            line[named(k)] += f", {len(datasets) - len(gone)} of {len(datasets)} sets" if gone else ""
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = f"{TITLES[ahead]} against"
    table.caption = (
        f"From how many training pictures per class {TITLES[ahead]} stays ahead (surely: with the whole interval), and its "
        f"lead in points at each number{how_many(rows)}, {over(datasets)} [95 % interval over the seeds on these data sets, by "
        f"bootstrap; what the choice of test pictures does is not in it]. {_origin(rows)}"
    )
    return table


def cost_table(rows: pd.DataFrame, methods: Sequence[str], shots: Sequence[int]) -> Table:
    """What is learned and how long it takes: numbers with the most shots, and seconds of a fit at each number of shots."""
    lines = {}
    for method in methods:
        own = rows[rows["arm"] == TITLES[method]]
        line = {"numbers learned": NOT_RUN}
        if len(own):
            many = own[own["shots"].map(by_size) == own["shots"].map(by_size).max()]["parameters"]
            low, high = int(many.min()), int(many.max())
            line["numbers learned"] = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        for k in shots:
            quickest = own[own["shots"].isin([0, k])].groupby("dataset")["seconds_fit"].min()
            line[f"seconds, {named(k)}"] = f"{quickest.mean():.1f}" if len(quickest) else NOT_RUN
        lines[TITLES[method]] = line
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "method"
    machines = ", ".join(sorted(set(rows["hardware"]))) if len(rows) else "no machine"
    table.caption = (
        f"Numbers learned with the most training pictures, smallest and largest data set; seconds of a fit by pictures per "
        f"class{how_many(rows)}, the quickest seed, mean over the data sets. Features that another run had kept were read "
        f"and not computed, and other work ran beside: orders of magnitude. Measured on {machines}. {_origin(rows)}"
    )
    return table


def paper_table(methods: Sequence[str], datasets: Sequence[str], shots: int = LAST) -> Table | None:
    """The papers' numbers for these methods, where they stop; the large stand-ins' columns are those of the originals."""
    names = [name.removeprefix("toy/") for name in datasets]
    return published_table(published("clip_lora"), shots, methods, [LARGE.get(name, name) for name in names])


# sentences


def statement(rows: pd.DataFrame, methods: Sequence[str], shots: Sequence[int], datasets: Sequence[str]) -> str:
    """The winner at each number of shots, what the probe and fine-tuning overtake and from where, and what labels buy."""
    rows = rows[rows["dataset"].isin(datasets)]
    said = [_winner(rows, methods, k, datasets) for k in shots]
    there = [m for m in methods if all(m in _means(rows, [m], k, datasets) for k in shots)]
    for ahead in (m for m in ("linear_probe", "fine_tune") if m in there and len(there) > 1):
        begins = {m: crossing(rows, ahead, m, shots) for m in there if m != ahead}
        parts = [
            f"from {named(k)} on it is ahead of {_list(names)}"
            if k
            else f"in the end it is not ahead of {_list(names)}"
            for k in (*shots, None)
            if (names := [TITLES[m] for m in begins if begins[m] == k])
        ]
        said.append(f"{TITLES[ahead]}: {'; '.join(parts)}.")
    if lacking := [TITLES[m] for m in methods if m not in there]:
        said.append(f"Not run everywhere, so that no crossing is named: {_list(lacking)}.")
    low, high = (sorted(shots, key=by_size)[i] for i in (0, -1))
    if LAST in shots and high != LAST:
        low = LAST
    gains = {m: gain for m in methods if (gain := _gain(rows, m, low, high, datasets)) is not None}
    if gains and low != high:
        order = sorted(gains, key=gains.get, reverse=True)
        each = ", ".join(f"{TITLES[m]} {_signed(gains[m])}" for m in order)
        said.append(f"From {_shots(low)} to {named(high)} the averages change by (points): {each}.")
    return "\n".join(said)


def _winner(rows: pd.DataFrame, methods: Sequence[str], k: int, datasets: Sequence[str]) -> str:
    """Who is best at a number of shots, how many cannot be told from it, and where zero-shot and fine-tuning stand."""
    means = _means(rows, methods, k, datasets)
    if means.drop("zero_shot", errors="ignore").empty:
        return f"{_what(k)}: not run."
    best = means.idxmax()
    rest = [m for m in means.index if m != best]
    level = [TITLES[m] for m in rest if lead(rows, best, m, k).against(0) != "above"]
    text = f"{_what(k)}: best of {len(means)} is {TITLES[best]} ({means[best]:.1f} %)"
    text += f" ({len(methods) - len(means)} not run on all data sets)" if len(means) < len(methods) else ""
    if rest:
        second = means[rest].idxmax()
        text += f", {shown(lead(rows, best, second, k))} points ahead of {TITLES[second]}"
        text += f"; not surely ahead of {_list(level)}" if level else "; surely ahead of all"
    if "fine_tune" in rest:
        text += f". {TITLES['fine_tune']} takes place {int((means > means['fine_tune']).sum()) + 1}"
    if "zero_shot" in rest and (below := [TITLES[m] for m in rest if means[m] < means["zero_shot"]]):
        text += f". Below zero-shot: {_list(below)}"
    return text + "."


# small things


def _from(shots: int | None) -> str:
    return "–" if shots is None else named(shots)


def _what(shots: int) -> str:
    return "All pictures" if shots == ALL else _shots(shots)


def _met(rows: pd.DataFrame, method: str, k: int, dataset: str) -> bool:
    return bool(((rows["method"] == method) & rows["shots"].isin([0, k]) & (rows["dataset"] == dataset)).any())


def _list(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _means(rows: pd.DataFrame, methods: Sequence[str], k: int, datasets: Sequence[str]) -> pd.Series:
    """The average of each method that has all the data sets at this number of shots."""
    part = rows[rows["shots"].isin([0, k])].groupby(["method", "dataset"])["accuracy"].mean().unstack("dataset")
    whole = part.reindex(columns=list(datasets)).dropna()
    return whole.mean(axis=1).reindex([m for m in methods if m in whole.index])


def _gain(rows: pd.DataFrame, method: str, low: int, high: int, datasets: Sequence[str]) -> float | None:
    ends = [_means(rows, [method], k, datasets) for k in (low, high)]
    return None if method == "zero_shot" or any(end.empty for end in ends) else float(ends[1].iloc[0] - ends[0].iloc[0])
