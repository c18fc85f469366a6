"""From a run to a row: what a run is, one training, one test. Many of them: grids.py."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from fewshot.errors import FewshotError, unknown
from fewshot.paths import path_of

ROOT = Path(__file__).resolve().parents[1]  # profiles/, published/, results/ and notebooks/ live beside the package
ALL = -1  # shots: the whole training set, as CoOp's code writes it
SELECTIONS = ("fixed", "fewval", "oracle")
HALVES = ("base", "new")


@dataclass(frozen=True)
class Run:
    """One training and one test, completely described.

    `shots` 0 means that no training image is seen (zero_shot only), -1 that all are; `config` holds what differs from
    the method's defaults; `selection` None is the method's headline selection. `target` says what is tested when that is
    not the data set's own test: "base" and "new" learn on the base half of the classes and test on that half or on the
    other; the name of a data set tests there, with its class names, what was learned here. `limit` tests on at most that
    many pictures, evenly over the classes; None on all: only those numbers are comparable.
    """

    experiment: str
    method: str
    dataset: str
    shots: int
    seed: int = 1
    config: dict = field(default_factory=dict)
    backbone: str = "toy"
    pretrained: str | None = None
    selection: str | None = None
    profile: str = "toy"
    target: str | None = None
    limit: int | None = None

    def __post_init__(self):
        if isinstance(self.shots, bool) or not isinstance(self.shots, int) or self.shots < ALL:
            raise FewshotError(
                f"shots must be a whole number of training images per class (or {ALL} for all), not {self.shots!r}."
            )
        if (self.shots == 0) != (self.method == "zero_shot"):
            raise FewshotError(
                f"{self.method} with {self.shots} shots: zero_shot takes 0 shots, every other method at least 1."
            )
        if self.target and self.selection == "oracle":
            raise FewshotError(f"oracle chooses on the test of {self.dataset}; it has no meaning with target=.")
        if self.limit is not None and (
            isinstance(self.limit, bool) or not isinstance(self.limit, int) or self.limit < 1
        ):
            raise FewshotError(f"limit must be a number of test pictures, or None for all, not {self.limit!r}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise FewshotError(f"seeds must be whole numbers, not {self.seed!r}.")
        if self.selection is not None and self.selection not in SELECTIONS:
            raise unknown("selection", self.selection, SELECTIONS)
        for option, value in self.config.items():
            if not _storable(value):
                raise FewshotError(
                    f"{option} of {self.method} is {value!r}; an option is a finite number, a text (in YAML, put a date into "
                    "quotes), true, false, or a list of those."
                )

    @property
    def key(self) -> str:
        """16 hex digits over everything in this description that decides the result.

        In: method, data set, shots, seed (not for 0 shots: nothing is drawn), configuration, backbone, pretrained tag,
        selection, target, limit. Out: the experiment and the profile, which are only names (a profile acts through `config`,
        `backbone` and `pretrained`), so two experiments share a run. A field that is None is left out as well, so that a new
        optional field leaves the keys of older rows as they are.

        Not in the key because it cannot be known without loading the model: the weights themselves and the defaults of
        the method's Config. They are in the row's `stamp`, and a row whose stamp is not today's does not count as done.
        In neither: the code, the library versions and the machine (recorded in the row; `spot_check` measures whether they
        matter), and the images behind a data set's name (the row's `split_hash`, compared by `spot_check`).
        """
        what = dict(vars(self))
        del what["experiment"], what["profile"]
        if self.shots == 0:
            del what["seed"]
        return _digest({name: value for name, value in what.items() if value is not None})

    @classmethod
    def from_row(cls, row: dict) -> Run:
        """The run that made a row."""
        names = ("experiment", "method", "dataset", "shots", "seed", "backbone", "pretrained", "profile")
        values = {name: None if _missing(row[name]) else row[name] for name in names}
        values |= {"shots": int(values["shots"]), "seed": int(values["seed"])}
        asked = row["selection_asked"]
        target, limit = row.get("target"), row.get("limit")
        return cls(
            **values,
            config=row["overrides"],
            selection=None if _missing(asked) else asked,
            target=None if _missing(target) else target,
            limit=None if _missing(limit) else int(limit),
        )

    def __str__(self) -> str:
        where = self.dataset + (f" to {self.target}" if self.target else "")
        text = f"{self.method} on {where}, {'all' if self.shots == ALL else self.shots} shots, seed {self.seed}"
        return text + (f", {self.limit} test pictures" if self.limit else "")


@dataclass(frozen=True)
class Profile:
    """A backbone and, per method, what differs from the papers' settings; see profiles/*.yaml."""

    name: str
    backbone: str = "toy"
    pretrained: str | None = None
    methods: dict[str, dict] = field(default_factory=dict)


