"""The experiment of the LLM-text adapter: its runs, and tables, figures and intervals made from their rows.

A run of `texts=m` and one that chooses m on validation pictures learn the same stack of heads, so `shared` trains it once
and keeps it in the cache, where every process of a grid finds it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from textwrap import fill

import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fewshot import runs
from fewshot.cache import CACHE_REMEDY, cache_dir, locked, writing
from fewshot.curves import GRID, WIDTH
from fewshot.grids import grid
from fewshot.intervals import Effect, paired
from fewshot.methods import get_method
from fewshot.methods.method import make_config
from fewshot.report import NOT_RUN, TITLES, Table, _cell, _is_toy, _origin, _shots, _signed, use_style
from fewshot.runs import Profile, Run, _fit, run, stamp
from fewshot.studies import datasets_of, misprint, open_points, sentences_elsewhere, toy, with_options
from fewshot.studies.differences import average

NAME = "text_adapter"
SEEDS = 5  # fewer are no ground for a statement
# Per profile: the toy's trainings are short, with higher rates, and stage 1 has small batches: a picture has fewer others to
# be kept apart from, and a step costs the same at all shots. Its steps follow from a rule, `misprint.enough`.
CHANGED = {
    "toy": {"steps": 300, "lr": 0.003, "converter_steps": 1000, "converter_lr": 0.0015, "converter_batch": 8},
    "smoke": {"texts_from": ""},
}
COUNTS = (1, 2, 3, 4, 5, 10, 15, 20, 30)
SIMPLE = "mean_shift"  # the converter without training that goes through all shots beside the default
IMAGE, TEXT = "image", "image + text"
EVERY, IMAGE_FEW = f"{TEXT}, every number of texts", f"{IMAGE}, few shots"
OPTIONS = {
    "converter": ("identity", "mean_shift", "center", "linear", "procrustes", "mlp", "qformer"),
    "pairs": ("fewshot_class", "train_class"),
    "loss": ("swapped", "printed", "swapped_balanced", "positive_only", "infonce", "mse"),
}
SLOW = {"loss": ("swapped", "printed")}  # with the Q-Former in the toy world; the others with the mlp


# the runs


def table_sets(profile: Profile) -> tuple[list[str], list[int]]:
    """Data sets and shots: the paper's, and in the toy world the stand-ins and fewer shots."""
    return datasets_of(profile, ("cub", "oxford_pets")), [1, 5, 15] if toy(profile) else [1, 2, 3, 4, 5, 10, 15]


def usual_lengths(profile: Profile) -> list[int]:
    """Steps of stage 1 after which the two forms of equation (4) are compared."""
    return list(misprint.TOY_LENGTHS if toy(profile) else misprint.LENGTHS)


def variant(profile: Profile, **options) -> Profile:
    """The profile with options of the text adapter; its training in the toy profile is shortened."""
    return with_options(profile, NAME, **CHANGED.get(profile.name, {}) | options)


def counts(dataset: str) -> tuple[int, ...]:
    """The numbers of texts that the shipped sentences of a data set suffice for."""
    from fewshot.texts import read, shipped

    fewest = min(len(lines) for lines in read(shipped(dataset)).values())
    return tuple(m for m in COUNTS if m <= fewest)


def label(option: str, value: str, converter: str = "qformer") -> str:
    """The arm of an option varied by itself: "loss printed", or "loss printed, mlp" with another converter."""
    return f"{option} {value}" + (f", {converter}" if converter != "qformer" else "")


