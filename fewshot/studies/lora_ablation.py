"""CLIP-LoRA's own question (its figure 3): which matrices, what rank, which encoder and which blocks to adapt, at 4 shots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from fewshot.errors import FewshotError, unknown
from fewshot.grids import grid
from fewshot.intervals import Effect, paired, t_interval
from fewshot.lora import MATRICES
from fewshot.methods.clip_lora import POSITIONS, Config, layers_at
from fewshot.report import NOT_RUN, Table, _average, _cell, _origin, _shots, _signed, _span
from fewshot.runs import Profile, Run
from fewshot.studies import datasets_of, with_options
from fewshot.studies.differences import average, shown

SOME = ("imagenet", "stanford_cars", "eurosat")
SETS = ("q", "k", "v", "o", "qv", "qkv", "qkvo")  # of matrices
GRID_RANKS = (2, 8, 32)  # beside every set of matrices
RANKS = (1, 2, 4, 8, 16, 32, 64)  # at q, k and v of both encoders
ENCODERS = ("text", "vision", "both")
DEFAULT = {"params": "".join(Config.params), "r": Config.r, "encoder": Config.encoder, "position": Config.position}
AVERAGE = "average"


def label(params: str = DEFAULT["params"], r: int = DEFAULT["r"], encoder: str = "both", position: str = "all") -> str:
    """The arm of a setting: "qkv, rank 2, both, all" is the authors' own."""
    return f"{params}, rank {r}, {encoder}, {position}"


OWN = label()


def settings(
    matrices: Sequence[str], grid_ranks: Sequence[int], ranks: Sequence[int], positions: Sequence[str]
) -> list[dict]:
    """Every setting once, the authors' own first: {params, r, encoder, position}."""
    asked = [dict(DEFAULT)]
    asked += [DEFAULT | {"params": params, "r": r} for params in matrices for r in grid_ranks]
    asked += [DEFAULT | {"r": r} for r in ranks]
    asked += [DEFAULT | {"encoder": encoder, "position": p} for encoder in ENCODERS for p in positions]
    return list({label(**setting): setting for setting in asked}.values())


def arms(
    profile: Profile,
    datasets: Sequence[str] | None = None,
    shots: int = 4,
    seeds: Sequence[int] = (1, 2, 3),
    matrices: Sequence[str] = SETS,
    grid_ranks: Sequence[int] = GRID_RANKS,
    ranks: Sequence[int] = RANKS,
    positions: Sequence[str] = tuple(POSITIONS),
    limit: int | None = None,
) -> dict[str, list[Run]]:
    """An arm per setting: matrices x `grid_ranks`, `ranks` at the authors' matrices, encoders x `positions` at their rank.

    A setting that several of the three grids ask for is one arm. What a setting leaves as the authors have it is not
    written down, so the arm of their own setting has the runs of every other experiment. None: three data sets.
    Raises FewshotError for an unknown matrix or position.
    """
    datasets = datasets_of(profile, SOME) if datasets is None else list(datasets)
    for params in matrices:
        if not params or set(params) - set(MATRICES):
            raise FewshotError(f"{params!r} names no set of matrices; write letters of {MATRICES}, as in 'qv'.")
    for position in positions:
        if position not in POSITIONS:
            raise unknown("LoRA position", position, POSITIONS)
    usual = DEFAULT | {"params": list(DEFAULT["params"])} | profile.methods.get("clip_lora", {})
    found = {}
    for setting in settings(matrices, grid_ranks, ranks, positions):
        options = setting | {"params": list(setting["params"])}
        options = {name: value for name, value in options.items() if value != usual[name]}
        own = with_options(profile, "clip_lora", **options)
        found[label(**setting)] = grid("lora_ablation", ["clip_lora"], datasets, [shots], seeds, own, limit=limit)
    return found


