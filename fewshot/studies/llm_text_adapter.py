"""The experiment of the LLM-text adapter: its runs, and tables, figures and intervals made from their rows.

A run of `texts=m` and one that chooses m on validation pictures learn the same stack of heads, so `shared` trains it once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from fewshot import misprint, sentences_elsewhere
from fewshot.clip import unit
from fewshot.errors import FewshotError
from fewshot.intervals import t_interval
from fewshot.report import TITLES, Table, _cell, _is_toy, _origin, _signed, use_style
from fewshot.runs import Profile, Run, _fit, grid, run
from fewshot.studies import datasets_of, toy, with_options

NAME = "text_adapter"
SEEDS = 5  # fewer are no ground for a statement
# The toy's training: short, with higher rates; see the notebook.
TOY = {"steps": 300, "lr": 0.003, "converter_steps": 300, "converter_lr": 0.0015}
COUNTS = (1, 2, 3, 4, 5, 10, 15, 20, 30)
SIMPLE = "mean_shift"  # the converter without training that goes through all shots beside the default
IMAGE, TEXT = "image", "image + text"
EVERY = f"{TEXT}, every number of texts"
OPTIONS = {
    "loss": ("swapped", "printed", "swapped_balanced", "positive_only", "infonce", "mse"),
    "converter": ("identity", "mean_shift", "center", "linear", "procrustes", "mlp", "qformer"),
    "pairs": ("fewshot_class", "train_class"),
}


# the runs


def table_sets(profile: Profile) -> tuple[list[str], list[int]]:
    """Data sets and shots: the paper's, and in the toy world the stand-ins and fewer shots."""
    return datasets_of(profile, ("cub", "oxford_pets")), [1, 3, 5, 10, 15] if toy(profile) else [1, 2, 3, 4, 5, 10, 15]


def variant(profile: Profile, **options) -> Profile:
    """The profile with options of the text adapter; its training in the toy profile is shortened."""
    return with_options(profile, NAME, **(TOY if profile.name == "toy" else {}), **options)


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
    lengths: Sequence[int] = misprint.LENGTHS,
    elsewhere: Sequence[int] = sentences_elsewhere.SHOTS,
    limit: int | None = None,
) -> dict[str, list[Run]]:
    """Everything the notebook shows: table 1 and figure 4, baselines, options at `few` shots on the first data set, the two
    forms of equation (4) after `lengths` steps, and the same sentences in other methods at `elsewhere` shots.

    None: the paper's data sets and shots, or the toy's.

    The arm EVERY has the runs of every number of texts next to each other, because these share a training (see `shared`);
    TEXT has those among them that choose the number.
    """
    usual_sets, usual_shots = table_sets(profile)
    datasets = usual_sets if datasets is None else list(datasets)
    shots = usual_shots if shots is None else list(shots)

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
        EVERY: each(heads),
        TEXT: each(asked),
        f"{TEXT}, {SIMPLE}": each(lambda *place: asked(*place, converter=SIMPLE)),
        TITLES["cross_modal_probe"]: asked(datasets, shots, seeds, "cross_modal_probe"),
    }
    first = datasets[:1], [few], seeds
    found[f"{IMAGE}, few"] = asked(*first, texts=0)
    for option, values in OPTIONS.items():
        for converter in ("qformer", "mlp") if option == "loss" else ("qformer",):
            for value in values:
                chosen = {"converter": converter, option: value}
                differs = {name: v for name, v in chosen.items() if v != _default(name)}
                found[label(option, value, converter)] = asked(*first, **differs)
    found |= misprint.arms(variant(profile), datasets, few, seeds, lengths, limit)
    return found | sentences_elsewhere.arms(profile, datasets, elsewhere, seeds, limit)


_stack: dict = {}  # of the last training: its key, model, what it chose, seconds


