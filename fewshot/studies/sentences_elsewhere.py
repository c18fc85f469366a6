"""Sentences in other methods: a class described instead of named, as zero-shot CLIP, in Tip-Adapter and in CLIP-LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import pandas as pd

from fewshot.curves import GRID, SIZES, WIDTH, ZERO_SHOT, look
from fewshot.grids import grid
from fewshot.intervals import Effect, paired
from fewshot.report import NOT_RUN, TITLES, Table, _cell, _is_toy, _origin, _shots, _signed, use_style
from fewshot.runs import Profile, Run
from fewshot.studies import toy, with_options
from fewshot.studies.differences import average, shown

SHOTS = (1, 4, 16)
WORDS = {
    "task": "template",
    "sentences": "sentences",
    "named_sentences": "named sentences",
}  # what the classifier is made of
KINDS = tuple(WORDS)[1:]
OPTION = {"zero_shot": "templates", "tip_adapter": "texts", "clip_lora": "template"}  # of each method, that says so
LORA_SEEDS, LORA_SHOTS = 3, 4  # a run of CLIP-LoRA takes a hundred times as long as one of the others
BOTH = f"{TITLES['clip_lora']}, both encoders"


def label(method: str, words: str) -> str:
    """The arm of a method with a classifier of "task", "sentences" or "named_sentences"."""
    of = ", image encoder" if method == "clip_lora" else ""
    return f"{TITLES[method]}{of}, {WORDS[words]}"


def arms(
    profile: Profile, datasets: Sequence[str], shots: Sequence[int] = SHOTS, seeds: Sequence[int] = (1, 2, 3, 4, 5),
    limit: int | None = None,
) -> dict[str, list[Run]]:  # fmt: skip
    """An arm per method and kind of classifier, and CLIP-LoRA as its authors have it, with both encoders.

    CLIP-LoRA with sentences trains the image encoder alone, so its control does too. It has the first three seeds, and
    in the toy world at most four shots.
    """
    found = {}
    for method, option in OPTION.items():
        some = {"encoder": "vision"} if method == "clip_lora" else {}
        for words in WORDS:
            own = with_options(profile, method, **some, **({} if words == "task" else {option: words}))
            found[label(method, words)] = _runs(method, datasets, shots, seeds, own, limit)
    found[BOTH] = _runs("clip_lora", datasets, shots, seeds, profile, limit)
    return {name: runs for name, runs in found.items() if runs}


def _runs(method: str, datasets, shots, seeds, profile: Profile, limit: int | None) -> list[Run]:
    if method == "clip_lora":
        seeds, shots = seeds[:LORA_SEEDS], [k for k in shots if k <= LORA_SHOTS or not toy(profile)]
    return grid("llm_text_adapter", [method], datasets, shots, seeds, profile, limit=limit)


# what the rows say


def gain(rows: pd.DataFrame, method: str, words: str, dataset: str, shots: int) -> Effect:
    """Points over the same method's template, seed by seed, with the 95 % interval; zero-shot draws nothing: one value."""
    own = rows[(rows["dataset"] == dataset) & rows["shots"].isin([0, shots])]
    return average(paired(*(own[own["arm"] == label(method, kind)] for kind in (words, "task"))))


def gains(rows: pd.DataFrame, datasets: Sequence[str], shots: Sequence[int] = SHOTS) -> pd.DataFrame:
    """Every gain that is there: columns method, classifier, dataset, shots (0: zero-shot), mean, low, high, n."""
    lines = []
    for method in OPTION:
        for words in KINDS:
            for name in datasets:
                for k in [0] if method == "zero_shot" else shots:
                    one = gain(rows, method, words, name, k)
                    if one.n:
                        lines.append((TITLES[method], WORDS[words], name, k, one.mean, one.low, one.high, one.n))
    return pd.DataFrame(lines, columns=["method", "classifier", "dataset", "shots", "mean", "low", "high", "n"])


