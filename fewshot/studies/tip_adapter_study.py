"""Tip-Adapter's questions: what does a cache of pictures add, how sharp is its setting, and how little training it takes."""

from __future__ import annotations

from collections.abc import Sequence

from fewshot.report import TITLES
from fewshot.runs import Profile, Run, grid
from fewshot.studies import datasets_of, with_options

SHOTS = (1, 2, 4, 8, 16)
ZERO_SHOT, COOP, FREE, TUNED = (TITLES[name] for name in ("zero_shot", "coop", "tip_adapter", "tip_adapter_f"))
MAIN = {ZERO_SHOT: "zero_shot", COOP: "coop", FREE: "tip_adapter", TUNED: "tip_adapter_f"}
EPOCHS = (1, 2, 5, 10, 20, 50, 100)  # of fine-tuning; the authors take 20, and 100 on EuroSAT
VIEWS = (1, 2, 5, 10)  # augmented views averaged in a key of the cache; the authors take 10
SOME = ("imagenet", "dtd", "eurosat", "fgvc_aircraft")  # where epochs and views are varied


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
) -> dict[str, list[Run]]:
    """Four methods at every number of shots; and at most shots, on the data sets `some`: Tip-Adapter-F with other numbers
    of epochs, CoOp with 20, and Tip-Adapter with other numbers of views. None: all data sets, and four of them."""
    datasets = datasets_of(profile) if datasets is None else list(datasets)
    some = [d for d in datasets_of(profile, SOME) if d in datasets] if some is None else list(some)

    def varied(method: str, **options) -> list[Run]:
        own = with_options(profile, method, **options)
        return grid("tip_adapter_study", [method], some, [max(shots)], seeds, own)

    found = {
        label: grid("tip_adapter_study", [method], datasets, shots, seeds, profile) for label, method in MAIN.items()
    }
    found |= {epochs_label("tip_adapter_f", n): varied("tip_adapter_f", epochs=n) for n in epochs}
    found |= {epochs_label("coop", 20): varied("coop", epochs=20)}
    found |= {views_label(n): varied("tip_adapter", augment_epoch=n) for n in views}
    return {label: asked for label, asked in found.items() if asked}