def arms(
    profile: Profile,
    datasets: Sequence[str] | None = None,
    shots: Sequence[int] | None = None,
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
    few: int = 1,
    lengths: Sequence[int] | None = None,
    elsewhere: Sequence[int] = sentences_elsewhere.SHOTS,
    limit: int | None = None,
) -> dict[str, list[Run]]:
    """Everything the notebook shows: table 1, figure 4 and baselines; options at `few` shots on the first data set; the two
    forms of equation (4) after `lengths` steps; and the same sentences in other methods at `elsewhere` shots.

    None: the paper's data sets and shots, or the toy's; every length of `misprint`, or the toy's.

    EVERY has a run for each number of texts, and those of TEXT, which choose it and come first: of the runs that share a
    training (see `shared`) the first trains, so no two processes wait for each other.
    """
    usual_sets, usual_shots = table_sets(profile)
    datasets = usual_sets if datasets is None else list(datasets)
    shots = usual_shots if shots is None else list(shots)
    lengths = usual_lengths(profile) if lengths is None else lengths

    def asked(names, numbers, draws, method: str = NAME, **options) -> list[Run]:
        own = variant(profile, **options) if method == NAME else with_options(profile, method, **options)
        return grid("llm_text_adapter", [method], names, numbers, draws, own, limit=limit)

    def each(make) -> list[Run]:
        return [one for name in datasets for seed in seeds for k in shots for one in make(name, [k], [seed])]

    def heads(name, k, seed) -> list[Run]:
        free = asked([name], k, seed)
        return free + [one for m in counts(name) for one in asked([name], k, seed, texts=m)]

    found = {
        IMAGE: each(lambda *place: asked(*place, texts=0)),
        TEXT: each(asked),
        EVERY: each(heads),
        f"{TEXT}, {SIMPLE}": each(lambda *place: asked(*place, converter=SIMPLE)),
        TITLES["cross_modal_probe"]: asked(datasets, shots, seeds, "cross_modal_probe"),
    }
    found[IMAGE_FEW] = asked(datasets, [few], seeds, texts=0)
    found |= misprint.arms(variant(profile), datasets, few, seeds, lengths, limit)
    found |= open_points.arms(variant(profile), datasets[0], few, seeds, SIMPLE, limit)
    found |= sentences_elsewhere.arms(profile, datasets, elsewhere, seeds, limit)
    for option, values in OPTIONS.items():
        for converter in ("qformer", "mlp") if option == "loss" else ("qformer",):
            some = SLOW.get(option, values) if converter == "qformer" and toy(profile) else values
            for value in some:
                chosen = {"converter": converter, option: value}
                differs = {name: v for name, v in chosen.items() if v != _default(name)}
                found[label(option, value, converter)] = asked(datasets[:1], [few], seeds, **differs)
    return found


def shared(one: Run, task, clock):
    """(model, seconds of the whole stack) for a run of the text adapter; every other run is fitted by itself."""
    m = one.config.get("texts")
    alone = one.method != NAME or one.target or one.selection or one.config.get("select") == "val"
    if alone or m == 0 or m not in (None, *COUNTS):
        return _fit(one, task, clock)
    heads, chosen, seconds = stack(one, task, clock)
    if m is not None and m not in heads:
        return _fit(one, task, clock)
    method = get_method(NAME)
    model = method(runs._clip(one.backbone, one.pretrained), task.without_test(), make_config(method, one.config), seed=one.seed)
    model.heads = {n: tuple(None if part is None else part.to(model.weight) for part in head) for n, head in heads.items()}
    m = chosen["texts"] if m is None else m
    model.use(m, {**chosen, "texts": m})
    return model.eval(), seconds


def stack(one: Run, task, clock) -> tuple[dict, dict, float]:
    """The heads {m: (W, b or None)} of a run's training, what it chose, and its seconds: from the cache, or trained now."""
    base = replace(one, config={name: value for name, value in one.config.items() if name != "texts"}, limit=None)
    name = runs._digest([base.key, stamp(base), task.split_hash, runs.source_digest()])
    path = cache_dir() / "models" / f"{name}.safetensors"
    with locked(path.with_suffix(".lock")):
        try:
            with safe_open(path, "pt") as file:
                note = json.loads(file.metadata()["stack"])
                found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError):  # not there yet, or damaged
            model, seconds = _fit(base, task, clock)
            note = {"chosen": model.chosen, "seconds": seconds}
            found = {f"weight {m}": weight for m, (weight, _) in model.heads.items()}
            found |= {f"bias {m}": bias for m, (_, bias) in model.heads.items() if bias is not None}
            with writing(path, CACHE_REMEDY) as temporary:
                save_file({key: some.cpu().contiguous() for key, some in found.items()}, temporary, {"stack": json.dumps(note)})
    counts = sorted(int(key.split()[1]) for key in found if key.startswith("weight"))
    return {m: (found[f"weight {m}"], found.get(f"bias {m}")) for m in counts}, note["chosen"], note["seconds"]


