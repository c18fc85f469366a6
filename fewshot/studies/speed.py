"""Seconds of a step beside the authors' computation: tables and sentences from the rows of benchmarks/speed.py.

A row is one path of one measurement (`kind`): a training step or an evaluation pass ("step"), an encoder by itself
("tower"), a saving of the ablation ("ablation"), the one check of the straight line ("linearity"), or small heads fitted
in turn or as one ("together").
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd

from fewshot import published
from fewshot.report import TITLES, Table
from fewshot.runs import results_folder
from fewshot.studies.training_time import WAITED, number

OURS, REFERENCE = "ours", "reference"
ELSEWHERE = "‡"
HEADS = ("tip_adapter_f", "taskres", "clip_adapter", "lpplusplus")
# what was asked for before anything was measured: times faster than the authors' computation, at 100 and at 1000 classes
TARGETS = {"coop": (10, 12), "kgcoop": (10, 12), "prograd": (10, 12), "cocoop": (8, 10), "plotpp": (3, 7),
           "maple": (3, 7), "clip_lora": (2.5, 5), **dict.fromkeys(HEADS, (100, 100))}  # fmt: skip
PEAK_TARGET, MEMORY_TARGET = 0.6, 4e9  # share of the matrix-product peak in both towers; bytes of CoOp, 1000 classes
GPU_COMMAND = "python benchmarks/speed.py --device cuda --precision bf16 --rows results/speed/cuda.jsonl"
COLUMNS = ("key", "kind", "phase", "path", "method", "classes", "batch", "shots", "seconds", "fastest", "slowest", "repeats",
           "flops", "bytes", "memory", "peak_share", "peak_flops", "bandwidth", "proof", "scaled_from", "options", "tower",
           "stage", "saving", "hardware", "threads", "versions", "date", "load_average", "waited", "device",
           "precision", "elsewhere")  # fmt: skip
# a training on 16-shot ImageNet: pictures in a batch and passes over its 16000 pictures (CLIP-LoRA: 500 steps per shot)
PICTURES = 16_000
BATCHES = {"coop": 32, "cocoop": 1, "kgcoop": 128, "prograd": 32, "plotpp": 32, "maple": 4, "clip_lora": 32}
EPOCHS = {"coop": 50, "cocoop": 10, "kgcoop": 100, "prograd": 50, "plotpp": 50, "maple": 5}
VIEWS = 8  # of each picture, where they are encoded once and kept


def read(device: str = "cpu", path: Path | None = None) -> pd.DataFrame:
    """The rows of a device, results/speed/DEVICE.jsonl or another file; an empty frame where there are none.

    `peak_flops`, and with it `peak_share`, is that of the best product of all rows of a machine, which shows its peak only
    now and then; `elsewhere` says that a row was made on another machine than most.
    """
    path = path or results_folder() / "speed" / f"{device}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = pd.DataFrame([json.loads(line) for line in lines]).reindex(columns=list(COLUMNS))
    peak = rows.groupby("hardware")["peak_flops"].transform("max")
    elsewhere = rows["hardware"] != rows["hardware"].mode().get(0)
    return rows.assign(peak_flops=peak, peak_share=rows["flops"] / rows["seconds"] / peak, elsewhere=elsewhere)


def ratios(rows: pd.DataFrame, phase: str = "train") -> pd.DataFrame:
    """A line per method and number of classes: seconds and memory of both paths, and how many times faster ours is.

    Both paths of a line are of one machine. `low` and `high` are the ratios of the fastest reference to the slowest of ours,
    and the other way round. Where ours was measured with several settings of one method, the first row counts.
    """
    steps = rows[(rows["kind"] == "step") & (rows["phase"] == phase)]
    on = ["method", "classes", "batch", "shots", "hardware"]
    sides = [steps[steps["path"] == path].drop_duplicates(on) for path in (REFERENCE, OURS)]
    found = sides[0].merge(sides[1], on=on, suffixes=("_reference", "_ours"))
    found["ratio"] = found["seconds_reference"] / found["seconds_ours"]
    found["low"] = found["fastest_reference"] / found["slowest_ours"]
    found["high"] = found["slowest_reference"] / found["fastest_ours"]
    found["scaled"] = found["scaled_from_reference"].notna()
    found["fewer"] = found["flops_reference"] / found["flops_ours"]
    measured = sides[0][sides[0]["scaled_from"].isna()].groupby("method")["waited"].max()
    of_line = found["method"].map(measured)
    theirs = found["waited_reference"].where(~found["scaled"], of_line)
    # NaN, where nobody looked, is no proof of rest
    found["rested"] = (found["waited_ours"].astype(float) <= WAITED) & (theirs.astype(float) <= WAITED)
    place = found["method"].map({method: i for i, method in enumerate(TARGETS)})
    return found.assign(place=place).sort_values(["place", "classes"]).drop(columns="place").reset_index(drop=True)


def target(method: str, classes: int) -> float:
    """The ratio asked for, NaN where none was."""
    return dict(zip((100, 1000), TARGETS.get(method, ()))).get(classes, math.nan)


def ratio_table(rows: pd.DataFrame, phase: str = "train") -> Table:
    """Times faster than the authors' computation, a line per method, with the target beside; the missed ones underlined."""
    found = ratios(rows, phase)
    lines, marks = {}, {}
    for method, group in found.groupby("method", sort=False):
        title = TITLES[method]
        lines[title] = {"batch": "all" if method == "lpplusplus" else f"{group['batch'].iloc[0]:g}"}
        for one in group.itertuples():
            name = f"{one.classes} classes"
            lines[title][name] = f"{number(one.ratio)}×" + ("*" if one.scaled else "") + marks_of(one)
            lines[title][f"operations, {one.classes}"] = f"{number(one.fewer)}×"
            aim = target(method, one.classes)
            if phase == "train" and not math.isnan(aim):
                lines[title][f"target, {one.classes}"] = f"{aim:g}×"
                if one.rested:
                    marks[title, name] = "b" if one.ratio >= aim else "u"
    for title in (TITLES[m] for m in TARGETS):
        lines.setdefault(title, {})
    lines = lines if len(found) else {}
    names = ["batch", "37 classes", "100 classes", "target, 100", "operations, 100", "1000 classes", "target, 1000",
             "operations, 1000"]  # fmt: skip
    frame = pd.DataFrame.from_dict(lines, orient="index")
    table = Table(frame.reindex(columns=[n for n in names if n in frame]).fillna("not run"))
    table.index.name, table.marks = "method", marks
    what = "A training step" if phase == "train" else "An evaluation pass"
    table.caption = f"{what}: seconds of the authors' computation over ours, medians of repeats taken in turns. "
    if phase == "train":
        table.caption += "Bold: at least the target; underlined: missed. "
    table.caption += "Operations: how many times fewer, counted. * the reference from fewer classes, as a straight line. "
    table.caption += f"† disturbed: a step waited for its processor, so it is not held against the target. {origin(rows)}"
    return table