def blocks_table(depths: Mapping[str, int], positions: Sequence[str] = tuple(POSITIONS)) -> Table:
    """Which blocks a position means: a column per encoder, {"text encoder": 12}; block 1 is the one next to the input."""

    def named(position: str, depth: int) -> str:
        try:
            return ", ".join(str(i + 1) for i in layers_at(position, depth))
        except FewshotError:
            return "none"

    columns = {f"{name}, {depth} blocks": [named(p, depth) for p in positions] for name, depth in depths.items()}
    table = Table(pd.DataFrame(columns, index=pd.Index(list(positions), name="position")))
    table.caption = "Blocks that are adapted; block 1 is the first one after the input."
    return table


# the data of tables and figures


def cells(rows: pd.DataFrame, labels: Sequence[str], datasets: Sequence[str]) -> pd.DataFrame:
    """A line per arm and data set, the average of all of them first.

    Columns arm, params, r, encoder, position, dataset, mean, std (population, over the seeds; of the average that of the
    seeds' averages), n (seeds), parameters. An arm that was not run has no line, and one that lacks a data set no average.
    """
    lines = []
    for arm in labels:
        own = rows[rows["arm"] == arm]
        found = {d: _average(own[own["dataset"] == d], [d]) for d in datasets if (own["dataset"] == d).any()}
        if len(found) == len(datasets) > 1:
            found = {AVERAGE: _average(own, list(datasets))} | found
        lines += [
            {"arm": arm, **setting_of(arm), "dataset": dataset, "mean": mean, "std": std, "n": n}
            | {"parameters": int(own["parameters"].max())}
            for dataset, (mean, std, n) in found.items()
        ]
    return pd.DataFrame(lines, columns=["arm", *DEFAULT, "dataset", "mean", "std", "n", "parameters"])


def setting_of(arm: str) -> dict:
    """{params, r, encoder, position} of an arm's label."""
    params, rank, encoder, position = arm.split(", ")
    return {"params": params, "r": int(rank.removeprefix("rank ")), "encoder": encoder, "position": position}


def difference(rows: pd.DataFrame, left: str, right: str) -> pd.DataFrame:
    """Points of arm `left` over arm `right`, draw by draw: a table data set x seed, empty where one was not run."""
    return paired(rows[rows["arm"] == left], rows[rows["arm"] == right])


def over_seeds(differences: pd.DataFrame) -> Effect:
    """The mean difference of these very data sets, with Student's interval over the seeds that all of them have."""
    values = differences.dropna(axis="columns").mean()
    if not len(values):
        return average(differences.iloc[:0])
    return Effect(*t_interval(values), len(values), "seeds")


def places(datasets: Sequence[str]) -> list[str]:
    """The columns of a table and the panels of a figure: the average where there are several data sets, then each."""
    return [AVERAGE, *datasets] if len(datasets) > 1 else list(datasets)


# tables


def settings_table(rows: pd.DataFrame, labels: Sequence[str], datasets: Sequence[str]) -> Table:
    """Every setting: how many numbers are learned, accuracy by data set, and points over the authors' own setting."""
    found = cells(rows, labels, datasets).set_index(["arm", "dataset"])
    lines = {}
    for arm in labels:
        own = rows[rows["arm"] == arm]
        line = {"numbers learned": _span(own["parameters"]) if len(own) else NOT_RUN}
        for name in places(datasets):
            there = (arm, name) in found.index
            cell = found.loc[(arm, name)] if there else None
            line[name] = _cell(cell["mean"], cell["std"], int(cell["n"])) if there else NOT_RUN
        gap = difference(rows, arm, OWN)
        line["over the authors' own"] = "–" if arm == OWN else shown(over_seeds(gap)) if gap.size else NOT_RUN
        lines[arm] = line
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "matrices, rank, encoder, blocks"
    table.marks = {(OWN, name): "strong" for name in table.columns} if OWN in lines else {}
    table.caption = (
        f"Top-1 accuracy in percent{_at(rows)}: mean ± population standard deviation (number of seeds). The last "
    )
    table.caption += "column is in points, averaged over the data sets that both have [95 % interval over the seeds]. "
    table.caption += f"Bold: the authors' own setting. {_origin(rows)}"
    return table