PROFILE_FIELDS = (
    "profile",
    "backbone",
    "weights",
    "pretrained",
    "methods",
)  # weights: the notebooks' word for pretrained


def load_profile(name: str | os.PathLike) -> Profile:
    """profiles/NAME.yaml, or a file of your own (anything that ends in .yaml).

    Raises FewshotError for an unknown name, field or method, and for a number that YAML reads as text (`1e-3`).
    """
    import yaml

    from fewshot.methods import METHODS

    path = path_of(name)
    if path.suffix != ".yaml":
        path = ROOT / "profiles" / f"{name}.yaml"
        if not path.is_file():
            raise unknown("profile", str(name), [p.stem for p in path.parent.glob("*.yaml")])
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise FewshotError(f"the profile {path} cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise FewshotError(f"the profile {path} is not UTF-8 text; start from profiles/toy.yaml.") from error
    except yaml.YAMLError as error:
        raise FewshotError(f"the profile {path} is not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise FewshotError(f"{path.name} is not a mapping; start from profiles/toy.yaml.")
    for part in content:
        if part not in PROFILE_FIELDS:
            raise unknown(f"field of the profile {path.name}", part, PROFILE_FIELDS)
    if content.pop("profile", path.stem) != path.stem:
        raise FewshotError(f"{path.name}: profile must be {path.stem!r}, the name of the file.")
    if "weights" in content:
        if "pretrained" in content:
            raise FewshotError(f"{path.name}: weights and pretrained are two words for one thing; keep one of them.")
        content["pretrained"] = content.pop("weights")
    for part, kind in (("backbone", str), ("pretrained", str | None)):
        if not isinstance(content.get(part, ""), kind):
            raise FewshotError(f"{path.name}: {part} must be a text, not {content[part]!r}; put it into quotes.")
    methods = content.pop("methods", None) or {}
    if not isinstance(methods, dict):
        raise FewshotError(f"{path.name}: methods is not a mapping from a method to its options.")
    for method, overrides in methods.items():
        if method not in METHODS:
            raise unknown("method", method, METHODS)
        if not isinstance(overrides, dict):
            raise FewshotError(f"{path.name}: {method} is not a mapping from options to values.")
        for option, value in overrides.items():
            if isinstance(value, str) and _is_number(value):
                raise FewshotError(
                    f"{path.name}: {method}.{option} is the text {value!r}, not a number; write {float(value)!r}"
                    f" (YAML wants a dot in 1.0e-3)."
                )
    return Profile(path.stem, methods=methods, **content)


def run(one: Run, fit: Callable | None = None) -> dict:
    """Draw the task, fit, test. Returns the row: the whole description, the result, and what it cost.

    `fit(one, task, clock)` gives (model, seconds) where runs can share a training; see `fewshot.studies.llm_text_adapter.shared`.

    `seconds_fit` is preparation and training, `seconds_evaluate` the test; `peak_memory_mb` is the largest allocation
    of this run on a GPU, and the peak of the whole process so far on a CPU (`peak_memory_of` says which).

    The same run gives the same row, bit for bit but for seconds, memory and date, on one machine with one number of threads.
    With another number sums are taken in another order: the tests allow one test picture more or less and a relative 1e-3 in
    `nll`.
    """
    import numpy as np
    import torch

    from fewshot.evaluation import evaluate
    from fewshot.methods.method import settings_of
    from fewshot.select import oracle

    clip = _clip(one.backbone, one.pretrained)
    gpu = clip.device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(clip.device)
    clock = functools.partial(_clock, clip.device if gpu else None)
    task = _task(one)
    model, seconds_fit = (fit or _fit)(one, task, clock)
    if one.selection == "oracle":
        start = clock()
        oracle(model, limited(task.test, one.limit))
        seconds_fit += clock() - start
    start = clock()
    pictures, classes = _test(one, task, model)
    result = evaluate(model, limited(pictures, one.limit), classes)
    seconds_evaluate = clock() - start
    peak, peak_of = _peak_memory(clip.device if gpu else None)
    config = _jsonable(settings_of(model.config))
    return {
        **{name: value for name, value in asdict(one).items() if name not in ("config", "selection")},
        "key": one.key,
        "overrides": one.config,
        "config": config,
        "selection_asked": one.selection,
        "selection": one.selection or type(model).selection,
        "clip": clip.fingerprint,
        "weights": _origin(one.pretrained),
        "stamp": _digest([clip.fingerprint, config]),
        "split_hash": task.split_hash if one.shots else None,
        "chosen": model.chosen,
        "accuracy": float(result.accuracy),
        "n_test": int(result.n),
        "nll": result.nll,
        "reliability": np.round(result.reliability, 4).tolist(),
        "seconds_fit": round(seconds_fit, 3),
        "seconds_evaluate": round(seconds_evaluate, 3),
        "parameters": model.learned(),
        "peak_memory_mb": peak,
        "peak_memory_of": peak_of,
        "versions": versions(),
        "hardware": hardware(clip.device if gpu else None),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def limited(images, limit: int | None):
    """At most `limit` of the pictures, the first ones of each class, as many of one class as of another; None: all."""
    import numpy as np

    if limit is None or limit >= len(images):
        return images
    labels = images.labels
    rank = np.empty(len(labels), int)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        rank[own] = np.arange(len(own))
    return images.subset(np.sort(np.lexsort((labels, rank))[:limit]))


@functools.cache
def _origin(pretrained: str | None) -> str | None:
    from fewshot.weights import origin

    return origin(pretrained) if pretrained and path_of(pretrained).is_file() else pretrained


def _task(one: Run):
    """What is learned from: the whole task, or its base half; the validation pictures are those of the same classes."""
    dataset = _dataset(one.dataset)
    if one.shots == 0:
        task = dataset.without_support()
    else:
        task = dataset.task(None if one.shots == ALL else one.shots, one.seed)
    return task.half("base") if one.target in HALVES else task


def _fit(one: Run, task, clock: Callable[[], float]):
    """(the fitted model, its seconds). Runs that differ in the target alone share one training, kept as a file."""
    from fewshot.cache import CACHE_REMEDY, cache_dir, locked, writing
    from fewshot.methods.method import load_method
    from fewshot.training import fit

    clip = _clip(one.backbone, one.pretrained)
    selection = "fixed" if one.selection == "oracle" else one.selection

    def train():
        start = clock()
        model = fit(one.method, clip, task, selection=selection, seed=one.seed, **one.config)
        return model, clock() - start

    if one.target is None:
        return train()
    shared = replace(one, target="base" if one.target in HALVES else None, limit=None)
    name = _digest([shared.key, stamp(one), task.split_hash, source_digest()])
    path = cache_dir() / "models" / f"{name}.safetensors"
    with locked(path.with_suffix(".lock")):
        took = path.with_suffix(".seconds")
        if path.is_file() and took.is_file():
            return load_method(path, clip), float(took.read_text())
        model, seconds = train()
        model.save(path)
        with writing(took, CACHE_REMEDY) as temporary:
            temporary.write_text(repr(seconds))
    return model, seconds


@functools.cache
def source_digest() -> str:
    """A digest of this package's source: what older code has trained is not taken for what this code would train."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _test(one: Run, task, model):
    """(pictures, names of the classes to score or None) of a run; the model is retargeted where the names are new."""
    if one.target is None or one.target == "base":
        return task.test, None
    if one.target == "new":
        task = _dataset(one.dataset).without_support().half("new")
    else:
        task = _dataset(one.target).without_support()
    if task.classnames == model.classnames:
        return task.test, None
    if set(task.classnames) <= set(model.classnames):  # a shift: some of the learned classes, scored alone
        return task.test, task.classnames
    model.retarget(task.classnames)
    return task.test, None


def stamp(one: Run) -> str | None:
    """What `run(one)` would write into the row's `stamp` today; None where the weights cannot be had (said once)."""
    from fewshot.methods import get_method
    from fewshot.methods.method import make_config, settings_of

    config = _jsonable(settings_of(make_config(get_method(one.method), one.config)))
    fingerprint = _fingerprint(one.backbone, one.pretrained)
    return None if fingerprint is None else _digest([fingerprint, config])


def results_folder() -> Path:
    """Where the measured rows of the project are: $FEWSHOT_RESULTS, or results/ beside the package.

    Raises FewshotError when that is a file.
    """
    folder = path_of(os.environ.get("FEWSHOT_RESULTS") or ROOT / "results")
    if folder.is_file():
        raise FewshotError(f"FEWSHOT_RESULTS is the file {folder}; it must be a folder of rows, or not be set.")
    return folder


def versions() -> dict[str, str]:
    """The versions that can change a number."""
    from importlib.metadata import PackageNotFoundError, version

    names = {"torch": "torch", "open_clip": "open_clip_torch", "numpy": "numpy", "fewshot": "fewshot-clip-book"}
    found = {"python": platform.python_version()}
    for name, package in names.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = "?"
    return found


def hardware(gpu=None) -> str:
    """One line: the GPU's name, or the processor and the number of threads torch uses. Never a host name."""
    import torch

    if gpu is not None:
        return torch.cuda.get_device_name(gpu)
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {torch.get_num_threads()} threads"


@functools.lru_cache(maxsize=1)
def _dataset(name: str):
    from fewshot.data import load_dataset

    return load_dataset(name)


@functools.lru_cache(maxsize=2)
def _clip(backbone: str, pretrained: str | None):
    from fewshot.clip import load_clip

    return load_clip(backbone, pretrained)


@functools.cache
def _fingerprint(backbone: str, pretrained: str | None) -> str | None:
    try:
        return _clip(backbone, pretrained).fingerprint
    except Exception as error:
        print(
            f"the weights of {backbone} are not available ({error}); its stored rows are taken as they are.",
            file=sys.stderr,
        )
        return None


def _clock(gpu) -> float:
    if gpu is not None:
        import torch

        torch.cuda.synchronize(gpu)
    return time.perf_counter()


def _peak_memory(gpu) -> tuple[float | None, str]:
    if gpu is not None:
        import torch

        return round(torch.cuda.max_memory_allocated(gpu) / 2**20, 1), "run (torch.cuda.max_memory_allocated)"
    try:
        import resource
    except ImportError:  # Windows
        return None, "not measured"
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1), "process (ru_maxrss)"


def _jsonable(value):
    return json.loads(json.dumps(value))


def _digest(value) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _storable(value) -> bool:
    """Does a row hold this value, and give it back?"""
    if isinstance(value, list | tuple):
        return all(map(_storable, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and _storable(one) for name, one in value.items())
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _missing(value) -> bool:
    return value is None or value != value  # pandas turns None into NaN in a column