def shared(one: Run, task, clock):
    """(model, seconds of the whole stack) for a run of the text adapter; every other run is fitted by itself."""
    m = one.config.get("texts")
    if one.method != NAME or m == 0 or one.target or one.selection or m not in (None, *COUNTS):
        return _fit(one, task, clock)
    base = replace(one, config={name: value for name, value in one.config.items() if name != "texts"})
    if _stack.get("key") != base.key:
        model, seconds = _fit(base, task, clock)
        _stack.update(key=base.key, model=model, chosen=dict(model.chosen), seconds=seconds)
    model, chosen = _stack["model"], _stack["chosen"]
    if m is not None and m not in model._heads:
        return _fit(one, task, clock)
    more = {name: value for name, value in chosen.items() if name not in ("texts", "converter_saw")}
    model.use(chosen["texts"] if m is None else m, more)
    model.config = replace(model.config, texts=m)
    return model, _stack["seconds"]


run_one = functools.partial(run, fit=shared)  # of run_grid and complete


# intervals


def differences(rows: pd.DataFrame, ours: pd.Series, theirs: pd.Series) -> np.ndarray:
    """Accuracy of the rows `ours` minus `theirs`, seed by seed; both are masks of the rows of one data set and shots."""
    left, right = (rows[mask].set_index("seed")["accuracy"] for mask in (ours, theirs))
    if left.index.has_duplicates or right.index.has_duplicates:
        raise FewshotError("the rows mix settings: two of one seed; compare one setting with another.")
    return (left - right).dropna().to_numpy()


def effects(rows: pd.DataFrame, converter: str = "qformer") -> pd.DataFrame:
    """Image + text minus image per data set and shots: columns dataset, shots, n, mean, low, high, verdict."""
    lines = []
    for (dataset, k), part in adapter(rows, converter).groupby(["dataset", "shots"], sort=False):
        setting = part.apply(setting_of, axis=1)
        found = differences(part, setting == TEXT, setting == IMAGE)
        if len(found):
            mean, low, high = t_interval(found)
            lines.append((dataset, int(k), len(found), mean, low, high, verdict(len(found), low, high)))
    frame = pd.DataFrame(lines, columns=["dataset", "shots", "n", "mean", "low", "high", "verdict"])
    return frame.sort_values(["dataset", "shots"], ignore_index=True)


def verdict(n: int, low: float, high: float) -> str:
    if n < SEEDS:
        return f"no statement: {n} of {SEEDS} seeds"
    return "help" if low > 0 else "hurt" if high < 0 else "undecided"


def statement(rows: pd.DataFrame, converter: str = "qformer") -> str:
    """A sentence per data set: where sentences help, hurt, or neither can be said."""
    found = effects(rows, converter)
    lines = []
    for dataset, part in found.groupby("dataset", sort=False):
        said = []
        for what, group in part.groupby("verdict", sort=False):
            numbers = group[["shots", "mean", "low", "high", "n"]].itertuples(index=False)
            each = [f"{one.shots} ({_interval(*one[1:])})" for one in numbers]
            said.append(f"{what} at {', '.join(each)}")
        toy = " (toy)" if _is_toy("", dataset) else ""
        lines.append(f"{dataset}{toy}, shots: sentences {'; '.join(said)}")
    return "\n".join(lines) or "Nothing was run, so nothing can be said."


# which row is what


def adapter(rows: pd.DataFrame, converter: str = "qformer") -> pd.DataFrame:
    """The rows of table 1 and figure 4: pictures alone, and with texts by this converter, the default loss and pairs."""
    rows = rows[rows["method"] == NAME]
    plain = rows["config"].map(
        lambda c: (
            c["converter"] == (_default("converter") if c["texts"] == 0 else converter)
            and all(c[name] == _default(name) for name in ("loss", "pairs"))
        )
    )
    return rows[plain.astype(bool)]


def setting_of(row) -> str | int:
    """image, image + text (the number chosen on validation), or the number of texts that was fixed."""
    m = row["config"]["texts"]
    return IMAGE if m == 0 else TEXT if m is None else int(m)


# tables