def seconds_table(rows: pd.DataFrame, phase: str = "train") -> Table:
    """What the ratios are made of: seconds with their range, memory, and the share of the machine's peak."""
    lines = []
    for one in ratios(rows, phase).itertuples():
        cells = {"method": TITLES[one.method] + (ELSEWHERE if one.elsewhere_ours else ""), "classes": str(one.classes)}
        for side, name in ((REFERENCE, "reference"), (OURS, "ours")):
            seconds, fastest, slowest = (getattr(one, f"{k}_{side}") for k in ("seconds", "fastest", "slowest"))
            spread = "" if math.isnan(fastest) or slowest == fastest else f" ({number(fastest)} – {number(slowest)})"
            cells[f"s, {name}"] = number(seconds) + spread + ("*" if side == REFERENCE and one.scaled else "")
            cells[f"GFLOP, {name}"] = number(getattr(one, f"flops_{side}") / 1e9)
            cells[f"peak, {name}"] = percent(getattr(one, f"peak_share_{side}"))
            cells[f"MB, {name}"] = f"{getattr(one, f'memory_{side}') / 1e6:,.0f}"
        lines.append(cells)
    table = Table(pd.DataFrame(lines).set_index("method") if lines else pd.DataFrame(index=pd.Index([], name="method")))
    table.caption = "Medians (fastest – slowest). Peak: operations per second over the best matrix product of the same run. "
    table.caption += f"MB: the most held during the step, above what was held before. {origin(rows)}"
    return table


