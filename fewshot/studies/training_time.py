"""How long does each method train? The CLIP-LoRA paper's table 1: every method on ImageNet with 16 pictures per class.

Times are only comparable when they were taken alike, so these rows are made for themselves: see fewshot/studies/alone.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import pandas as pd

from fewshot import published
from fewshot.grids import grid
from fewshot.methods import get_method
from fewshot.report import NOT_RUN, TITLES, Table, _cell, _is_toy, _origin, _published_title, _shots
from fewshot.runs import Profile, Run
from fewshot.studies import datasets_of
from fewshot.studies.alone import run_alone
from fewshot.studies.method_table import ALL_CLASS

AGAINST = "clip_lora"  # the method that ratios are to
WAITED = 0.1  # share of its time for which a run may have waited for a processor; more, and its seconds say little
IDLE = 1.5  # where that is not known: a load average above it means that something else was going on

# columns of a row that are read here; those of `run_alone` are missing where a run was not made by it
MEASURED = ("seconds_fit", "seconds_evaluate", "parameters", "peak_memory_mb")
MEASURED += ("steps", "training_images", "n_classes", "seconds_text")

run_one = run_alone

HERE = True  # its seconds are compared, so one machine makes all of them


def arms(
    profile: Profile,
    methods: Sequence[str] = ALL_CLASS,
    datasets: Sequence[str] | None = None,
    shots: int = 16,
    seeds: Sequence[int] = (1, 2, 3),
) -> dict[str, list[Run]]:
    """An arm per method. The runs are the method table's, but not its rows (see `run_one`). None: ImageNet alone."""
    datasets = datasets_of(profile, ["imagenet"]) if datasets is None else list(datasets)
    return {TITLES[m]: grid("training_time", [m], datasets, [shots], seeds, profile) for m in methods}


def costs(rows: pd.DataFrame, dataset: str, labels: Sequence[str]) -> pd.DataFrame:
    """What a run of each arm costs on one data set, means over the seeds; the data of all tables and figures.

    Columns: arm, method, n (seeds), accuracy in percent, seconds of training; ratio to CLIP-LoRA's seconds; ms_per_image of
    the training loop (NaN without one) and images_per_second, its inverse; ms_per_step; tests_per_second; classes_per_second
    (NaN where no names are read); each with a population standard deviation over the seeds in NAME_std. steps, parameters,
    memory (MB), published_ratio to CLIP-LoRA (its table 1) and published_ms per picture (KgCoOp README). Arms without rows
    are left out.
    """
    part = rows[rows["dataset"] == dataset]
    part = part.reindex(columns=list(dict.fromkeys([*part.columns, *MEASURED])))
    steps, images = (part[name].where(part[name] > 0) for name in ("steps", "training_images"))  # 0: no such loop
    measured = {
        "accuracy": part["accuracy"],
        "seconds": part["seconds_fit"],
        "ratio": part["seconds_fit"] / part.loc[part["method"] == AGAINST, "seconds_fit"].mean(),
        "ms_per_image": 1000 * part["seconds_fit"] / images,
        "images_per_second": images / part["seconds_fit"],
        "ms_per_step": 1000 * part["seconds_fit"] / steps,
        "tests_per_second": part["n_test"] / part["seconds_evaluate"],
        "classes_per_second": part["n_classes"] / part["seconds_text"].astype(float),
    }
    part = part.assign(**measured)
    ratios, per_image = _published_ratios(), _published_ms()
    lines = []
    for arm in labels:
        own = part[part["arm"] == arm]
        if own.empty:
            continue
        method = own["method"].iloc[0]
        line = {"arm": arm, "method": method, "n": len(own)}
        for name in measured:
            line |= {name: own[name].mean(), f"{name}_std": own[name].std(ddof=0)}
        line |= {name: own[name].mean() for name in ("steps", "parameters")} | {"memory": own["peak_memory_mb"].mean()}
        line |= {"published_ratio": ratios.get(method, math.nan), "published_ms": per_image.get(method, math.nan)}
        lines.append(line)
    names = ["arm", "method", "n", *(n + end for n in measured for end in ("", "_std"))]
    return pd.DataFrame(lines, columns=[*names, "steps", "parameters", "memory", "published_ratio", "published_ms"])


def _published_ratios() -> pd.Series:
    """Minutes of CLIP-LoRA's table 1 by our names, as ratios to CLIP-LoRA."""
    minutes = published.training_times().replace({"method": published.METHOD_OF}).set_index("method")["minutes"]
    return minutes / minutes[AGAINST]


def _published_ms() -> pd.Series:
    return published.per_image_times().set_index("method")["ms_per_image"]


# tables