def table1(rows: pd.DataFrame, dataset: str, published: pd.DataFrame) -> Table:
    """The paper's table 1 of a data set: lines are settings, columns shots; the paper's numbers below."""
    from fewshot.data.catalogue import known_as
    from fewshot.methods.text_adapter import PAPER

    part = adapter(rows)
    part = part[part["dataset"] == dataset]
    if part.empty:
        raise FewshotError(f"there is no row of the text adapter on {dataset}; run the experiment first.")
    part = part.assign(setting=part.apply(setting_of, axis=1))
    found, name = effects(part).set_index("shots"), known_as(dataset)
    theirs = published[(published["dataset"] == name) & (published["method"] == NAME)].set_index(["variant", "shots"])
    columns = {}
    for k in sorted(part["shots"].unique()):
        own = part[part["shots"] == k]
        by_count = own[own["setting"].map(lambda s: isinstance(s, int))].groupby("setting")["accuracy"].mean()
        best = by_count.idxmax() if len(by_count) else None
        m = PAPER.get(name, {}).get(k)
        text = own[own["setting"] == TEXT]
        line = {
            IMAGE: _mean(own, IMAGE),
            f"{TEXT}, m by validation": _mean(own, TEXT),
            "m chosen (a seed each)": ", ".join(str(c["texts"]) for c in text.sort_values("seed")["chosen"]) or "–",
            "difference [95 %]": _interval(*found.loc[k, ["mean", "low", "high", "n"]]) if k in found.index else "–",
            f"{TEXT}, the paper's m": f"{_mean(own, m)}, m = {m}" if m in by_count else "–",
            f"{TEXT}, best m on the test (optimistic)": f"{_mean(own, best)}, m = {best}" if best else "–",
        }
        pair = [theirs.loc[(v, k), "top1"] if (v, k) in theirs.index else None for v in (IMAGE, "image+text")]
        line["paper, real pictures: image"] = "–" if pair[0] is None else f"{pair[0]:.1f}"
        line["paper, real pictures: image + text"] = "–" if pair[1] is None else f"{pair[1]:.1f}, m = {m}"
        line["paper: difference"] = "–" if None in pair else _signed(pair[1] - pair[0])
        columns[_shots(k)] = line
    table = Table(pd.DataFrame(columns).rename_axis(dataset))
    table.caption = (
        "Top-1 accuracy in percent: mean ± population standard deviation (number of seeds). The paper names no number "
        f"of seeds. {_origin(part)}"
    )
    return table


def count_table(rows: pd.DataFrame, dataset: str) -> Table:
    """Figure 4 as numbers: number of texts by shots; the best of each column is bold."""
    part = adapter(rows)
    part = part[part["dataset"] == dataset]
    part = part.assign(m=part["config"].map(lambda c: c["texts"]))
    part = part[part["m"].notna()]
    shots, numbers = sorted(part["shots"].unique()), sorted(int(m) for m in part["m"].unique())
    text, marks = {}, {}
    for k in shots:
        groups = {m: part[(part["shots"] == k) & (part["m"] == m)]["accuracy"] for m in numbers}
        text[_shots(k)] = {m: _cell(a.mean(), a.std(ddof=0), len(a)) if len(a) else "–" for m, a in groups.items()}
        means = {m: round(a.mean(), 1) for m, a in groups.items() if len(a)}
        marks |= {(m, _shots(k)): "strong" for m in means if means[m] == max(means.values())}
    table = Table(pd.DataFrame(text).rename_axis("texts per class"))
    table.marks = marks
    table.caption = f"{dataset}: mean ± population standard deviation (number of seeds); best bold. {_origin(part)}"
    return table


