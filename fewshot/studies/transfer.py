"""Learned on ImageNet, tested elsewhere: on ten other data sets, and on four shifted ImageNets.

What a method has learned meets other class names (data sets), or the same names in other pictures (shifts). Methods that
learn something per class can only do the second.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fewshot import published
from fewshot.grids import grid
from fewshot.intervals import paired
from fewshot.report import NOT_RUN, TITLES, Table, _cell, _origin, _ranked, _shots, _signed
from fewshot.runs import Profile, Run
from fewshot.studies import datasets_of, toy, with_options
from fewshot.studies.differences import average, dots, shown
from fewshot.toy import ELEVEN, SHIFTED

SOURCE = "imagenet"
OTHERS = tuple(name for name in ELEVEN if name != SOURCE)
WORDS = {"ctx_init": "a photo of a"}  # CoCoOp's baseline: CoOp with four vectors that start as words
ZERO_SHOT, PHOTO = TITLES["zero_shot"], "Zero-shot CLIP, a photo of a"
# label: method, and options that differ from the profile's
MOVABLE = {
    TITLES["clip_adapter"]: ("clip_adapter", {}),
    "CoOp": ("coop", WORDS),
    "CoOp, 16 vectors": ("coop", {}),
    TITLES["cocoop"]: ("cocoop", {}),
    TITLES["kgcoop"]: ("kgcoop", {}),
    TITLES["prograd"]: ("prograd", {}),
    TITLES["plotpp"]: ("plotpp", {}),
    TITLES["maple"]: ("maple", {}),
    TITLES["clip_lora"]: ("clip_lora", {}),
}
SOURCE_COLUMN = "source"
BOUND = ("linear_probe", "cross_modal_probe", "lpplusplus", "gda", "tip_adapter", "tip_adapter_f", "taskres")
METHODS = ("zero_shot", *dict.fromkeys(method for method, _ in MOVABLE.values()), *BOUND)
# The authors train MaPLe on ImageNet in their own way where it is to transfer.
MAPLE = {"prompt_depth": 3, "epochs": 2, "lr": 0.0026}


def arms(
    profile: Profile,
    methods: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    shifts: Sequence[str] | None = None,
    shots: int = 16,
    seeds: Sequence[int] = (1, 2, 3),
    limit: int | None = None,
) -> dict[str, list[Run]]:
    """An arm per method, learned on ImageNet and tested there, on `datasets` and on `shifts`; None: all of them.

    Methods that are bound to their classes are tested on the shifts alone. Zero-shot CLIP learns nothing: its arm asks for
    each test directly, with that data set's own template; a second arm says "a photo of a {}." everywhere.
    """
    source = datasets_of(profile, [SOURCE])
    datasets = datasets_of(profile, OTHERS) if datasets is None else list(datasets)
    shifts = datasets_of(profile, SHIFTED) if shifts is None else list(shifts)

    def runs(method: str, targets: Sequence[str], options: dict) -> list[Run]:
        own = with_options(profile, method, **options) if options else profile
        return grid("transfer", [method], source, [shots], seeds, own, targets=[None, *targets], limit=limit)

    found = {}
    for label, templates in ((ZERO_SHOT, {}), (PHOTO, {"templates": "photo"})):
        own = with_options(profile, "zero_shot", **templates) if templates else profile
        everywhere = [*source, *datasets, *shifts]
        found[label] = grid("transfer", ["zero_shot"], everywhere, [shots], [1], own, limit=limit)
    for label, (method, options) in MOVABLE.items():
        options = MAPLE if method == "maple" and not toy(profile) else options
        found[label] = runs(method, [*datasets, *shifts], options)
    for method in BOUND:
        found[TITLES[method]] = runs(method, shifts, {})
    methods_of = {label: asked[0].method for label, asked in found.items()}
    return {label: asked for label, asked in found.items() if methods is None or methods_of[label] in methods}


def moves(label: str) -> bool:
    """Whether an arm can be tested on other class names."""
    return label in (ZERO_SHOT, PHOTO, *MOVABLE)


# what was measured


def placed(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column `place`: the data set they were tested on."""
    target = rows["target"] if "target" in rows else pd.Series(None, rows.index, dtype=object)
    return rows.assign(place=target.where(target.notna(), rows["dataset"]))


