"""What a grid needs before it starts: runs, hours, memory, disk, and what is missing. Nothing is trained or downloaded here.

Hours come from stored rows of the same method with the same settings, backbone and hardware, in this order:
- measured: the same data set and shots;
- scaled: other data sets, or the nearest number of shots. Fitting is taken as proportional to the support pictures
  (classes x shots), testing to the test pictures, and the median over the rows is used. That is an order of magnitude:
  methods that pass all classes through the text encoder in each step take longer than this where there are many classes;
- unknown: there is no such row. A guess would be worse than the word; run one and ask again.
The first run on a data set also computes its image features; the rows of earlier runs may have found theirs in the cache.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from fewshot.errors import FewshotError
from fewshot.paths import path_of
from fewshot.rows import Rows
from fewshot.runs import ALL, HALVES, Run, hardware, results_folder, stamp

NEEDED = ("method", "dataset", "shots", "overrides", "n_test", "seconds_fit", "seconds_evaluate", "hardware")
BLOCKING = ("not here", "missing files")  # states of a data set that a run stops at


@dataclass
class Line:
    """One method of the plan: runs done and to do, seconds (None: unknown) and where that number comes from."""

    method: str
    done: int = 0
    todo: list[Run] = field(default_factory=list)
    seconds: float | None = 0.0
    source: str = ""
    memory: float | None = None  # MB, the largest peak of the rows
    memory_of: str = ""


@dataclass
class Plan:
    """lines per method; `missing` are whole sentences; bytes of features, weights and data sets."""

    lines: list[Line]
    missing: list[str]
    notes: list[str]
    features: int | None
    weights: int | None
    download: dict[str, int | None]
    free: int

    def text(self) -> str:
        """The table and the sentences that `fewshot plan` prints."""
        cells = [("method", "done", "to do", "hours", "from", "memory")]
        for line in self.lines:
            hours = "-" if not line.todo else "unknown" if line.seconds is None else f"{line.seconds / 3600:.2f}"
            memory = f"{line.memory / 1024:.1f} GB ({line.memory_of})" if line.memory else "unknown"
            cells.append((line.method, str(line.done), str(len(line.todo)), hours, line.source or "-", memory))
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        number = (1, 2, 3)
        out = ["  ".join(c.rjust(w) if i in number else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
               for row in cells]  # fmt: skip
        todo, unknown = sum(len(line.todo) for line in self.lines), [x.method for x in self.lines if x.seconds is None]
        hours = sum(line.seconds or 0 for line in self.lines) / 3600
        takes = f"{hours:.2f} hours one after the other"
        if unknown:
            takes = f"{'at least ' + takes if hours else 'hours unknown'} (no row for {', '.join(unknown)})"
        out += ["", f"{todo} runs to do, {takes}"]
        out += [f"features on disk  {size(self.features)} (free: {size(self.free)})"]
        out += [f"weights           {size(self.weights)} in memory"]
        out += [f"download          {name}: {size(count)}" for name, count in self.download.items()]
        return "\n".join([*out, *self.notes])


def size(count: int | None) -> str:
    """ "599 MB", "39.1 GB", "unknown"."""
    if count is None:
        return "unknown"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def require(runs: Iterable[Run]) -> None:
    """FewshotError, with everything that is missing, unless each of these runs can be made on this machine.

    Options that a method does not have, a cache folder that cannot be written, data sets that are not here or lack files,
    test-only data sets with shots, weights that cannot be loaded (they are loaded, so an open_clip tag is downloaded now
    and not in the middle).
    """
    from fewshot.cache import cache_dir
    from fewshot.methods import get_method
    from fewshot.methods.method import make_config
    from fewshot.runs import _clip

    runs = list(runs)
    if runs:
        cache_dir()
    for one in runs:
        make_config(get_method(one.method), one.config)
    missing = missing_data(runs)
    models = dict.fromkeys((one.backbone, one.pretrained) for one in runs)
    for backbone, pretrained in () if missing else models:  # nothing is downloaded for a grid that cannot start anyway
        try:
            _clip(backbone, pretrained)
        except FewshotError as error:
            missing.append(str(error))
    if missing:
        raise FewshotError(f"nothing was started: {_joined(missing)}")


def make_plan(runs: Sequence[Run], rows: str | os.PathLike | None = None) -> Plan:
    """The plan of these runs; done is what `rows` or a file of the results folder holds, made with today's settings."""
    runs = list({one.key: one for one in runs}.values())
    files = [Rows(path) for path in ([rows] if rows else []) if Path(path).exists()]
    own = len(files)
    files += [Rows(path) for path in sorted(results_folder().glob("*.jsonl"))]
    missing, notes = missing_data(runs), []
    models = dict.fromkeys((one.backbone, one.pretrained) for one in runs)
    absent = {model: why for model in models if (why := missing_weights(*model))}
    missing += absent.values()
    lines = {one.method: Line(one.method) for one in runs}
    elsewhere = 0
    for one in runs:
        found = [i for i, file in enumerate(files) if one.key in file]
        expected = stamp(one) if found and (one.backbone, one.pretrained) not in absent else None
        found = [i for i in found if files[i].get(one.key, expected)]
        lines[one.method].done += bool(found)
        elsewhere += bool(found) and min(found) >= own
        if not found:
            lines[one.method].todo.append(one)
    if rows and elsewhere:
        notes.append(
            f"{elsewhere} of the runs done are in {results_folder().name}/ only: the notebooks take them from there,"
            f" `fewshot run --rows {rows}` makes them again."
        )
    measured = [row for file in files for row in file.frame().to_dict("records") if _timed(row)]
    for line in lines.values():
        _estimate(line, measured)
    todo = [one for line in lines.values() for one in line.todo]
    needed, free = feature_bytes(todo), _free()
    if needed and needed > free:
        missing.append(
            f"the features need {size(needed)} and the cache folder has {size(free)} free; set FEWSHOT_CACHE to a larger disk."
        )
    return Plan(
        list(lines.values()),
        list(dict.fromkeys(missing)),
        notes,
        needed,
        _weights_bytes(models),
        _downloads(runs),
        free,
    )