def option_table(rows: pd.DataFrame, dataset: str, shots: int, option: str, converter: str = "qformer") -> Table:
    """One option of the adapter varied: accuracy, gain over image alone with its interval, what the converter saw."""
    part = rows[(rows["dataset"] == dataset) & (rows["shots"] == shots) & (rows["method"] == NAME)]
    images = part["config"].map(lambda c: c["texts"] == 0 and c["converter"] == _default("converter")).astype(bool)
    chosen = part["config"].map(lambda c: c["texts"] is None).astype(bool)
    value = part["config"].map(lambda c: c[option])
    lines = {}
    if images.any():
        a = part[images]["accuracy"]
        lines[IMAGE] = {"accuracy": _cell(a.mean(), a.std(ddof=0), len(a)), "gain [95 %]": "–", "pictures seen": "0",
                        "numbers learned": f"{part[images]['parameters'].max():,}"}  # fmt: skip
    others = [n for n in ("converter", "loss", "pairs") if n != option]
    fixed = {n: converter if n == "converter" else _default(n) for n in others}
    plain = part["config"].map(lambda c: all(c[n] == v for n, v in fixed.items())).astype(bool)
    for name in dict.fromkeys(value[chosen & plain]):
        mask = chosen & plain & (value == name)
        own, found = part[mask], differences(part, mask, images)
        saw = sorted({c["converter_saw"] for c in own["chosen"]})
        lines[str(name)] = {
            "accuracy": _cell(own["accuracy"].mean(), own["accuracy"].std(ddof=0), len(own)),
            "gain [95 %]": _interval(*t_interval(found), len(found)) if len(found) else "–",
            "pictures seen": ", ".join(str(n) for n in saw),
            "numbers learned": f"{own['parameters'].max():,}",
        }
    table = Table(pd.DataFrame(lines).T.rename_axis(option))
    what = "" if option == "converter" else f", {converter}"
    table.caption = (
        f"{dataset}, {_shots(shots)}{what}: mean ± population standard deviation (number of seeds). {_origin(part)}"
    )
    return table


def baseline_table(rows: pd.DataFrame, dataset: str) -> Table:
    """Zero-shot with the template and with the sentences, the cross-modal probe, and the adapter in both settings."""
    part = rows[rows["dataset"] == dataset]
    zero = part[part["method"] == "zero_shot"]
    sentences = zero["config"].map(lambda c: c["templates"] == "sentences").astype(bool)
    plain, simple = adapter(part), adapter(part, SIMPLE)
    setting = plain.apply(setting_of, axis=1)
    lines = {
        "zero-shot, template": zero[~sentences],
        "zero-shot, the sentences": zero[sentences],
        "cross-modal probe": part[part["method"] == "cross_modal_probe"],
        f"adapter, {IMAGE}": plain[setting == IMAGE],
        f"adapter, {TEXT}": plain[setting == TEXT],
        f"adapter, {TEXT}, {SIMPLE}": simple[simple["config"].map(lambda c: c["texts"] is None).astype(bool)],
    }
    columns = {}
    for k in sorted(plain["shots"].unique()):
        column = {}
        for name, group in lines.items():
            a = group[group["shots"].isin([0, k])]["accuracy"]
            column[name] = _cell(a.mean(), a.std(ddof=0), len(a)) if len(a) else "not run"
        columns[_shots(k)] = column
    table = Table(pd.DataFrame(columns).rename_axis(dataset))
    table.caption = (
        "Mean ± population standard deviation (number of seeds; zero-shot draws nothing, so it has one run). "
        f"{_origin(part)}"
    )
    return table


def _default(option: str):
    from fewshot.methods.text_adapter import Config

    return getattr(Config(), option)


def _mean(rows: pd.DataFrame, setting) -> str:
    a = rows[rows["setting"] == setting]["accuracy"]
    return _cell(a.mean(), a.std(ddof=0), len(a)) if len(a) else "not run"


def _interval(mean: float, low: float, high: float, n: int) -> str:
    return f"{_signed(mean)} [{_signed(low)}, {_signed(high)}] ({int(n)})"


def _shots(k: int) -> str:
    return "1 shot" if k == 1 else f"{k} shots"


# what the converter saw


def seen(model, task, dataset) -> dict[str, int]:
    """How many pictures the converter of a fitted model learned from, and of which part of the data set they are.

    `extra`: training pictures that are not among the shots, whose labels nobody has asked for.
    """
    saw, support = set(model.saw), set(task.train.ids)
    return {
        "converter saw": len(saw),
        "of the support": len(saw & support),
        "test pictures": len(saw & set(dataset.test.ids)),
        "validation pictures": len(saw & set(dataset.val.ids)),
        "extra training pictures": len(saw & (set(dataset.train.ids) - support)),
    }