def time_table(found: pd.DataFrame, rows: pd.DataFrame, labels: Sequence[str]) -> Table:
    """Seconds (minutes, where the pictures are real) of training, as ratios to CLIP-LoRA here and there, and per picture."""
    (name, seconds), here = unit(rows), "here (toy)" if _toy(rows) else "here"
    columns = [
        name,
        f"× CLIP-LoRA, {here}",
        "× CLIP-LoRA, published",
        "steps",
        "ms per step",
        f"ms per picture, {here}",
    ]
    columns.append("ms per picture, published")
    lines = {}
    for arm in labels:
        one = found[found["arm"] == arm]
        if one.empty:
            lines[arm] = dict.fromkeys(columns, NOT_RUN)
            continue
        one = one.iloc[0]
        cells = [number(one["seconds"] / seconds, one["seconds_std"] / seconds, one["n"])]
        cells += [number(one["ratio"], one["ratio_std"], one["n"]), _printed(one["published_ratio"])]
        cells.append(f"{one['steps']:,.0f}" if one["steps"] else "–")
        cells.append(number(one["ms_per_step"], one["ms_per_step_std"], one["n"]))
        cells += [number(one["ms_per_image"], one["ms_per_image_std"], one["n"]), _printed(one["published_ms"])]
        lines[arm] = dict(zip(columns, cells, strict=True))
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "method"
    table.caption = (
        f"Training{_at(rows)}: mean ± population standard deviation (number of seeds). Per step and per picture: "
    )
    table.caption += "the whole fit over those of its training loop, repeats counted; – where there is no such loop. "
    table.caption += "Published: minutes of CLIP-LoRA's table 1 as ratios; KgCoOp README. " + _origin(rows)
    return table


def rates_table(found: pd.DataFrame, rows: pd.DataFrame, labels: Sequence[str]) -> Table:
    """Pictures and classes per second, numbers learned, memory, accuracy."""
    rates = {
        "training pictures per second": "images_per_second",
        "test pictures per second": "tests_per_second",
        "classes per second": "classes_per_second",
    }
    floor = found.loc[found["method"] == "zero_shot", "memory"].min()
    lines = {}
    for arm in labels:
        one = found[found["arm"] == arm]
        names = [*rates, "numbers learned", "peak memory, MB", "above zero-shot, MB", "accuracy"]
        if one.empty:
            lines[arm] = dict.fromkeys(names, NOT_RUN)
            continue
        one = one.iloc[0]
        cells = [number(one[name], one[f"{name}_std"], one["n"]) for name in rates.values()]
        cells += [f"{one['parameters']:,.0f}", f"{one['memory']:,.0f}"]
        cells += ["–" if math.isnan(floor) else f"{one['memory'] - floor:,.0f}".replace("-", "−")]
        lines[arm] = dict(zip(names, [*cells, _cell(one["accuracy"], one["accuracy_std"], one["n"])], strict=True))
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "method"
    table.caption = (
        f"Mean ± population standard deviation over the seeds{_at(rows)}. Test: the features of the pictures are "
    )
    table.caption += (
        "computed as well. Classes: from the names to the scores of one picture. Memory: mean over the seeds of "
    )
    table.caption += f"{_memory_of(rows)}. {_origin(rows)}"
    return table


def published_table() -> Table:
    """The papers' own minutes and milliseconds per picture; nothing measured here."""
    times, per_image = published.training_times(), published.per_image_times()
    minutes = dict(zip(times["method"].replace(published.METHOD_OF), times["minutes"], strict=True))
    ms = dict(zip(per_image["method"], per_image["ms_per_image"], strict=True))
    methods = sorted({*minutes, *ms}, key=list(TITLES).index)
    lines = [(TITLES[m], str(minutes.get(m, "–")), str(ms.get(m, "–"))) for m in methods]
    table = Table(pd.DataFrame(lines, columns=["method", "minutes", "ms per picture"]).set_index("method"))
    common = times["setting"].iloc[0]
    notes = [_published_title(one.method) for one in times.itertuples() if "_ctx" in one.method]
    rest = [(TITLES.get(one.method), one.setting.removeprefix(common).strip(", ")) for one in times.itertuples()]
    notes += [f"{name}, {note}" for name, note in rest if note]
    table.caption = f"Published, not measured here. Minutes: CLIP-LoRA, table 1, {common} ({'; '.join(notes)}). "
    table.caption += f"Milliseconds: {per_image['source'].iloc[0]}, {per_image['protocol'].iloc[0]}."
    return table


def number(value: float, std: float = math.nan, n: int = 1) -> str:
    """Three digits that count, "44.3 ± 1.2 (3)"; "–" for what there is not."""
    if math.isnan(value):
        return "–"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.{min(digits, 4)}f}"
    return f"{text} ± {std:,.{min(digits, 4)}f} ({n})" if n > 1 else text