def tower_table(rows: pd.DataFrame) -> Table:
    """Both encoders by themselves: operations per second as a share of the machine's peak."""
    names = {"text": "text tower, 100 prompts, forward and backward", "vit": "ViT, 8 pictures, forward and backward",
             "encode": "ViT, 8 pictures, forward"}  # fmt: skip
    lines, rows = {}, rows[rows["kind"] == "tower"]
    for one in rows.itertuples():
        cells = lines.setdefault(names[one.tower], {})
        cells |= {f"s, {one.path}": number(one.seconds), f"GFLOP/s, {one.path}": number(one.flops / one.seconds / 1e9),
                  f"peak, {one.path}": percent(one.peak_share)}  # fmt: skip
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "encoder"
    table.caption = f"ViT-B/16, the target is {percent(PEAK_TARGET)} of the peak on our path. {origin(rows)}"
    return table


def together_table(rows: pd.DataFrame) -> Table:
    """Small heads fitted one after the other and as one stack: seconds of all runs, and how far the weights end apart."""
    lines, own = {}, rows[rows["kind"] == "together"]
    for (method, _), group in own.groupby(["method", "hardware"], sort=False):
        sides = group.set_index("path")
        if not {OURS, REFERENCE} <= set(sides.index):
            continue
        one, apart = sides.loc[OURS], sides.loc[REFERENCE, "seconds"]
        lines[TITLES[method] + (ELSEWHERE if one["elsewhere"] else "")] = {
            "runs": str(one["options"]["runs"]), "steps of each": str(one["options"]["steps"]), "s, in turn": number(apart),
            "s, as one": number(one["seconds"]), "times faster": f"{number(apart / one['seconds'])}×",
            "largest difference": f"{one['proof']['weights']:.0e}" if one["proof"]["weights"] else "0",
        }  # fmt: skip
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "method"
    table.caption = "Toy CLIP, 4 shots, three draws with three learning rates each, medians. Largest difference: of a trained "
    table.caption += f"weight, relative to the largest entry of its tensor. {_machine(own)}."
    return table


def marks_of(one) -> str:
    """Of a line of `ratios`: † disturbed, ‡ measured on another machine than most."""
    return ("" if one.rested else "†") + (ELSEWHERE if one.elsewhere_ours else "")


def or_nothing(table: Table):
    """The table as a notebook shows it, or a sentence where it has no line."""
    from IPython.display import Markdown

    return table if len(table) else Markdown("Not run: there are no such rows.")


def percent(share: float) -> str:
    return "–" if share is None or math.isnan(share) else f"{100 * share:.0f} %"


def origin(rows: pd.DataFrame) -> str:
    """Where and when the rows were measured."""
    if rows.empty:
        return "Not run."
    return f"ViT-B/16 with random weights, {rows.iloc[-1]['precision']}, {_machine(rows)}."