def closeness(model, images) -> dict[str, float]:
    """Mean cosine of the first sentence of each class, converted, to pictures of its class and to the others."""
    from fewshot.data.features import image_features

    features = model.features(image_features(model.clip, images, progress=False).to(model.clip.device))
    made, labels = model.converted(1)
    cos = (made @ features.t()).cpu().numpy()
    own = labels.cpu().numpy()[:, None] == np.asarray(images.labels)
    return {"own class": float(cos[own].mean()), "other classes": float(cos[~own].mean())}


# figures


def count_curves(rows: pd.DataFrame, datasets: Sequence[str]):
    """Figure 4: accuracy against the number of texts, a line per number of shots, a panel per data set."""
    import matplotlib.pyplot as plt

    use_style()
    figure, axes = plt.subplots(1, len(datasets), figsize=(7, 3.2), squeeze=False, layout="constrained")
    part = adapter(rows)
    part = part.assign(m=part["config"].map(lambda c: c["texts"]))
    part = part[part["m"].notna()]
    for axis, dataset in zip(axes[0], datasets):
        own = part[part["dataset"] == dataset]
        numbers = sorted(own["m"].unique())
        shots = sorted(own["shots"].unique())
        for i, k in enumerate(shots):
            groups = own[own["shots"] == k].groupby("m")["accuracy"]
            mean, std, n = groups.mean(), groups.std(ddof=0), groups.size().min()
            x = [numbers.index(m) for m in mean.index]
            colour = plt.cm.viridis(0.85 * i / max(1, len(shots) - 1))
            axis.plot(x, mean, marker="osDv^Ph"[i % 7], color=colour, label=f"{_shots(k)} ({n} seeds)", markersize=4)
            axis.fill_between(x, mean - std, mean + std, color=colour, alpha=0.12, linewidth=0)
        axis.set(title=dataset, xlabel="texts per class")
        axis.set_xticks(range(len(numbers)), [str(int(m)) for m in numbers])
        axis.legend(fontsize="x-small")
    axes[0][0].set_ylabel("accuracy in percent")
    figure.suptitle(_origin(part, short=True), fontsize="small", color="#444444")
    plt.close(figure)
    return figure


def effect_curves(found: pd.DataFrame, title: str = ""):
    """The gain of the sentences with its interval, against the number of shots; `found` is that of `effects`."""
    import matplotlib.pyplot as plt

    use_style()
    figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
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


def gap_figure(model, images, texts: int = 5):
    """Pictures, sentences and converted sentences on the two main axes of all of them; each in the colour of its class."""
    import matplotlib.pyplot as plt
    import torch

    from fewshot.data.features import image_features

    pictures = unit(image_features(model.clip, images, progress=False)).cpu()
    bank, rows = model._learned["bank"], model._learned["order"][:, :texts]
    sentences = bank.features[rows[rows >= 0].to(bank.features.device)].cpu()
    converted = model.converted(texts)
    classes = torch.arange(len(rows))[:, None].expand_as(rows)[rows >= 0]
    parts = {
        "pictures": (pictures, np.asarray(images.labels), "o"),
        "sentences": (sentences, classes.numpy(), "x"),
        "converted": (converted[0].cpu(), converted[1].cpu().numpy(), "^"),
    }
    points, shares = project(torch.cat([x for x, _, _ in parts.values()]))
    use_style()
    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    start = 0
    for name, (x, labels, marker) in parts.items():
        some = points[start : start + len(x)]
        axis.scatter(some[:, 0], some[:, 1], c=labels, cmap="tab20", marker=marker, s=18, linewidths=0.9, label=name)
        start += len(x)
    axis.set(xlabel=f"first axis ({shares[0]:.0%} of the variance)", ylabel=f"second axis ({shares[1]:.0%})")
    axis.legend()
    axis.set_title(f"{model.dataset}, {model.config.converter}")
    plt.close(figure)
    return figure


def project(x) -> tuple[np.ndarray, np.ndarray]:
    """The two principal components of rows [n, D], and their shares of the variance."""
    x = np.asarray(x, float)
    u, s, vt = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    signs = np.sign(vt[np.arange(2), np.abs(vt[:2]).argmax(axis=1)])  # a direction has no sign of its own
    return u[:, :2] * s[:2] * signs, s[:2] ** 2 / (s**2).sum()