def missing_data(runs: Iterable[Run]) -> list[str]:
    """A sentence for each data set that a run needs and cannot use: not here, incomplete, or with too few training pictures.

    Folders and CSV files are opened and their draw is tried; of the named data sets only the files are looked for.
    """
    from fewshot.data.catalogue import entry, resolve
    from fewshot.data.check import check

    runs = list(runs)
    learned = {one.dataset for one in runs if one.shots != 0}
    found = []
    for name in dict.fromkeys(n for one in runs for n in (one.dataset, one.target) if n and n not in HALVES):
        if name.startswith("toy/") or resolve(name) is None:
            if not name.startswith("toy/") and (fault := _own_fault(name, runs)):
                found.append(fault)
            continue
        state = check(name)
        if state.word in BLOCKING:
            found.append(state.sentence)
        elif name in learned and not entry(name).sizes["train"]:
            found.append(f"{name} has test pictures only; learn on another data set and use this one as a target.")
    return found


def _own_fault(name: str, runs: Iterable[Run]) -> str | None:
    """What is the matter with a folder or a CSV file of the user, for the largest number of shots that is asked of it."""
    from fewshot.runs import _dataset

    if not path_of(name).exists():
        return f"the folder {name} does not exist; check the path."
    most = max((one.shots for one in runs if one.dataset == name), default=0)
    try:
        dataset = _dataset(name)
        if most > 0:
            dataset.task(most)
    except FewshotError as error:
        return str(error)
    return None


def missing_weights(backbone: str, pretrained: str | None) -> str | None:
    """A sentence when the weights of a model are not on this disk, None when they are. Nothing is loaded or downloaded."""
    if backbone == "toy" or path_of(backbone).is_file():
        return None
    import open_clip

    if open_clip.get_model_config(backbone) is None:
        return _load_error(backbone, pretrained)
    if pretrained is None or path_of(pretrained).is_file():
        return None if pretrained else _load_error(backbone, pretrained)
    tag = open_clip.pretrained.get_pretrained_cfg(backbone, pretrained)
    if not tag:
        return _load_error(backbone, pretrained)
    if _cached(tag):
        return None
    return (
        f"the weights {pretrained!r} of {backbone} are not on this disk: load_clip({backbone!r}, {pretrained!r}) downloads them "
        "where there is a network, or name a local weight file (weights: FILE in a profile, -p weights FILE)."
    )