def _printed(value: float) -> str:
    """A published number as it was printed, or "–"."""
    return "–" if math.isnan(value) else f"{value:g}"


def _toy(rows: pd.DataFrame) -> bool:
    return rows.empty or _is_toy(*rows[["backbone", "dataset"]].iloc[0])


def unit(rows: pd.DataFrame) -> tuple[str, int]:
    """The unit of a training time and its seconds: real pictures take minutes."""
    return ("seconds", 1) if _toy(rows) else ("minutes", 60)


def _at(rows: pd.DataFrame) -> str:
    trained = rows[rows["shots"] > 0] if len(rows) else rows
    return f", {trained['dataset'].iloc[0]}, {_shots(int(trained['shots'].iloc[0]))} per class" if len(trained) else ""


def _memory_of(rows: pd.DataFrame) -> str:
    return ", ".join(sorted(set(rows["peak_memory_of"]))) if len(rows) else "nothing"


# sentences


def statement(found: pd.DataFrame, rows: pd.DataFrame) -> str:
    """The order of the published four here and there, times per picture, who is quick, memory, was the machine idle."""
    said = []
    four = found[found["published_ratio"].notna()].dropna(subset="ratio").sort_values("published_ratio")
    if len(four) > 1:
        pairs = list(combinations(four["ratio"], 2))
        same = sum(first < second for first, second in pairs)
        there = ", ".join(f"{one.arm} {_printed(one.published_ratio)}" for one in four.itertuples())
        here = ", ".join(f"{one.arm} {number(one.ratio)}" for one in four.sort_values("ratio").itertuples())
        said.append(f"Published, times CLIP-LoRA's: {there}.")
        said.append(f"Here: {here}; {same} of {len(pairs)} pairs are in the published order.")
        step = four.set_index("arm")["ms_per_step"].dropna().sort_values()
        each = ", ".join(f"{arm} {number(value)} ms" for arm, value in step.items())
        said.append(f"A step of each (its own batch, preparation shared out): {each}.")
    per_image = found.set_index("method")[["ms_per_image", "published_ms"]].dropna()
    if "coop" in per_image.index:
        ratios = per_image / per_image.loc["coop"]
        for method in (m for m in ratios.index if m != "coop"):
            here, there = ratios.loc[method]
            said.append(
                f"{TITLES[method]}, time per training picture: {number(here)} times CoOp's; "
                f"{number(there)} times in KgCoOp's README."
            )
    trained = found[found["method"] != "zero_shot"]
    plain = pd.Series([not _runs_an_encoder(method) for method in trained["method"]], trained.index, dtype=bool)
    heads = trained[plain].dropna(subset="ratio")
    if len(heads):
        slowest, runs = heads.loc[heads["ratio"].idxmax()], "method runs" if len(heads) == 1 else "methods run"
        said.append(
            f"{len(heads)} {runs} no encoder in a step of training; the slowest of them, {slowest['arm']}, takes "
            f"{number(slowest['ratio'])} of CLIP-LoRA's time."
        )
    seconds = found.set_index("method")["seconds"]
    if {"tip_adapter_f", "coop"} <= set(seconds.index):
        share = number(seconds["tip_adapter_f"] / seconds["coop"])
        said.append(f"{TITLES['tip_adapter_f']}, its keys included, takes {share} of CoOp's time.")
    if len(trained) > 1:
        ends = [trained.loc[i] for i in (trained["seconds"].idxmin(), trained["seconds"].idxmax())]
        said.append(
            f"Quickest {ends[0]['arm']} ({number(ends[0]['seconds'])} s), slowest {ends[1]['arm']} "
            f"({number(ends[1]['seconds'])} s): a factor of {number(ends[1]['seconds'] / ends[0]['seconds'])}."
        )
    said += _disturbed(rows)
    return "\n".join(said) or "Nothing was run, so nothing can be said."


def _disturbed(rows: pd.DataFrame) -> list[str]:
    """Whether the runs had their processor for themselves."""
    busy = "SOMETHING ELSE WAS RUNNING, do not trust the times"
    if "waited" in rows and rows["waited"].notna().all():
        most = rows["waited"].max()
        verdict = "each had one for itself" if most <= WAITED else busy
        return [f"The runs waited for a processor for at most {100 * most:.1f} % of their time: {verdict}."]
    if "load" in rows and rows["load"].notna().any():
        high = rows["load"].max()
        return [f"Load average before the runs: at most {high:.1f}, {'the machine was idle' if high <= IDLE else busy}."]
    return []


def _runs_an_encoder(method: str) -> bool:
    """In every step: the image encoder, or the text encoder for prompts that are learned."""
    cls = get_method(method)
    return cls.needs == "images" or hasattr(cls, "text_features")