def rank_table(rows: pd.DataFrame, ranks: Sequence[int], datasets: Sequence[str]) -> Table:
    """Rank by rank: numbers learned, the factor in front of the branch, how fast it moves, accuracy, points over rank 2."""
    table = settings_table(rows, [label(r=r) for r in ranks], datasets)
    scale = [Config.alpha / r**0.5 for r in ranks]
    table.insert(1, "factor α/√r", [f"{value:.2f}" for value in scale])
    table.insert(2, "speed, rank 2 = 1", [f"{(r / 2) ** 0.5:.1f}" for r in ranks])
    caption, table.index = table.caption, pd.Index([str(r) for r in ranks], name="rank")
    table.marks, table.caption = {}, caption.replace("Bold: the authors' own setting. ", "")
    return table


def comparisons(rows: pd.DataFrame, pairs: Mapping[str, tuple[str, str]]) -> Table:
    """Paired differences of arms, {"both − text": (arm, arm)}: by data set over the seeds, and over all in both ways."""
    lines, datasets = {}, list(dict.fromkeys(rows["dataset"]))
    for name, (left, right) in pairs.items():
        gap = difference(rows, left, right)
        line = {"mean, over data sets": shown(average(gap)) if gap.size else NOT_RUN}
        line["mean, over seeds"] = shown(over_seeds(gap)) if gap.size else NOT_RUN
        line |= {d: shown(average(gap.loc[[d]])) if d in gap.index else NOT_RUN for d in datasets}
        lines[name] = line
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "difference"
    table.caption = (
        f"Points of accuracy{_at(rows)} [95 % interval, Student's t on the differences draw by draw]. The first "
    )
    table.caption += "interval asks about other data sets, the others about other draws of these. " + _origin(rows)
    return table


PAIRS = {
    "both − text": (OWN, label(encoder="text")),
    "both − vision": (OWN, label(encoder="vision")),
    "vision − text": (label(encoder="vision"), label(encoder="text")),
    "all − upper half": (OWN, label(position="half-up")),
    "all − lower half": (OWN, label(position="half-bottom")),
    "upper − lower half": (label(position="half-up"), label(position="half-bottom")),
    "rank 32 − rank 2": (label(r=32), OWN),
    "qkvo − qkv": (label("qkvo"), OWN),
}


def statement(rows: pd.DataFrame, datasets: Sequence[str]) -> str:
    """What the differences decide, a sentence a line: both encoders, all blocks, ranks, matrices."""
    said = []
    words = {"above": "above 0", "below": "below 0", "undecided": "undecided"}
    for name, (left, right) in PAIRS.items():
        gap = difference(rows, left, right)
        if gap.size:
            each = [f"{d} {_signed(v)}" for d, v in gap.mean(axis=1).items()]
            verdicts = [words[found(gap).against()] for found in (average, over_seeds)]
            said.append(
                f"{name}: {shown(average(gap))} over {_count(len(gap), 'data set')} ({verdicts[0]}), "
                f"{shown(over_seeds(gap))} over the seeds ({verdicts[1]}); {', '.join(each)}."
            )
    found = cells(rows, sorted(set(rows["arm"])), datasets)
    usual = found[(found["encoder"] == "both") & (found["position"] == "all")]
    for what, column, part in (
        ("ranks, at qkv of both encoders", "r", usual[usual["params"] == DEFAULT["params"]]),
        ("sets of matrices, at rank 2 of both encoders", "params", usual[usual["r"] == DEFAULT["r"]]),
    ):
        for dataset in places(datasets):
            own = part[part["dataset"] == dataset].sort_values("mean")
            if len(own) > 1:
                low, high = own.iloc[0], own.iloc[-1]
                gap = difference(rows, high["arm"], low["arm"])
                gap = over_seeds(gap if dataset == AVERAGE else gap.loc[[dataset]])
                said.append(
                    f"{dataset}, {len(own)} {what}: best {high[column]} ({high['mean']:.1f}), worst {low[column]} "
                    f"({low['mean']:.1f}); {shown(gap)} over the seeds."
                )
    return "\n".join(said) or "Nothing was run, so nothing can be said."


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _at(rows: pd.DataFrame) -> str:
    return f", {_shots(int(rows['shots'].iloc[0]))} per class" if len(rows) else ""