def source_of(rows: pd.DataFrame, places: Sequence[str]) -> str:
    """The name of the data set that was learned on, as it stands in the rows: "imagenet" or "toy/imagenet"."""
    is_toy = any(name.startswith("toy/") for name in [*rows["dataset"].unique(), *places])
    return f"toy/{SOURCE}" if is_toy else SOURCE


def gain(rows: pd.DataFrame, arm: str, places: Sequence[str], reference: str = ZERO_SHOT) -> pd.DataFrame:
    """`arm` minus `reference` on each of `places`, a table place x seed, in points."""
    rows = placed(rows)
    left, right = (rows[(rows["arm"] == a) & rows["place"].isin(places)] for a in (arm, reference))
    return paired(left, right, unit="place") if len(left) and len(right) else pd.DataFrame()


# tables


def accuracy_table(rows: pd.DataFrame, labels: Sequence[str], targets: Sequence[str], drop: bool = False) -> Table:
    """Accuracy on the source, the average of `targets`, and each of them; with `drop` also the average minus the source.

    The average covers what an arm has (the cell says how much where that is not all); its deviation is that of the
    averages per seed. The best of a column is bold, the second underlined; an average that lacks a target is not ranked.
    """
    rows = placed(rows)
    source = source_of(rows, targets)
    columns = [SOURCE_COLUMN, "average of targets", *(["target − source"] if drop else []), *targets]
    text, means = {}, {}
    for label in labels:
        own = rows[rows["arm"] == label].pivot_table(index="seed", columns="place", values="accuracy")
        for place, column in [(source, SOURCE_COLUMN), *((name, name) for name in targets)]:
            cell = own[place].dropna() if place in own else []
            text[label, column] = _cell(cell.mean(), cell.std(ddof=0), len(cell)) if len(cell) else NOT_RUN
            if len(cell):
                means[label, column] = cell.mean()
        there = [name for name in targets if name in own]
        by_seed = own[there].dropna().mean(axis=1) if there else []
        text[label, "average of targets"] = text[label, "target − source"] = NOT_RUN
        if not len(by_seed):
            continue
        text[label, "average of targets"] = _cell(by_seed.mean(), by_seed.std(ddof=0), len(by_seed))
        if len(there) < len(targets):
            text[label, "average of targets"] += f", {len(there)} of {len(targets)}"
            continue
        means[label, "average of targets"] = by_seed.mean()
        if source in own and len(change := (by_seed - own[source]).dropna()):
            spread = f" ± {change.std(ddof=0):.1f}" if len(change) > 1 else ""
            text[label, "target − source"] = f"{_signed(change.mean())}{spread} ({len(change)})"
    table = _ranked(text, means, list(labels), columns)
    table.caption = "Top-1 accuracy in percent: mean ± population standard deviation over the seeds (number of seeds). "
    table.caption += (
        f"Learned on {source} ({_learned(rows)} per class), tested on what the column says. {_origin(rows)}"
    )
    return table


def gains_table(rows: pd.DataFrame, labels: Sequence[str], targets: Sequence[str], photo: bool = True) -> Table:
    """Points over zero-shot: on the source, and the mean of the targets with its interval; how often an arm lies above.

    With `photo` also over zero-shot with "a photo of a {}." everywhere, which is what a learned prompt starts from.
    """
    source = source_of(rows, targets)
    lines = {}
    for label in (label for label in labels if label != ZERO_SHOT):
        found = gain(rows, label, targets)
        values = found.mean(axis=1).round(1) if found.size else pd.Series(dtype=float)
        at_home = average(gain(rows, label, [source]))
        lines[label] = {
            "on the source": _signed(at_home.mean) if label == PHOTO and at_home.n else shown(at_home),
            "on the targets": shown(average(found)),
            "above on": f"{int((values > 0).sum())} of {len(values)}" if len(values) else NOT_RUN,
        }
        if photo:
            other = average(gain(rows, label, targets, PHOTO))
            lines[label]["targets, over a photo of a"] = shown(other) if label != PHOTO else "–"
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "method"
    table.caption = (
        "Points over zero-shot CLIP on the same pictures: mean [95 % interval of Student's t over the targets; on the "
    )
    table.caption += f"source, {source}, over the seeds]. {_origin(rows)}"
    return table


