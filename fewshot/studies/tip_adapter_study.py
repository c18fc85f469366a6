"""Tip-Adapter's questions: what does a cache of pictures add, how sharp is its setting, and how little training it takes."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pandas as pd

from fewshot import published
from fewshot.grids import grid
from fewshot.intervals import Effect, paired
from fewshot.methods import get_method
from fewshot.report import NOT_RUN, TITLES, Table, _average, _cell, _origin, _shots, _span
from fewshot.runs import Profile, Run
from fewshot.studies import datasets_of, with_options
from fewshot.studies.differences import average, shown

SHOTS = (1, 2, 4, 8, 16)
ZERO_SHOT, COOP, FREE, TUNED = (TITLES[name] for name in ("zero_shot", "coop", "tip_adapter", "tip_adapter_f"))
MAIN = {ZERO_SHOT: "zero_shot", COOP: "coop", FREE: "tip_adapter", TUNED: "tip_adapter_f"}
EPOCHS = (1, 2, 5, 10, 20, 50, 100)  # of fine-tuning; the authors take 20, and 100 on EuroSAT
VIEWS = (1, 2, 5, 10)  # augmented views averaged in a key of the cache; the authors take 10
SOME = ("imagenet", "dtd", "eurosat", "fgvc_aircraft")  # where epochs and views are varied
PAIRS = ((FREE, ZERO_SHOT), (TUNED, ZERO_SHOT), (TUNED, FREE), (FREE, COOP), (TUNED, COOP))


# the runs


def epochs_label(method: str, n: int) -> str:
    """The arm of a method with another number of epochs."""
    return f"{TITLES[method]}, {n} epoch{'s' if n > 1 else ''}"


def views_label(n: int) -> str:
    """The arm of the training-free method with n views in a key."""
    return f"{FREE}, {n} view{'s' if n > 1 else ''}"


def arms(
    profile: Profile,
    datasets: Sequence[str] | None = None,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = (1, 2, 3),
    some: Sequence[str] | None = None,
    epochs: Sequence[int] = EPOCHS,
    views: Sequence[int] = VIEWS,
    limit: int | None = None,
) -> dict[str, list[Run]]:
    """Four methods at every number of shots; and at most shots, on the data sets `some`: Tip-Adapter-F with other numbers
    of epochs, CoOp with 20, and Tip-Adapter with other numbers of views. None: all data sets, and four of them."""
    datasets = datasets_of(profile) if datasets is None else list(datasets)
    some = [d for d in datasets_of(profile, SOME) if d in datasets] if some is None else list(some)

    def varied(method: str, **options) -> list[Run]:
        own = with_options(profile, method, **options)
        return grid("tip_adapter_study", [method], some, [max(shots)], seeds, own, limit=limit)

    found = {
        label: grid("tip_adapter_study", [method], datasets, shots, seeds, profile, limit=limit)
        for label, method in MAIN.items()
    }
    found |= {epochs_label("tip_adapter_f", n): varied("tip_adapter_f", epochs=n) for n in epochs}
    found |= {epochs_label("coop", 20): varied("coop", epochs=20)}
    found |= {views_label(n): varied("tip_adapter", augment_epoch=n) for n in views}
    return {label: asked for label, asked in found.items() if asked}


# differences


def difference(rows: pd.DataFrame, of: str, minus: str, shots: int) -> pd.DataFrame:
    """One arm minus another at a number of shots, in points: a table data set x seed of what both have.

    Columns of `rows`: arm, dataset, shots, seed, accuracy. Zero-shot has 0 shots and stands beside every number of them.
    """
    left, right = (rows[(rows["arm"] == arm) & rows["shots"].isin([0, shots])] for arm in (of, minus))
    return paired(left, right) if len(left) and len(right) else pd.DataFrame()


def differences(rows: pd.DataFrame, pairs: Sequence[tuple[str, str]] = PAIRS) -> pd.DataFrame:
    """Each pair at each number of shots, mean with 95 % interval: columns pair, shots, mean, low, high, n, unit."""
    lines = []
    for of, minus in pairs:
        for k in sorted(set(rows["shots"]) - {0}):
            found = average(difference(rows, of, minus, k))
            if found.n:
                lines.append((name(of, minus), int(k), found.mean, found.low, found.high, found.n, found.unit))
    return pd.DataFrame(lines, columns=["pair", "shots", "mean", "low", "high", "n", "unit"])


def paper_rows() -> pd.DataFrame:
    """The published RN50 numbers in the form of rows: arm, dataset, shots, seed (one), accuracy."""
    paper = published.tip_adapter_rn50()
    return paper.assign(arm=paper["method"].map(TITLES), seed=1, accuracy=paper["top1"])


def epochs_of(row) -> int:
    """Passes over the support set in a row's training: of its config, or else by the method's own rule; 0 without training."""
    cls = get_method(row["method"])
    if not cls.trained or not cls.sees_support:
        return 0
    return row["config"].get("epochs") or cls.epochs(SimpleNamespace(dataset=row["dataset"], shots=int(row["shots"])))


# tables


def accuracy_table(rows: pd.DataFrame, shots: Sequence[int], datasets: Sequence[str]) -> Table:
    """The four methods by number of shots, averaged over the data sets; below, the published averages of RN50."""
    paper, lines = paper_rows(), {}
    for arm in MAIN:
        lines[arm] = {}
        for k in shots:
            part = rows[(rows["arm"] == arm) & rows["shots"].isin([0, k])]
            covered = [d for d in datasets if d in set(part["dataset"])]
            lines[arm][_shots(k)] = _cell(*_average(part, covered)) if covered else NOT_RUN
            if 0 < len(covered) < len(datasets):
                lines[arm][_shots(k)] += f", {len(covered)} of {len(datasets)} sets"
    for arm in (ZERO_SHOT, FREE, TUNED):
        own = paper[paper["arm"] == arm]
        found = {k: own[own["shots"].isin([0, k])]["accuracy"] for k in shots}
        lines[f"{arm}, RN50 (published)"] = {_shots(k): f"{a.mean():.1f}" if len(a) else "–" for k, a in found.items()}
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "method"
    table.caption = (
        f"Accuracy in percent, average over {len(datasets)} data sets: mean ± population standard deviation over the seeds "
        f"(number of seeds). {_origin(rows)} Published: the log beside the authors' code, RN50, one seed, average over "
        "eleven real data sets; settings and epoch chosen partly on the test sets."
    )
    return table


def difference_table(rows: pd.DataFrame, shots: Sequence[int]) -> Table:
    """Each pair by number of shots with its interval; published differences of RN50 below, where both sides are published."""
    paper, lines = paper_rows(), {}
    for of, minus in PAIRS:
        for source, suffix in ((rows, ""), (paper, ", RN50 (published)")):
            if suffix and COOP in (of, minus):
                continue
            cells = {_shots(k): shown(average(difference(source, of, minus, k))) for k in shots}
            lines[name(of, minus) + suffix] = {k: "–" if suffix and v == NOT_RUN else v for k, v in cells.items()}
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "difference"
    table.caption = (
        f"Points: mean over the data sets [95 % interval of Student's t over the data sets]. {_origin(rows)}"
    )
    table.caption += (
        " Published numbers: one seed, interval over the eleven real data sets, computed here from the log."
    )
    return table


def epoch_table(rows: pd.DataFrame, some: Sequence[str], shots: int) -> Table:
    """Tip-Adapter-F at 20 epochs beside CoOp at 20 and at its own number of epochs, data set by data set."""
    rows = rows[rows["shots"] == shots]
    short, brief = epochs_label("tip_adapter_f", 20), epochs_label("coop", 20)
    columns, lines = {short: short, brief: brief, COOP: "CoOp, its own epochs"}, {}
    for dataset in some:
        own = rows[rows["dataset"] == dataset]
        line = {}
        for arm, name in columns.items():
            a = own[own["arm"] == arm]
            line[name] = _cell(a["accuracy"].mean(), a["accuracy"].std(ddof=0), len(a)) if len(a) else NOT_RUN
        budget = sorted({epochs_of(row) for row in own[own["arm"] == COOP].to_dict("records")})
        line["its own epochs are"] = ", ".join(map(str, budget)) or NOT_RUN
        line["difference, equal epochs"] = shown(average(difference(own, short, brief, shots)))
        line["difference, CoOp's own epochs"] = shown(average(difference(own, short, COOP, shots)))
        lines[dataset] = line
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "data set"
    table.caption = (
        f"{_shots(shots)} per class, accuracy in percent: mean ± population standard deviation (number of seeds). "
        f"Differences: Tip-Adapter-F with 20 epochs minus CoOp, points [95 % interval over the seeds]. {_origin(rows)}"
    )
    return table


def view_table(rows: pd.DataFrame, some: Sequence[str], views: Sequence[int]) -> Table:
    """Training-free accuracy by the number of augmented views in a key; what the most views add to fewer."""
    most, lines = views_label(max(views)), {}
    for n in views:
        own = rows[rows["arm"] == views_label(n)]
        cells = {d: own[own["dataset"] == d]["accuracy"] for d in some}
        line = {d: _cell(a.mean(), a.std(ddof=0), len(a)) if len(a) else NOT_RUN for d, a in cells.items()}
        k = int(own["shots"].max()) if len(own) else 0
        line[f"{max(views)} views add"] = (
            "–" if n == max(views) else shown(average(difference(rows, most, views_label(n), k)))
        )
        lines[str(n)] = line
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "views per key"
    part = rows[rows["arm"].isin([views_label(n) for n in views])]
    table.caption = (
        f"{FREE}, {_shots(int(part['shots'].max())) if len(part) else 'not run'}, accuracy in percent: mean ± population "
        f"standard deviation (number of seeds); differences in points [95 % interval over the data sets]. {_origin(part)}"
    )
    return table


def budget_table(rows: pd.DataFrame, timed: pd.DataFrame, shots: int) -> Table:
    """What the methods cost at `shots`: epochs, numbers learned, seconds in the grid and seconds of the timed runs."""
    lines = {}
    for arm in MAIN:
        own = rows[(rows["arm"] == arm) & rows["shots"].isin([0, shots])]
        alone = timed[(timed["arm"] == arm) & timed["shots"].isin([0, shots])] if len(timed) else timed
        epochs = pd.Series([epochs_of(row) for row in own.to_dict("records")], dtype=float)
        grid_seconds = own.groupby("seed")["seconds_fit"].mean()
        lines[arm] = {
            "epochs": _span(epochs) if len(own) else NOT_RUN,
            "numbers learned": _span(own["parameters"]) if len(own) else NOT_RUN,
            "seconds, timed alone": _seconds(alone["seconds_fit"]) if len(alone) else NOT_RUN,
            "seconds in the grid": _seconds(grid_seconds) if len(own) else NOT_RUN,
        }
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "method"
    table.caption = (
        f"{_shots(shots)} per class. Timed alone: on ImageNet (its stand-in in the toy world), one run at a time, with no "
        "image feature computed before, mean ± population standard deviation over the seeds (number). In the grid: mean over "
        "the data sets, taken beside other work, and views that an earlier run has encoded come from the cache: "
        f"Tip-Adapter-F finds those of Tip-Adapter. {_origin(rows)}"
    )
    return table


# sentences


def statement(rows: pd.DataFrame, shots: Sequence[int]) -> str:
    """Training-free against trained CoOp, fine-tuned against training-free: a sentence per number of shots and question."""
    questions = (
        ((FREE, COOP), "better than trained CoOp", "worse than trained CoOp"),
        ((TUNED, FREE), "worth its training", "worse than no training"),
    )
    said = []
    for (of, minus), above, below in questions:
        for k in shots:
            found = average(difference(rows, of, minus, k))
            if not found.n:
                said.append(f"{_shots(k)}: {name(of, minus)} not run.")
                continue
            verdict = {"above": above, "below": below, "undecided": "undecided"}[found.against(0)]
            said.append(f"{_shots(k)}: {name(of, minus)} {_told(found)}: {verdict}.")
    return "\n".join(said)


def epoch_statement(rows: pd.DataFrame, some: Sequence[str], shots: int) -> str:
    """How many times fewer epochs Tip-Adapter-F's own rule takes than CoOp's, and what 20 epochs of each are worth."""
    rows = rows[rows["dataset"].isin(some)]
    said = []
    for dataset in some:
        own = rows[(rows["dataset"] == dataset) & (rows["shots"] == shots)]
        one = {arm: own[own["arm"] == arm].to_dict("records")[:1] for arm in (TUNED, COOP)}
        if all(one.values()):
            few, many = (epochs_of(one[arm][0]) for arm in (TUNED, COOP))
            said.append(f"{dataset}: {few} epochs of {TUNED}, {many} of {COOP}: {many / few:.3g} times fewer.")
    short = epochs_label("tip_adapter_f", 20)
    for other, what in ((epochs_label("coop", 20), "20 epochs"), (COOP, "its own number of epochs")):
        found = average(difference(rows, short, other, shots))
        said.append(f"{short}, minus CoOp with {what}: {_told(found)}.")
    own = average(difference(rows, TUNED, COOP, shots))
    said.append(f"Each with its own number of epochs: {_told(own)}.")
    return "\n".join(said)


# small things


def name(of: str, minus: str) -> str:
    """How a difference of two arms is called."""
    short = {ZERO_SHOT: "zero-shot"}
    return f"{short.get(of, of)} − {short.get(minus, minus)}"


def _told(found: Effect) -> str:
    return shown(found) + (f" points over {found.n} {found.unit}" if found.n > 1 else "")


def _seconds(values: pd.Series) -> str:
    digits = 2 if values.mean() < 1 else 1
    spread = f" ± {values.std(ddof=0):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread} ({len(values)})"