def feature_bytes(runs: Iterable[Run]) -> int | None:
    """Bytes of the cached features of these runs (float32), None when a number of pictures or a width is unknown.

    Test pictures once per data set; support and validation pictures once per draw; as many augmented views as the settings
    keep. Methods that run the image encoder themselves keep nothing.
    """
    from fewshot.methods import get_method
    from fewshot.methods.method import make_config

    counts: dict[tuple, int] = {}
    for one in runs:
        method = get_method(one.method)
        config = make_config(method, one.config)
        sizes, width = pictures(one.dataset), _width(one.backbone)
        tested = sizes if one.target in (None, *HALVES) else pictures(one.target)
        if sizes is None or tested is None or width is None:
            return None
        if method.needs != "features":
            continue
        model, classes = (one.backbone, one.pretrained), sizes[0]
        counts[model, one.target or one.dataset, "test"] = width * (min(one.limit or tested[2], tested[2]))
        if one.shots:
            support = sizes[1] if one.shots == ALL else classes * one.shots
            draw = (*model, one.dataset, one.shots, one.seed)
            views = getattr(config, "views", None) or 0
            counts[(*draw, "support")] = width * (support + classes * min(4, one.shots if one.shots > 0 else 4))
            counts[(*draw, "augmented", getattr(config, "scale", None))] = max(
                counts.get((*draw, "augmented", getattr(config, "scale", None)), 0),
                width * support * max(views, getattr(config, "augment_epoch", 0)),
            )
    return 4 * sum(counts.values())


@cache
def pictures(name: str) -> tuple[int, int, int] | None:
    """(classes, train pictures, test pictures) of a data set, from the catalogue where it stands there; None when unknown."""
    from fewshot.data import load_dataset
    from fewshot.data.catalogue import entry, resolve

    if not name.startswith("toy/") and resolve(name):
        one = entry(name)
        return one.classes, one.sizes["train"], one.sizes["test"]
    try:
        dataset = load_dataset(name)
    except FewshotError:
        return None
    return len(dataset.classnames), len(dataset.train), len(dataset.test)


def _timed(row: dict) -> bool:
    """Does the row say what it was and how long it took? Rows of another hand may not."""
    return all(row.get(name) is not None and row[name] == row[name] for name in NEEDED)


def _estimate(line: Line, rows: list[dict]) -> None:
    """Fill seconds, source and memory of a line from stored rows."""
    if not line.todo:
        return
    first = line.todo[0]
    here = _processor(_hardware())
    alike = [
        row
        for row in rows
        if (row["method"], row["backbone"], row["overrides"]) == (line.method, first.backbone, first.config)
        and _processor(row.get("hardware") or "") == here
    ]
    if not alike:
        line.seconds, line.source = None, "no row of it on this hardware"
        return
    peak = max(alike, key=lambda row: row.get("peak_memory_mb") or 0)
    line.memory = peak.get("peak_memory_mb") if (peak.get("peak_memory_mb") or 0) > 0 else None
    line.memory_of = "GPU" if str(peak.get("peak_memory_of")).startswith("run") else "whole process"
    exact = scaled = 0
    for one in line.todo:
        same = [
            r["seconds_fit"] + r["seconds_evaluate"]
            for r in alike
            if (r["dataset"], r["shots"]) == (one.dataset, one.shots)
        ]
        if same and one.limit is None:
            line.seconds += _median(same)
            exact += 1
        elif (guess := _scaled(one, alike)) is not None:
            line.seconds += guess
            scaled += 1
        else:
            line.seconds, line.source = None, "pictures of a data set unknown"
            return
    words = [f"{exact} measured"] * bool(exact) + [f"{scaled} scaled"] * bool(scaled)
    threads = sorted({row["hardware"].rpartition(", ")[2] for row in alike if "threads" in row["hardware"]})
    line.source = f"{', '.join(words)} from {len(alike)} rows" + (f" of {' and '.join(threads)}" if threads else "")