def published_shifts() -> Table:
    """What a list kept by others gives for CoOp and CoCoOp; nothing measured here."""
    paper = published.domain_shift()
    wide = paper.pivot(index="method", columns="dataset", values="top1").loc[["coop", "cocoop"]]
    text = wide[[SOURCE]].rename(columns={SOURCE: SOURCE_COLUMN})
    text["average of targets"] = wide[list(SHIFTED)].mean(axis=1)
    cells = pd.concat([text, wide[list(SHIFTED)]], axis=1).map(lambda value: f"{value:.2f}")
    drop = (text["average of targets"] - wide[SOURCE]).map(lambda value: _signed(round(value, 2)))
    cells.insert(2, "target − source", drop)
    table = Table(cells.rename(index=TITLES))
    table.index.name = "method"
    table.caption = (
        f"Published, not measured here ({paper['source'].iloc[0]}, a list kept by others): accuracy in percent, "
    )
    table.caption += "ViT-B/16, learned on ImageNet with 16 shots. The averages are computed here."
    return table


# sentences


def statement(rows: pd.DataFrame, labels: Sequence[str], targets: Sequence[str], what: str) -> str:
    """Which arms lie above zero-shot on the targets, which below: a line each; `what` names the targets."""
    source = source_of(rows, targets)
    sides: dict[str, list[str]] = {"above": [], "below": [], "undecided": []}
    both = []
    for label in (label for label in labels if label not in (ZERO_SHOT, PHOTO)):
        found, at_home = average(gain(rows, label, targets)), average(gain(rows, label, [source]))
        if found.n:
            sides[found.against()].append(f"{label} {shown(found)}")
            both += [label] if at_home.n and at_home.mean > 0 > found.mean else []
    words = {"above": "above zero-shot", "below": "below zero-shot", "undecided": "neither for certain"}
    said = [f"{what}, {words[side]}: {'; '.join(arms)}." for side, arms in sides.items() if arms]
    if both:
        said.append(f"{what}: better than zero-shot on the source and worse on the average target: {'; '.join(both)}.")
    return "\n".join(said) or f"{what}: nothing was run that could be compared with zero-shot."


# figures


def points(rows: pd.DataFrame, labels: Sequence[str], targets: Sequence[str]) -> pd.DataFrame:
    """The data of the figures, a line per arm and place: accuracy in percent, and points over both zero-shots."""
    places = [source_of(rows, targets), *targets]
    lines = []
    for (arm, place), own in placed(rows).groupby(["arm", "place"], sort=False)["accuracy"]:
        if arm in labels and place in places:
            line = {"arm": arm, "place": place, "accuracy": own.mean(), "std": own.std(ddof=0), "seeds": len(own)}
            for name, reference in (("over_zero_shot", ZERO_SHOT), ("over_a_photo_of_a", PHOTO)):
                found = gain(rows, arm, [place], reference)
                line[name] = found.to_numpy().mean() if found.size else float("nan")
            lines.append(line)
    columns = ["arm", "place", "accuracy", "std", "seeds", "over_zero_shot", "over_a_photo_of_a"]
    return pd.DataFrame(lines, columns=columns)


def gains(rows: pd.DataFrame, labels: Sequence[str], targets: Sequence[str], photo: bool = True):
    """Points over zero-shot: a grey dot per target, the mean with its interval, a diamond for the source.

    With `photo` a second panel, over zero-shot with "a photo of a {}." everywhere.
    """
    source = source_of(rows, targets)
    panels, marks = {}, {}
    both = {"over zero-shot, own template": ZERO_SHOT, "over zero-shot, a photo of a": PHOTO}
    for name, reference in (both if photo else {"over zero-shot": ZERO_SHOT}).items():
        own = [label for label in labels if label not in (ZERO_SHOT, PHOTO)]
        panels[name] = {label: gain(rows, label, targets, reference) for label in own}
        home = {label: average(gain(rows, label, [source], reference)) for label in own}
        marks[name] = {label: found.mean for label, found in home.items() if found.n}
    methods = {label: method for label, (method, _) in MOVABLE.items()} | {TITLES[name]: name for name in BOUND}
    return dots(panels, methods, "points", _origin(rows, short=True), marks, f"on {source}, where it was learned")


def _learned(rows: pd.DataFrame) -> str:
    shots = sorted(k for k in rows["shots"].unique() if k)
    return " or ".join(_shots(int(k)) for k in shots) or "no shots"
