"""Thousands of labels: who wins with 1, 4, 16, 128 and all training pictures per class, and where the curves cross.

Up to 16 shots every method has the budget of its profile. Beyond, what is trained by steps is shown as many pictures in all as
at 16 shots, and what averages augmented views takes fewer of them, so that more labels do not also mean more computing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

from fewshot.data import full_name
from fewshot.errors import FewshotError
from fewshot.methods import get_method
from fewshot.report import TITLES
from fewshot.runs import ALL, Profile, Run, grid
from fewshot.studies import toy
from fewshot.toy import LARGE, MANY

METHODS = ("zero_shot", "linear_probe", "lpplusplus", "gda", "tip_adapter", "tip_adapter_f", "coop", "clip_lora",
           "fine_tune")  # fmt: skip
SHOTS = (1, 4, 16, 128, ALL)
REAL = (
    "eurosat",
    "food101",
    "imagenet",
)  # those of the papers' data sets that have more than 128 pictures of each class
LAST = 16  # shots whose budget the larger numbers keep
MOST = (
    100_000  # training pictures: "all" is left out where there are more, as on ImageNet (a cache of 1.28 million keys)
)


# the runs


def arms(
    profile: Profile,
    methods: Sequence[str] = METHODS,
    datasets: Sequence[str] | None = None,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = (1, 2, 3),
    limit: int | None = None,
) -> dict[str, list[Run]]:
    """An arm per method. -1 shots are all training pictures: the seeds then differ in what is drawn besides pictures."""
    if datasets is None:
        datasets = [f"toy/{name}" for name in LARGE] if toy(profile) else REAL
    sizes = {name: training_pictures(name) for name in map(full_name, datasets)} if ALL in shots else {}
    found = {}
    for method in methods:
        found[TITLES[method]] = runs = []
        for one in grid("beyond_sixteen", [method], datasets, 1, seeds, profile, limit=limit):
            if one.shots == 0:
                runs.append(one)
                continue
            for k in shots:
                classes, pictures = sizes.get(one.dataset, (1, 0))
                if k == ALL and pictures > MOST:
                    continue
                count = pictures / classes if k == ALL else k
                runs.append(replace(one, shots=k, config={**one.config, **capped(one, count, k == ALL)}))
    return found


def training_pictures(dataset: str) -> tuple[int, int]:
    """(classes, training pictures); the large stand-ins are not drawn for it. Raises FewshotError where nothing is known."""
    from fewshot.plan import pictures

    name = dataset.removeprefix("toy/")
    known = pictures(f"toy/{LARGE[name]}" if name in LARGE else dataset)
    if known is None:
        raise FewshotError(f"nobody knows how many pictures {dataset} has; check the path, or leave -1 out of shots.")
    return known[0], MANY * known[0] if name in LARGE else known[1]


def capped(one: Run, count: float, every: bool = False) -> dict:
    """What replaces options of a run with `count` pictures per class (`every`: all there are), beyond LAST; nothing below.

    CoOp and Tip-Adapter-F: fewer epochs (CoOp at least two, for its first is a warm-up). CLIP-LoRA and fine-tuning: the steps
    of LAST shots. Augmented views, where they are kept: as many pictures as at LAST shots, but at least one view.
    """
    if count <= LAST and not every:
        return {}
    method, options, share = get_method(one.method), one.config, min(1.0, LAST / count)
    config, changed = method.Config(), {}
    if "views" in options:
        changed["views"] = max(1, round(options["views"] * share))
    if hasattr(config, "augment_epoch"):
        changed["augment_epoch"] = max(1, round(options.get("augment_epoch", config.augment_epoch) * share))
    if one.method in ("clip_lora", "fine_tune"):
        steps = min(LAST, round(count)) * options.get("per_shot", config.per_shot)
        changed["iterations"] = options.get("iterations", steps)
    elif one.method in ("coop", "tip_adapter_f"):
        usual = method.epochs(SimpleNamespace(dataset=one.dataset, shots=LAST))
        least = 2 if one.method == "coop" else 1
        changed["epochs"] = max(least, round(options.get("epochs", usual) * share))
    return changed