def _scaled(one: Run, rows: list[dict]) -> float | None:
    """Seconds of a run from others of its method: fit per support picture, test per test picture, medians over the rows."""
    sizes = pictures(one.dataset)
    fits, tests = [], []
    nearest = min(abs(math.log(max(1, row["shots"]) / max(1, one.shots))) for row in rows)
    for row in rows:
        if abs(math.log(max(1, row["shots"]) / max(1, one.shots))) > nearest:
            continue
        known = pictures(row["dataset"])
        if known is None:
            continue
        support = known[1] if row["shots"] == ALL else known[0] * max(1, row["shots"])
        fits.append(row["seconds_fit"] / support)
        tests.append(row["seconds_evaluate"] / row["n_test"])
    if sizes is None or not fits:
        return None
    support = sizes[1] if one.shots == ALL else sizes[0] * max(1, one.shots)
    return _median(fits) * support + _median(tests) * min(one.limit or sizes[2], sizes[2])


def _median(values: list[float]) -> float:
    from statistics import median

    return median(values)


def _processor(text: str) -> str:
    """The hardware without the number of threads, which is said beside the estimate."""
    return text.rpartition(", ")[0] if text.endswith("threads") else text


@cache
def _hardware() -> str:
    import torch

    return hardware(0 if torch.cuda.is_available() else None)


def _free() -> int:
    from fewshot.cache import cache_dir

    return shutil.disk_usage(cache_dir()).free


def _downloads(runs: Iterable[Run]) -> dict[str, int | None]:
    """Bytes to download of the named data sets that are nowhere on this disk."""
    from fewshot.data.catalogue import entry, resolve
    from fewshot.data.places import data_roots, find_place

    names = dict.fromkeys(n for one in runs for n in (one.dataset, one.target) if n and resolve(n))
    return {name: entry(name).size for name in names if find_place(entry(name), data_roots()) is None}


def _weights_bytes(models: Iterable[tuple[str, str | None]]) -> int | None:
    """Bytes of the models in memory (fp32), from their architecture; None when one cannot be told without loading it."""
    sizes = [_parameters(backbone) for backbone, _ in models]
    return None if None in sizes else 4 * sum(sizes)


@cache
def _parameters(backbone: str) -> int | None:
    import torch

    if backbone == "toy":
        return sum(p.numel() for p in _toy().model.parameters())
    import open_clip

    config = open_clip.get_model_config(backbone)
    if config is None:
        return None
    from fewshot.clip import _build

    try:
        with torch.device("meta"):  # shapes without memory
            return sum(p.numel() for p in _build(config, backbone).parameters())
    except Exception:  # a tower that cannot be built so
        return None


@cache
def _width(backbone: str) -> int | None:
    if backbone == "toy":
        return _toy().embed_dim
    import open_clip

    return (open_clip.get_model_config(backbone) or {}).get("embed_dim")


def _toy():
    from fewshot.runs import _clip

    return _clip("toy", None)


def _load_error(backbone: str, pretrained: str | None) -> str | None:
    """The sentence of load_clip for a model that it refuses before it looks for weights."""
    from fewshot.clip import load_clip

    try:
        load_clip(backbone, pretrained)
    except FewshotError as error:
        return str(error)
    return None


def _cached(tag: dict) -> bool:
    """Has open_clip the file of this tag on disk already?"""
    if tag.get("file") or (tag.get("url") and Path("~/.cache/clip", Path(tag["url"]).name).expanduser().is_file()):
        return True
    if not tag.get("hf_hub"):
        return False
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    repository, _, name = tag["hf_hub"].rpartition("/")
    names = [name] if name else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    return any(isinstance(try_to_load_from_cache(repository, each), str) for each in names)


def _joined(sentences: Sequence[str]) -> str:
    """Several sentences as one: the first whole, the others counted."""
    more = f" (and {len(sentences) - 1} more; `fewshot plan` lists them)" if len(sentences) > 1 else ""
    return sentences[0].rstrip(".") + more + "."


def command(options, runs: Sequence[Run]) -> None:
    """`fewshot plan`: print the plan; FewshotError (exit code 2) when something is missing."""
    plan = make_plan(runs, options.rows)
    print(plan.text())
    if plan.missing:
        for sentence in plan.missing[1:]:
            print(f"missing: {sentence}")
        raise FewshotError(_joined(plan.missing).replace("; `fewshot plan` lists them", " above"))