def table(rows: pd.DataFrame, dataset: str, shots: Sequence[int] = SHOTS) -> Table:
    """A line per arm, columns by shots: accuracy, and for sentences the gain over the same method's template."""
    own = rows[rows["dataset"] == dataset]
    lines = {}
    for name, method, words in [*((label(m, w), m, w) for m in OPTION for w in WORDS), (BOTH, "clip_lora", "task")]:
        lines[name] = {}
        for k in shots:
            a = own[(own["arm"] == name) & own["shots"].isin([0, k])]["accuracy"]
            lines[name][_shots(k)] = _cell(a.mean(), a.std(ddof=0), len(a)) if len(a) else NOT_RUN
            over = shown(gain(rows, method, words, dataset, k)).split(" (1 seed")[0] if words in KINDS else "–"
            lines[name][f"over the template, {_shots(k)}"] = over
    columns = [column for k in shots for column in (_shots(k), f"over the template, {_shots(k)}")]
    found = Table(pd.DataFrame.from_dict(lines, orient="index")[columns].rename_axis(dataset))
    part = own[own["arm"].isin(lines)]
    found.caption = (
        "Accuracy in percent: mean ± population standard deviation (number of seeds). Over the template: points, seed by "
        f"seed [95 % interval over the seeds]; zero-shot draws nothing, so it has no interval. {_origin(part)}"
    )
    return found


def statement(rows: pd.DataFrame, datasets: Sequence[str], shots: Sequence[int] = SHOTS) -> str:
    """A sentence per data set and method: where the sentences are better than the template, worse, or neither."""
    verdicts = {"above": "better", "below": "worse", "undecided": "neither for certain"}
    lines = []
    for name in datasets:
        for method in OPTION:
            for words in KINDS:
                said: dict[str, list[str]] = {}
                for k in [0] if method == "zero_shot" else shots:
                    one = gain(rows, method, words, name, k)
                    if not one.n:
                        continue
                    # one value without an interval: only its sign can be said
                    sign = "above" if one.mean > 0 else "below" if one.mean < 0 else "undecided"
                    side = verdicts[one.against() if k else sign]
                    text = _signed(one.mean) if not k else f"{_shots(k)}: {shown(one)}"
                    said.setdefault(side, []).append(text)
                toy = " (toy)" if _is_toy("", name) else ""
                each = "; ".join(f"{side} ({', '.join(places)})" for side, places in said.items()) or NOT_RUN
                lines.append(f"{name}{toy}, {TITLES[method]}, {WORDS[words]} against the template: {each}.")
    return "\n".join(fill(line, 80, subsequent_indent="  ", break_on_hyphens=False) for line in lines)


def figure(rows: pd.DataFrame, datasets: Sequence[str], shots: Sequence[int] = SHOTS):
    """Points over the template with 95 % intervals: columns are data sets, lines the two kinds of sentences."""
    import matplotlib.pyplot as plt

    use_style()
    size = (WIDTH, 2.1 * len(KINDS) + 0.9)
    plate, axes = plt.subplots(
        len(KINDS), len(datasets), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for line, words in zip(axes, KINDS, strict=True):
        for axis, name in zip(line, datasets, strict=True):
            zero = gain(rows, "zero_shot", words, name, 0)
            axis.axhline(0, color="#222222", linewidth=1)
            if zero.n:
                axis.axhline(
                    zero.mean, color=ZERO_SHOT, linestyle=(0, (4, 3)), label=f"{TITLES['zero_shot']} (no interval)"
                )
            for shift, method in ((-0.08, "tip_adapter"), (0.08, "clip_lora")):
                found = [(i + shift, gain(rows, method, words, name, k)) for i, k in enumerate(shots)]
                found = [(x, one) for x, one in found if one.n > 1]
                if not found:
                    continue
                style = look(method)
                bars = [[one.mean - one.low for _, one in found], [one.high - one.mean for _, one in found]]
                axis.errorbar(
                    [x for x, _ in found], [one.mean for _, one in found], bars, color=style.colour, marker=style.marker,
                    linestyle=style.dashes, markersize=SIZES.get(style.marker, 6.5), capsize=3,
                    label=TITLES[method] + (" (image encoder)" if method == "clip_lora" else ""),
                )  # fmt: skip
            axis.set(title=f"{name}, {WORDS[words]}", xticks=range(len(shots)), xticklabels=[str(k) for k in shots])
            axis.grid(color=GRID)
    for axis in axes[-1]:
        axis.set_xlabel("training images per class")
    for axis in axes[:, 0]:
        axis.set_ylabel("points over template")
    handles = {text: one for axis in axes.flat for one, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    if handles:
        plate.legend(handles.values(), handles, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    part = rows[rows["arm"].isin([label(m, w) for m in OPTION for w in WORDS])]
    plate.suptitle(
        f"{_origin(part, short=True)}; bars: 95 % interval over the seeds", fontsize="small", color="#444444"
    )
    plt.close(plate)
    return plate