run_one = functools.partial(run, fit=shared)  # of run_grid and complete


# intervals


def effects(rows: pd.DataFrame, arm: str = TEXT) -> pd.DataFrame:
    """An arm minus image alone per data set and shots: columns dataset, shots, n, mean, low, high, verdict."""
    lines = []
    own, image = rows[rows["arm"] == arm], rows[rows["arm"] == IMAGE]
    for (name, k), part in own.groupby(["dataset", "shots"], sort=False):
        one = average(paired(part, image[(image["dataset"] == name) & (image["shots"] == k)]))
        if one.n:
            lines.append((name, int(k), one.n, one.mean, one.low, one.high, verdict(one)))
    frame = pd.DataFrame(lines, columns=["dataset", "shots", "n", "mean", "low", "high", "verdict"])
    return frame.sort_values(["dataset", "shots"], ignore_index=True)


def verdict(one: Effect) -> str:
    """help, hurt or undecided; nothing of fewer than SEEDS seeds."""
    if one.n < SEEDS:
        return f"no statement: {one.n} of {SEEDS} seeds"
    return {"above": "help", "below": "hurt", "undecided": "undecided"}[one.against()]


def statement(rows: pd.DataFrame, arm: str = TEXT) -> str:
    """A sentence per data set: where sentences help, hurt, or neither can be said."""
    lines = []
    for dataset, part in effects(rows, arm).groupby("dataset", sort=False):
        said = []
        for what, group in part.groupby("verdict", sort=False):
            numbers = group[["shots", "mean", "low", "high", "n"]].itertuples(index=False)
            said.append(f"{what} at {', '.join(f'{one[0]} ({_interval(*one[1:])})' for one in numbers)}")
        toy = " (toy)" if _is_toy("", dataset) else ""
        line = f"{dataset}{toy}, shots: sentences {'; '.join(said)}"
        lines.append(fill(line, 80, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(lines) or "Nothing was run, so nothing can be said."


# tables


def table1(rows: pd.DataFrame, dataset: str, published: pd.DataFrame) -> Table:
    """The paper's table 1 of a data set: lines are settings, columns shots; the paper's numbers below."""
    from fewshot.data.catalogue import known_as
    from fewshot.methods.text_adapter import PAPER

    part = rows[(rows["dataset"] == dataset) & rows["arm"].isin([IMAGE, TEXT, EVERY])]
    found, name = effects(part).set_index("shots"), known_as(dataset)
    theirs = published[(published["dataset"] == name) & (published["method"] == NAME)].set_index(["variant", "shots"])
    columns = {}
    for k in sorted(part["shots"].unique()):
        own = part[part["shots"] == k]
        numbers = texts(own[own["arm"] == EVERY])
        by_count = {m: own[own["arm"] == EVERY]["accuracy"][numbers == m] for m in numbers.dropna().unique()}
        best = max(by_count, key=lambda m: by_count[m].mean()) if by_count else None
        m = PAPER.get(name, {}).get(k)
        text = own[own["arm"] == TEXT]
        line = {
            IMAGE: _accuracy(own[own["arm"] == IMAGE]["accuracy"]),
            f"{TEXT}, m by validation": _accuracy(text["accuracy"]),
            "converters trained": misprint.share(text),
            "m chosen (a seed each)": ", ".join(str(c["texts"]) for c in text.sort_values("seed")["chosen"]) or "–",
            "difference [95 %]": _interval(*found.loc[k, ["mean", "low", "high", "n"]]) if k in found.index else "–",
            f"{TEXT}, the paper's m": f"{_accuracy(by_count[m])}, m = {m}" if m in by_count else "–",
            f"{TEXT}, best m on the test (optimistic)": f"{_accuracy(by_count[best])}, m = {best:.0f}" if best else "–",
        }
        pair = [theirs.loc[(v, k), "top1"] if (v, k) in theirs.index else None for v in (IMAGE, "image+text")]
        line["paper, real pictures: image"] = "–" if pair[0] is None else f"{pair[0]:.1f}"
        line["paper, real pictures: image + text"] = "–" if pair[1] is None else f"{pair[1]:.1f}, m = {m}"
        line["paper: difference"] = "–" if None in pair else _signed(pair[1] - pair[0])
        columns[_shots(k)] = line
    table = Table(pd.DataFrame(columns).rename_axis(dataset))
    table.caption = (
        "Top-1 accuracy in percent: mean ± population standard deviation (number of seeds). The paper names no number "
        "of seeds. Converters trained: how many ended below the training loss of one that is near no picture. "
        f"{_origin(part)}"
    )
    return table


def texts(rows: pd.DataFrame) -> pd.Series:
    """The number of texts that a run was given; nan where it was to choose."""
    return rows["config"].map(lambda c: c["texts"]).astype(float)


def by_count(rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The rows of figure 4, with their number of texts as a column m; 0 is pictures alone."""
    part = rows[(rows["dataset"] == dataset) & rows["arm"].isin([IMAGE, EVERY])]
    part = part.assign(m=texts(part))
    return part[part["m"].notna()].astype({"m": int})


def count_table(rows: pd.DataFrame, dataset: str) -> Table:
    """Figure 4 as numbers: number of texts by shots; the best of each column is bold."""
    part = by_count(rows, dataset)
    shots, numbers = sorted(part["shots"].unique()), sorted(part["m"].unique())
    text, marks = {}, {}
    for k in shots:
        groups = {m: part[(part["shots"] == k) & (part["m"] == m)]["accuracy"] for m in numbers}
        text[_shots(k)] = {m: _accuracy(a) for m, a in groups.items()}
        means = {m: round(a.mean(), 1) for m, a in groups.items() if len(a)}
        marks |= {(m, _shots(k)): "strong" for m in means if means[m] == max(means.values())}
    table = Table(pd.DataFrame(text).rename_axis("texts per class"))
    table.marks = marks
    table.caption = f"{dataset}: mean ± population standard deviation (number of seeds); best bold. {_origin(part)}"
    return table


def option_table(rows: pd.DataFrame, option: str, converter: str = "qformer") -> Table:
    """One option of the adapter varied: accuracy, gain over image alone with its interval, what the converter saw."""
    names = {value: label(option, value, converter) for value in OPTIONS[option]}
    part = rows[rows["arm"].isin(names.values())]
    image = rows[(rows["arm"] == IMAGE_FEW) & rows["dataset"].isin(part["dataset"])]
    part = pd.concat([image, part])
    lines = {}
    for value, arm in {IMAGE: IMAGE_FEW, **names}.items():
        own = part[part["arm"] == arm]
        one = average(paired(own, image)) if value != IMAGE else None
        saw = sorted({c.get("converter_saw", 0) for c in own["chosen"]})
        lines[value] = {
            "accuracy": _accuracy(own["accuracy"]),
            "gain [95 %]": _interval(one.mean, one.low, one.high, one.n) if one and one.n else "–",
            "pictures seen": ", ".join(str(n) for n in saw) or "–",
            "numbers learned": f"{own['parameters'].max():,}" if len(own) else "–",
        }
    table = Table(pd.DataFrame(lines).T.rename_axis(option))
    where = [
        ", ".join(map(str, part["dataset"].unique())),
        ", ".join(_shots(k) for k in sorted(part["shots"].unique())),
    ]
    what = [] if option == "converter" else [converter]
    table.caption = (
        f"{', '.join([*where, *what])}: mean ± population standard deviation (number of seeds); gain in points over pictures "
        f"alone, seed by seed. {_origin(part)}"
    )
    return table


def baseline_table(rows: pd.DataFrame, dataset: str) -> Table:
    """Zero-shot with the template and with the sentences, the cross-modal probe, and the adapter in both settings."""
    part = rows[rows["dataset"] == dataset]
    lines = {
        "zero-shot, template": sentences_elsewhere.label("zero_shot", "task"),
        "zero-shot, the sentences": sentences_elsewhere.label("zero_shot", "sentences"),
        "cross-modal probe": TITLES["cross_modal_probe"],
        f"adapter, {IMAGE}": IMAGE,
        f"adapter, {TEXT}": TEXT,
        f"adapter, {TEXT}, {SIMPLE}": f"{TEXT}, {SIMPLE}",
    }
    part = part[part["arm"].isin(lines.values())]
    columns = {}
    for k in sorted(set(part["shots"]) - {0}):
        here = part[part["shots"].isin([0, k])]
        columns[_shots(k)] = {name: _accuracy(here[here["arm"] == arm]["accuracy"]) for name, arm in lines.items()}
    table = Table(pd.DataFrame(columns).rename_axis(dataset))
    table.caption = (
        "Mean ± population standard deviation (number of seeds; zero-shot draws nothing, so it has one run). "
        f"{_origin(part)}"
    )
    return table


def _default(option: str):
    from fewshot.methods.text_adapter import Config

    return getattr(Config(), option)


def _accuracy(a: pd.Series) -> str:
    return _cell(a.mean(), a.std(ddof=0), len(a)) if len(a) else NOT_RUN


def _interval(mean: float, low: float, high: float, n: int) -> str:
    return f"{_signed(mean)} [{_signed(low)}, {_signed(high)}] ({int(n)})"


# figures


def count_curves(rows: pd.DataFrame, datasets: Sequence[str]):
    """Figure 4: accuracy against the number of texts, a line per number of shots, a panel per data set."""
    import matplotlib.pyplot as plt

    use_style()
    figure, axes = plt.subplots(1, len(datasets), figsize=(WIDTH, 3.4), squeeze=False, layout="constrained")
    for axis, dataset in zip(axes[0], datasets, strict=True):
        own = by_count(rows, dataset)
        numbers, shots = sorted(own["m"].unique()), sorted(own["shots"].unique())
        for i, k in enumerate(shots):
            groups = own[own["shots"] == k].groupby("m")["accuracy"]
            mean, std, n = groups.mean(), groups.std(ddof=0), groups.size().min()
            x = [numbers.index(m) + 0.08 * (i - (len(shots) - 1) / 2) for m in mean.index]
            axis.errorbar(
                x, mean, std, marker="osDv^Ph"[i % 7], color=plt.cm.viridis(0.85 * i / max(1, len(shots) - 1)),
                label=f"{_shots(k)} ({n} seeds)", markersize=4, linewidth=1.2, elinewidth=0.8, capsize=1.5,
            )  # fmt: skip
        axis.set(title=dataset, xlabel="texts per class")
        axis.set_xticks(range(len(numbers)), [str(m) for m in numbers])
        axis.grid(color=GRID)
        if len(own):
            axis.legend(fontsize="x-small")
    axes[0][0].set_ylabel("accuracy in percent")
    part = rows[rows["dataset"].isin(datasets) & (rows["arm"] == EVERY)]
    note = f"{_origin(part, short=True)}; bars: standard deviation over the seeds"
    figure.suptitle(note, fontsize="small", color="#444444")
    plt.close(figure)
    return figure


def effect_curves(found: pd.DataFrame, title: str = ""):
    """The gain of the sentences with its interval, against the number of shots; `found` is that of `effects`."""
    import matplotlib.pyplot as plt

    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 2.8), layout="constrained")
    shots = sorted(found["shots"].unique())
    names = list(dict.fromkeys(found["dataset"]))
    for i, name in enumerate(names):
        own = found[found["dataset"] == name]
        x = [shots.index(k) + 0.12 * (i - (len(names) - 1) / 2) for k in own["shots"]]
        error = [own["mean"] - own["low"], own["high"] - own["mean"]]
        axis.errorbar(x, own["mean"], error, fmt="os^D"[i % 4], capsize=3, label=f"{name} ({own['n'].min()} seeds)")
    axis.set_title(title)
    axis.axhline(0, color="#666666", linewidth=1)
    axis.set_xticks(range(len(shots)), [str(k) for k in shots])
    axis.set(xlabel="training images per class", ylabel="points gained by sentences")
    axis.legend()
    plt.close(figure)
    return figure
