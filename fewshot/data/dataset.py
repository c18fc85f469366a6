"""A data set, and a task drawn from it: class names, a template, and the pictures to learn from and to be judged on."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fewshot.data.images import Images
from fewshot.data.sampling import few_shot_indices
from fewshot.errors import FewshotError, unknown

HALVES = ("base", "new")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """All the pictures of one classification problem.

    classnames: C names, label c is classnames[c]; underscores are kept here and become spaces in prompts.
    template: the hand-crafted prompt with one "{}" for the class name.
    """

    name: str
    classnames: tuple[str, ...]
    template: str
    train: Images
    val: Images
    test: Images

    def __post_init__(self):
        object.__setattr__(self, "classnames", tuple(self.classnames))
        check_template(self.template)
        for label, name in enumerate(self.classnames):
            if not isinstance(name, str) or not name.strip():
                raise FewshotError(
                    f"class {label} of {self.name} is called {name!r}; give it a text that is not empty."
                )
            if any("\ud800" <= letter <= "\udfff" for letter in name):
                raise FewshotError(f"the name {name!r} of a class of {self.name} is not UTF-8; rename it.")
        for part in ("train", "val", "test"):
            labels = getattr(self, part).labels
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classnames):
                raise FewshotError(
                    f"the {part} labels of {self.name} run from {labels.min()} to {labels.max()}, but "
                    f"{len(self.classnames)} class names need 0 to {len(self.classnames) - 1}."
                )

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}: {len(self.classnames)} classes; {len(self.train)} train, {len(self.val)} val, "
            f"{len(self.test)} test pictures; template {self.template!r})"
        )

    def task(self, shots: int | None, seed: int = 1, order: str = "coop", *, allow_fewer: bool = False) -> Task:
        """Draw `shots` training pictures per class, and min(shots, 4) for validation from the same stream.

        shots None takes every picture. The test pictures are always all of them.
        order: "coop" (train drawn first) or "clip_lora" (val drawn first): other pictures for the same seed.
        Raises FewshotError when a class has fewer training pictures than shots, unless allow_fewer (CoOp's behaviour:
        such a class gives all it has).
        """
        if shots is None:
            train, val = self.train, self.val
        else:
            rows, val_rows = few_shot_indices(self.train.labels, self.val.labels, shots, seed, order)
            if not allow_fewer:
                self._refuse_small_classes(shots)
            train, val = self.train.subset(rows), self.val.subset(val_rows)
        return Task(self.name, self.classnames, self.template, train, val, self.test, shots, seed, order)

    def without_support(self) -> Task:
        """The task of a method that looks at no training picture: train and val are empty, shots 0."""
        train, val = self.train.subset([]), self.val.subset([])
        return Task(self.name, self.classnames, self.template, train, val, self.test, 0, 0)

    def _refuse_small_classes(self, shots: int) -> None:
        if len(self.train) == 0:
            raise FewshotError(
                f"{self.name} has test pictures only; learn on another data set and evaluate on this one."
            )
        counts = np.bincount(self.train.labels, minlength=len(self.classnames))
        small = np.flatnonzero(counts < shots)
        if len(small) == 0:
            return
        worst = small[counts[small].argmin()]
        others = f" (and {len(small) - 1} more classes have too few)" if len(small) > 1 else ""
        fewer = f"ask for at most {counts[worst]} shots, " if counts[worst] else ""
        raise FewshotError(
            f"class {self.classnames[worst]!r} of {self.name} has {counts[worst]} training pictures, fewer than "
            f"{shots} shots{others}; {fewer}add pictures or pass allow_fewer=True."
        )


@dataclass(frozen=True, eq=False, repr=False)
class Task:
    """What one run sees: `train` is the support set, `val` the few validation pictures, `test` the judge."""

    dataset: str
    classnames: tuple[str, ...]
    template: str
    train: Images
    val: Images
    test: Images
    shots: int | None
    seed: int
    order: str = "coop"

    def __repr__(self) -> str:
        test = f"{len(self.__dict__['test'])} test" if "test" in self.__dict__ else "sealed test"
        shots = "all shots" if self.shots is None else f"{self.shots} shots"
        return (
            f"Task({self.dataset!r}: {len(self.classnames)} classes, {shots}, seed {self.seed}; "
            f"{len(self.train)} train, {len(self.val)} val, {test} pictures)"
        )

    @cached_property
    def split_hash(self) -> str:
        """16 hex digits over the ids and labels of train and val in their order: equal hashes, equal draws."""
        drawn = [[list(part.ids), part.labels.tolist()] for part in (self.train, self.val)]
        return hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:16]

    def half(self, which: str) -> Task:
        """The base half (the first ceil(C/2) classes) or the new half (the rest), labels renumbered from 0.

        Halving comes after sampling, so the pictures are those of the whole task (CoCoOp, arXiv:2203.05557). A task
        sealed by without_test stays sealed.
        """
        if which not in HALVES:
            raise unknown("half", which, HALVES)
        count = len(self.classnames)
        if count < 2:
            raise FewshotError(f"{self.dataset} has {count} class; base and new halves need at least two.")
        middle = (count + 1) // 2
        first, last = (0, middle) if which == "base" else (middle, count)
        here = [name for name in ("train", "val", "test") if name in self.__dict__]
        parts = {name: _between(self.__dict__[name], first, last) for name in here}
        sealed = "test" not in parts
        task = replace(self, classnames=self.classnames[first:last], **{"test": parts["train"], **parts})
        return task.without_test() if sealed else task

    def without_test(self) -> Task:
        """The same task without the test pictures, for whatever trains: reading `.test` raises FewshotError."""
        sealed = copy.copy(self)
        sealed.__dict__.pop("test", None)
        return sealed

    def __getattr__(self, name: str):  # only asked for what is not there
        if name == "test":
            raise FewshotError("the test set is sealed during training; evaluate on the task that fit was given.")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def check_template(template: str) -> None:
    """FewshotError unless the prompt template has exactly one "{}"."""
    if not isinstance(template, str) or template.count("{}") != 1:
        raise FewshotError(
            f"the template {template!r} must hold exactly one {{}} for the class name, as in 'a photo of a {{}}.'."
        )


def _between(images: Images, first: int, last: int) -> Images:
    kept = images.subset((images.labels >= first) & (images.labels < last))
    return kept.relabel(kept.labels - first)