def _machine(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "Not run"
    said = []
    for elsewhere, part in rows.groupby("elsewhere"):
        one, days = part.iloc[-1], sorted(set(part["date"]))
        when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        names = " and ".join(sorted(set(part["hardware"])))
        peak = f"{number(part['peak_flops'].max() / 1e9)} GFLOP/s at best"
        said.append(f"{ELSEWHERE + ' ' if elsewhere else ''}{names}, {peak}, PyTorch {one['versions']['torch']}, {when}")
    return "; ".join(said)


# sentences


def statement(rows: pd.DataFrame) -> list[str]:
    """What holds and what does not, in sentences: proofs, targets, towers, memory, the straight line, and the GPU."""
    if rows.empty:
        return ["Nothing was measured."]
    parts = (_proofs(rows), *_targets(rows), _towers(rows), _memory(rows), _line(rows), _idle(rows), _gpu())
    return [said for said in parts if said]


def _proofs(rows: pd.DataFrame) -> str:
    proofs = rows["proof"].dropna()
    if proofs.empty:
        return ""
    logits = max((p["logits"] for p in proofs if "logits" in p), default=math.nan)
    gradients = max((p["gradients"] for p in proofs if "gradients" in p), default=math.nan)
    return (
        f"Both paths give the same: logits are apart by at most {logits:.1e} and gradients by {gradients:.1e} of their largest "
        "entry, in the run that was timed."
    )


def _targets(rows: pd.DataFrame) -> list[str]:
    found = ratios(rows)
    found = found.assign(target=[target(m, c) for m, c in zip(found["method"], found["classes"])]).dropna(subset="target")
    disturbed = int((~found["rested"]).sum())
    found, of = found[found["rested"]], sum(map(len, TARGETS.values()))
    missed = found[found["ratio"] < found["target"]]
    met = len(found) - len(missed)
    said = [f"Of {of} targets, all measured on a machine at rest, {met} are met."]
    if len(found) < of:
        said = [f"Of {of} targets {len(found)} were measured on a machine at rest, {disturbed} on a busy one, the others not; of "
                f"the first, {met} are met."]  # fmt: skip
    if len(missed):
        each = (
            f"{TITLES[one.method]} at {one.classes} classes ({number(one.ratio)}× of {one.target:g}×, and its operations alone, "
            f"at the peak of the machine, would give {number(one.ratio / one.peak_share_ours)}×)"
            for one in missed.itertuples()
        )
        said.append(f"Missed: {'; '.join(each)}.")
    return said


def _towers(rows: pd.DataFrame) -> str:
    own = rows[(rows["kind"] == "tower") & (rows["path"] == OURS)].set_index("tower")["peak_share"]
    if not {"text", "vit"} <= set(own.index):
        return ""
    verdict = "met" if min(own["text"], own["vit"]) >= PEAK_TARGET else "missed"
    return (
        f"Forward and backward run at {percent(own['text'])} of the peak in the text tower and {percent(own['vit'])} in the "
        f"ViT; the target of {percent(PEAK_TARGET)} is {verdict}."
    )


def _memory(rows: pd.DataFrame) -> str:
    one = rows[(rows["kind"] == "step") & (rows["phase"] == "train") & (rows["path"] == OURS)]
    one = one[(one["method"] == "coop") & (one["classes"] == 1000)]["memory"].dropna()
    if one.empty:
        return ""
    verdict = "met" if one.iloc[0] < MEMORY_TARGET else "missed"
    return (
        f"A step of CoOp with 1000 classes holds {one.iloc[0] / 1e9:.2f} GB at its peak, weights aside; the target of "
        f"{MEMORY_TARGET / 1e9:g} GB is {verdict}."
    )


def _line(rows: pd.DataFrame) -> str:
    full = rows[rows["kind"] == "linearity"]
    if full.empty:
        return ""
    one = full.iloc[0]
    line = rows[(rows["kind"] == "step") & (rows["phase"] == "train") & (rows["path"] == REFERENCE)]
    line = line[(line["method"] == one["method"]) & line["scaled_from"].isna()].sort_values("classes")
    if len(line) < 2:
        return ""
    low, high = line.iloc[0], line.iloc[1]
    slope = (high["seconds"] - low["seconds"]) / (high["classes"] - low["classes"])
    expected = high["seconds"] + slope * (one["classes"] - high["classes"])
    return (
        f"The straight line says {number(expected)} s for {TITLES[one['method']]}'s reference at {one['classes']} classes; "
        f"measured in full it took {number(one['seconds'])} s ({100 * (one['seconds'] / expected - 1):+.0f} %)."
    ).replace("(-", "(−")


def _idle(rows: pd.DataFrame) -> str:
    waited = rows["waited"].dropna()
    if waited.empty:
        return ""
    verdict = "the machine was idle otherwise"
    if waited.max() > WAITED:
        verdict = "SOMETHING ELSE WAS RUNNING, so seconds and ratios are rough"
    return (
        f"While they were timed, the steps waited for a processor for {100 * waited.median():.1f} % of their time (median; at "
        f"most {100 * waited.max():.1f} %): {verdict}."
    )


def _gpu() -> str:
    if not read("cuda").empty:
        return ""
    return f"No GPU was measured; `{GPU_COMMAND}` does."


# the whole of a training


def projection(rows: pd.DataFrame) -> pd.DataFrame:
    """Hours of 16-shot ImageNet by method: steps of its own protocol times the seconds of a step with 1000 classes.

    `hours`: the steps on our path; `reference`: on the authors'; `kept` and `anew`: encoding the pictures, VIEWS views once
    or a new view in every epoch, for methods on image features; `published`: minutes on an A100. Where a batch is larger
    than the measured one, the pictures that it has more are charged as in the rows with other batches.
    """
    train = rows[(rows["kind"] == "step") & (rows["phase"] == "train")]
    encode = rows[(rows["kind"] == "tower") & (rows["tower"] == "encode") & (rows["path"] == OURS)]
    each = encode["seconds"].iloc[0] / encode["batch"].iloc[0] if len(encode) else math.nan
    minutes = published.training_times().replace({"method": published.METHOD_OF}).set_index("method")["minutes"]
    lines = []
    for one in ratios(rows).query("classes == 1000").itertuples():
        if one.method not in BATCHES:
            continue
        batch, stages = BATCHES[one.method], 2 if one.method == "plotpp" else 1
        steps = 8000 if one.method == "clip_lora" else stages * EPOCHS[one.method] * (PICTURES // batch)
        images = one.method in ("clip_lora", "plotpp", "maple")
        more = max(0, batch - one.batch) * _per_picture(train, one.method) if images else 0.0
        kept, anew = (math.nan, math.nan) if images else (VIEWS * PICTURES * each, EPOCHS[one.method] * PICTURES * each)
        lines.append((one.method, batch, steps, one.seconds_ours + more, steps * (one.seconds_ours + more) / 3600, kept / 3600,
                      anew / 3600, steps * (one.seconds_reference + more) / 3600, minutes.get(one.method, math.nan)))  # fmt: skip
    names = ["method", "batch", "steps", "seconds", "hours", "kept", "anew", "reference", "published"]
    return pd.DataFrame(lines, columns=names)


def _per_picture(train: pd.DataFrame, method: str) -> float:
    """Seconds of one more picture in a batch: the slope between the smallest and the largest batch measured."""
    own = train[(train["method"] == method) & (train["path"] == OURS)]
    counts = own.groupby("classes")["batch"].nunique()
    if counts.empty or counts.max() < 2:
        return math.nan
    own = own[own["classes"] == counts.idxmax()].sort_values("batch")
    first, last = own.iloc[0], own.iloc[-1]
    return (last["seconds"] - first["seconds"]) / (last["batch"] - first["batch"])


def projection_table(rows: pd.DataFrame) -> Table:
    """The projection in words and rounded numbers."""
    found = projection(rows)
    lines = {
        TITLES[one.method]: {
            "batch": str(one.batch), "steps": f"{one.steps:,}", "s per step": number(one.seconds),
            "hours, steps": number(one.hours),
            f"hours, {VIEWS} views encoded once": number(one.kept), "hours, a new view per epoch": number(one.anew),
            "hours, authors' steps": number(one.reference), "minutes, published": number(one.published),
        }
        for one in found.itertuples()
    }  # fmt: skip
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "method"
    table.caption = "PROJECTED, not run: 16-shot ImageNet as measured seconds of a step times the number of steps. – : pictures "
    table.caption += "are encoded within the step. PLOT++: both stages at the price of the second, which is the dearer. "
    table.caption += "Published: CLIP-LoRA, table 1, one A100, the authors' code. GPU: not run. "
    table.caption += origin(rows[~rows["method"].isin(HEADS)])
    return table


def book_table(path: Path | None = None) -> Table:
    """Seconds of `make book` from nothing at several commits, the oldest first, from the lines of benchmarks/book.py."""
    path = path or results_folder() / "speed" / "book.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    lines.sort(key=lambda line: line["of"])
    found = {}
    for line in lines:
        parts = {"in all, on the clock": line["seconds"], "the pages": line["pages"]}
        parts |= dict(sorted(line["notebooks"].items(), key=lambda item: -item[1]))
        of = sum(line["notebooks"].values())
        for name, seconds in parts.items():
            share = f" ({100 * seconds / of:.0f} %)" if name in line["notebooks"] else ""
            found.setdefault(name, {})[f"{line['commit']}, {line['of']}"] = number(seconds) + share
    table = Table(pd.DataFrame.from_dict(found, orient="index").fillna("not there yet"))
    table.index.name = "seconds"
    where = f" {lines[-1]['cores']} cores, {lines[-1]['hardware'].split(',')[0]}." if lines else ""
    table.caption = "`make book` in a fresh clone with an empty cache, packages installed before: seconds, and each notebook's "
    table.caption += f"share of all notebooks; two run at a time.{where}"
    return table
