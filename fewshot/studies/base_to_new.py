"""CoCoOp's question: what is learned on half of the classes, what is it worth on the other half?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from fewshot import published
from fewshot.curves import GRID, SIZES, WIDTH, ZERO_SHOT, closed, look
from fewshot.data.catalogue import known_as
from fewshot.errors import FewshotError
from fewshot.grids import grid
from fewshot.intervals import Effect
from fewshot.report import NOT_RUN, TITLES, Table, _cell, _origin, _ranked, _shots, _signed, _span, use_style
from fewshot.runs import HALVES, Profile, Run, load_profile
from fewshot.studies import datasets_of, with_options
from fewshot.studies.differences import average, dots, shown
from fewshot.studies.halves import COLUMNS, ZERO, averages, beyond, change, scores

SIXTEEN, WIDE = "CoOp, 16 vectors", "CoOp, 60 vectors"
# label: method, and options that differ from the profile's
ARMS = {
    TITLES["zero_shot"]: ("zero_shot", {}),
    TITLES["clip_adapter"]: ("clip_adapter", {}),
    "CoOp": ("coop", {"ctx_init": "a photo of a"}),  # the CoCoOp paper's baseline: four vectors that start as words
    SIXTEEN: ("coop", {}),
    WIDE: ("coop", {"n_ctx": 60}),
    TITLES["cocoop"]: ("cocoop", {}),
    TITLES["kgcoop"]: ("kgcoop", {}),
    TITLES["prograd"]: ("prograd", {}),
    TITLES["plotpp"]: ("plotpp", {}),
    TITLES["maple"]: ("maple", {}),
    TITLES["clip_lora"]: ("clip_lora", {}),
}
METHODS = tuple(dict.fromkeys(method for method, _ in ARMS.values()))
# 60 vectors leave 14 of the 77 positions to a class name; "2012 Lamborghini Gallardo LP 570-4 Superleggera" needs 16
TOO_LONG = ("stanford_cars",)
# the CoCoOp paper's names, as its numbers are filed
VARIANTS = {"zero_shot": ZERO, "coop": "CoOp", "cocoop": TITLES["cocoop"], "coop_ctx60": WIDE, "coop_ctx4": "CoOp"}
PAPER = {"base": "base", "new": "new", "H": "harmonic"}  # columns of published.base_to_new_averages
ACROSS = 5  # panels of a figure in a line


def arms(
    profile: Profile,
    methods: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    shots: int = 16,
    seeds: Sequence[int] = (1, 2, 3),
    limit: int | None = None,
) -> dict[str, list[Run]]:
    """An arm per setting of a method that can change its classes, tested on both halves; `methods` None: all of them."""
    datasets = datasets_of(profile) if datasets is None else list(datasets)
    found = {}
    for label, (method, options) in ARMS.items():
        if methods is None or method in methods:
            own = with_options(profile, method, **options) if options else profile
            names = [d for d in datasets if not (label == WIDE and d in TOO_LONG)]
            found[label] = grid("base_to_new", [method], names, [shots], seeds, own, targets=HALVES, limit=limit)
    return found


# tables


def averages_table(rows: pd.DataFrame, labels: Sequence[str], datasets: Sequence[str]) -> Table:
    """Base, new and H of every arm; best of a column bold, second underlined, among the arms that have all data sets."""
    found = averages(scores(rows))
    text, means, partial = {}, {}, []
    for label in labels:
        line = found.loc[label] if label in found.index else None
        for name in COLUMNS:
            text[label, name] = NOT_RUN if line is None else _cell(line[name], line[f"{name}_std"], int(line["seeds"]))
            if line is not None and line["datasets"] == len(datasets):
                means[label, name] = line[name]
        if line is not None and line["datasets"] < len(datasets):
            partial.append(f"{label} ({int(line['datasets'])} of {len(datasets)})")
    table = _ranked(text, means, list(labels), list(COLUMNS))
    shots = _shots(int(rows["shots"].max())) if len(rows) else "no shots"
    table.caption = (
        f"Top-1 accuracy in percent, {shots} per class of the base half, averaged over {len(datasets)} data sets: "
    )
    table.caption += (
        "mean ± population standard deviation over the seeds (number of seeds). H is the harmonic mean of the two "
    )
    table.caption += f"averages. {_origin(rows)}"
    if partial:
        table.caption += f" Not all data sets, so not ranked: {', '.join(partial)}."
    return table


def published_averages() -> Table:
    """What two READMEs list, each number with its source; nothing measured here."""
    paper = published.base_to_new_averages()
    table = Table({name: [f"{v:.2f}" for v in paper[column]] for name, column in PAPER.items()}, index=paper["name"])
    zero = paper[paper["method"] == "zero_shot"].set_index("source")
    for half in HALVES:
        gap = paper[half] - paper["source"].map(zero[half])
        gap = gap.round(2).mask(paper["method"] == "zero_shot")
        table[f"{half}, over CLIP"] = ["–" if value != value else _signed(value) for value in gap]
    table["source"] = list(paper["source"])
    table.index.name = "method"
    table.caption = (
        "Published, not measured here: accuracy in percent, ViT-B/16, 16 shots, average over eleven real data sets. "
    )
    table.caption += (
        "CoOp stands there twice: KgCoOp's authors ran it again, and the two runs differ on the new half by "
    )
    table.caption += f"{abs(paper.loc[paper['method'] == 'coop', 'new'].diff().iloc[-1]):.1f} points."
    return table


def dataset_table(rows: pd.DataFrame, half: str, labels: Sequence[str], datasets: Sequence[str]) -> Table:
    """One half ("base", "new", or "H" of both) by data set, the average first; only pairs of both halves count."""
    found = scores(rows)
    whole, text, means = averages(found), {}, {}
    groups = {key: own[half] for key, own in found.groupby(["arm", "dataset"])}
    for label in labels:
        for dataset in datasets:
            cell = groups.get((label, dataset))
            text[label, dataset] = NOT_RUN if cell is None else _cell(cell.mean(), cell.std(ddof=0), len(cell))
            if cell is not None:
                means[label, dataset] = cell.mean()
        text[label, "average"] = NOT_RUN
        if label in whole.index:
            line = whole.loc[label]
            text[label, "average"] = _cell(line[half], line[f"{half}_std"], int(line["seeds"]))
            if line["datasets"] == len(datasets):
                means[label, "average"] = line[half]
            else:
                text[label, "average"] += f", {int(line['datasets'])} of {len(datasets)} sets"
    table = _ranked(text, means, list(labels), ["average", *datasets])
    what = "harmonic mean of base and new" if half == "H" else f"top-1 accuracy in percent on the {half} half"
    table.caption = (
        f"{what[0].upper()}{what[1:]}: mean ± population standard deviation (number of seeds). {_origin(rows)}"
    )
    return table


def gains_table(rows: pd.DataFrame, labels: Sequence[str]) -> Table:
    """Each arm against zero-shot on the same half, and from base to new: mean of the data sets with its 95 % interval."""
    lines = {}
    for label in (label for label in labels if label != ZERO):
        lines[label] = {
            "base, over zero-shot": shown(average(change(rows, label, "base", ZERO))),
            "new, over zero-shot": shown(average(change(rows, label, "new", ZERO))),
            "new below zero-shot on": _below(change(rows, label, "new", ZERO)),
            "new − base": shown(average(change(rows, label, "new", label, "base"))),
            "the same beyond zero-shot's": shown(average(beyond(rows, label))),
        }
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "method"
    zero = average(change(rows, ZERO, "new", ZERO, "base"))
    table.caption = "Points: mean over the data sets [95 % interval of Student's t over the data sets]. "
    table.caption += f"Zero-shot's own new − base is {shown(zero)}. {_origin(rows)}"
    return table


def control_table(rows: pd.DataFrame) -> Table:
    """Is it the number of parameters? CoOp with 4, 16 and 60 vectors beside CoCoOp; the published differences beside."""
    found, names = averages(scores(rows)), ["CoOp", SIXTEEN, WIDE, TITLES["cocoop"]]
    paper = _published_differences()
    lines = {}
    for label in names:
        own = rows[rows["arm"] == label]
        line = found.loc[label] if label in found.index else None
        cells = [NOT_RUN if line is None else _cell(line[c], line[f"{c}_std"], int(line["seeds"])) for c in COLUMNS]
        lines[label] = {"numbers learned": _span(own["parameters"]) if len(own) else NOT_RUN}
        lines[label] |= dict(zip(COLUMNS, cells, strict=True))
        lines[label]["new, over CoOp"] = shown(average(change(rows, label, "new", "CoOp"))) if label != "CoOp" else "–"
        lines[label]["new, over 16 vectors"] = (
            shown(average(change(rows, label, "new", SIXTEEN))) if label == WIDE else "–"
        )
        lines[label]["new, over CoOp (published)"] = _signed(paper[label]) if label in paper else "–"
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "method"
    table.caption = (
        "Averages in percent ± population standard deviation over the seeds (number of seeds); differences in "
    )
    table.caption += f"points [95 % interval over the data sets]. {_origin(rows)} Published differences: CoCoOp paper, "
    table.caption += "ViT-B/16, eleven real data sets; there 60 vectors are 30,720 numbers and CoCoOp's are 35,360."
    return table


def details_table(rows: pd.DataFrame) -> Table:
    """Single numbers of the CoCoOp paper (ImageNet, Stanford Cars) beside what was measured on the same half."""
    paper = published.published("cocoop")
    paper = paper[paper["classes"].isin(HALVES) & (paper["dataset"] != "average_of_11")]
    found = scores(rows).groupby(["arm", "dataset"])[list(HALVES)].mean()
    places = {known_as(dataset): dataset for dataset in rows["dataset"].unique()} if len(rows) else {}

    def here(arm: str, one) -> float:
        key = (arm, places.get(one.dataset))
        return found.loc[key, one.classes] if key in found.index else float("nan")

    lines = []
    for one in paper.itertuples(index=False):
        first, minus, second = one.variant.partition("_minus_")
        value = here(VARIANTS[first], one) - (here(VARIANTS[second], one) if minus else 0)
        name = f"{VARIANTS[first]} − {VARIANTS[second]}" if minus else VARIANTS[first]
        shown_here = _signed(value) if minus or value != value else f"{value:.1f}"
        paper_says = _signed(one.top1) if minus else f"{one.top1:.1f}"
        lines.append((name, one.dataset, one.classes, paper_says, shown_here))
    columns = ["method", "data set", "half", "published", "here"]
    table = Table(pd.DataFrame(lines, columns=columns).set_index("method"))
    table.caption = (
        f"Published: CoCoOp paper, ViT-B/16, 16 shots, real pictures. Here: means over the seeds. {_origin(rows)}"
    )
    return table


# sentences


def class_bound() -> dict[str, str]:
    """Methods that cannot change their classes, and why: {"Tip-Adapter": "its cache holds pictures of the old ones"}.

    Asked of the code: each method is made for the classes of a toy data set, and given two other names.
    """
    from fewshot.clip import load_clip
    from fewshot.methods import METHODS, get_method
    from fewshot.methods.method import Names, make_config

    clip, options = load_clip("toy"), load_profile("toy").methods
    task = Names("toy/eurosat", ("river", "forest", "highway"), "a photo of a {}.", shots=1)
    found = {}
    for name in METHODS:
        model = get_method(name)(clip, task, make_config(get_method(name), options.get(name, {})))
        try:
            model.retarget(("cat", "dog"))
        except FewshotError as error:
            found[model.title] = str(error).partition(" cannot change its classes, ")[2].partition(";")[0]
    return found


def statement(rows: pd.DataFrame) -> str:
    """What CoOp loses, what CoCoOp wins back, who stays above zero-shot on the new half: one sentence a line."""
    coop, cocoop = "CoOp", TITLES["cocoop"]
    have = set(rows["arm"])
    said = []
    if ZERO not in have:
        return "Zero-shot CLIP was not run, so nothing can be said."
    if coop in have:
        lost, usual = (average(change(rows, arm, "new", arm, "base")) for arm in (coop, ZERO))
        more = average(beyond(rows, coop))
        said.append(f"{coop}, new minus base: {shown(lost)} points; zero-shot CLIP: {shown(usual)}.")
        said.append(
            f"Beyond zero-shot's own change that is {shown(more)}: {_verdict(more, 'CoOp gains', 'CoOp loses')}."
        )
        base, new = (average(change(rows, coop, half, ZERO)) for half in HALVES)
        said.append(f"{coop} over zero-shot: {shown(base)} on the base half, {shown(new)} on the new half.")
    if {coop, cocoop} <= have:
        base, new = (average(change(rows, cocoop, half, coop)) for half in HALVES)
        said.append(
            f"{cocoop} over CoOp: {shown(new)} on the new half ({_verdict(new, 'wins back', 'loses more')}), "
            f"{shown(base)} on the base half."
        )
    if {SIXTEEN, WIDE} <= have:
        more = average(change(rows, WIDE, "new", SIXTEEN))
        said.append(f"60 vectors over 16, both from noise: {shown(more)} on the new half.")
    sides: dict[str, list[str]] = {"above": [], "below": [], "undecided": []}
    for arm in (arm for arm in dict.fromkeys(rows["arm"]) if arm != ZERO):
        table = change(rows, arm, "new", ZERO)
        found = average(table)
        if found.n:
            sides[found.against()].append(f"{arm} {shown(found)}, below on {_below(table)}")
    words = {"above": "above zero-shot", "below": "below zero-shot", "undecided": "neither for certain"}
    said += [f"New half, {words[side]}: {'; '.join(arms)}." for side, arms in sides.items() if arms]
    return "\n".join(said)


def _below(differences: pd.DataFrame) -> str:
    values = differences.mean(axis=1)
    return f"{int((values.round(1) < 0).sum())} of {len(values)}" if len(values) else NOT_RUN


def _verdict(found: Effect, more: str, less: str) -> str:
    return {"above": more, "below": less, "undecided": "the interval holds 0, so nothing is decided"}[found.against()]


def published_statement() -> str:
    """The same question asked of the published averages."""
    paper = published.base_to_new_averages()
    lines = []
    for source, own in paper.groupby("source", sort=False):
        values = own.set_index("method")
        lost = {m: values.loc[m, "new"] - values.loc[m, "base"] for m in ("coop", "zero_shot")}
        back = values.loc["cocoop", "new"] - values.loc["coop", "new"]
        lines.append(
            f"Published ({source}): CoOp, new minus base {_signed(lost['coop'])}; zero-shot CLIP {_signed(lost['zero_shot'])}; "
            f"beyond it {_signed(lost['coop'] - lost['zero_shot'])}. CoCoOp over CoOp on the new half: {_signed(back)}."
        )
    return "\n".join(lines)


def _published_differences() -> dict[str, float]:
    """Points over CoOp on the new half, from the CoCoOp paper, by arm."""
    paper = published.published("cocoop")
    average_new = paper[(paper["dataset"] == "average_of_11") & (paper["classes"] == "new")].set_index("variant")[
        "top1"
    ]
    gap = average_new["cocoop"] - average_new["coop"]
    return {WIDE: average_new["coop_ctx60_minus_coop_ctx4"], TITLES["cocoop"]: gap}


# figures


def points(rows: pd.DataFrame) -> pd.DataFrame:
    """The data of the figures, a line per arm and data set: base, new and H in percent, and the points that are drawn."""
    found = scores(rows).groupby(["arm", "dataset"], sort=False)[list(COLUMNS)].mean()
    for arm in found.index.get_level_values("arm").unique():
        parts = {
            "base_over_zero_shot": change(rows, arm, "base", ZERO),
            "new_over_zero_shot": change(rows, arm, "new", ZERO),
        }
        parts |= {"new_minus_base": change(rows, arm, "new", arm, "base"), "beyond_zero_shot": beyond(rows, arm)}
        for name, table in parts.items():
            for dataset, value in (table.mean(axis=1) if table.size else pd.Series(dtype=float)).items():
                if (arm, dataset) in found.index:
                    found.loc[(arm, dataset), name] = value
    return found.reset_index()


def slopes(rows: pd.DataFrame, labels: Sequence[str]):
    """Points over zero-shot on the base and on the new half: a panel per arm, a grey line per data set, the mean in colour."""
    import matplotlib.pyplot as plt

    use_style()
    labels = [label for label in labels if label != ZERO]
    lines = -(-len(labels) // ACROSS)
    figure, axes = plt.subplots(
        lines, ACROSS, figsize=(WIDTH, 2.1 * lines + 0.5), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(labels) :]:
        axis.set_visible(False)
    for axis, label in zip(axes.flat, labels, strict=False):
        tables = [change(rows, label, half, ZERO) for half in HALVES]
        axis.set_title(label, fontsize="small")
        axis.grid(color=GRID)
        axis.axhline(0, color=ZERO_SHOT, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
        if not all(table.size for table in tables):
            axis.text(0.5, 0, NOT_RUN, ha="center", va="bottom", color="#666666", fontsize="small")
            continue
        both = pd.concat([table.mean(axis=1) for table in tables], axis=1).dropna()
        axis.plot([0, 1], both.to_numpy().T, color="#B0B0B0", linewidth=0.8, zorder=2)
        ends = [average(table.loc[both.index]) for table in tables]
        bars = [[e.mean - e.low for e in ends], [e.high - e.mean for e in ends]]
        style = look(ARMS[label][0])
        axis.errorbar(
            [0, 1], [e.mean for e in ends], None if any(map(math.isinf, bars[0])) else bars, color=style.colour,
            marker=style.marker, markersize=SIZES.get(style.marker, 6.5), linewidth=2, capsize=4, zorder=3,
        )  # fmt: skip
    for axis in axes[:, 0]:
        axis.set_ylabel("points over zero-shot")
    axes[0][0].set(xlim=(-0.35, 1.35), xticks=[0, 1], xticklabels=HALVES)
    what = "grey: a data set, mean over the seeds; bars: 95 % interval over the data sets"
    return closed(figure, rows, what)


def losses(rows: pd.DataFrame, labels: Sequence[str]):
    """New minus base of every arm, and the same beyond zero-shot's: a grey dot per data set, the mean with its interval."""
    panels = {
        "new − base": {label: change(rows, label, "new", label, "base") for label in labels},
        "beyond zero-shot's": {label: beyond(rows, label) for label in labels if label != ZERO},
    }
    methods = {label: ARMS[label][0] for label in labels}
    return dots(panels, methods, "points", _origin(rows, short=True))
