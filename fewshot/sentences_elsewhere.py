"""Sentences in other methods: a class described instead of named, as zero-shot CLIP, in Tip-Adapter and in CLIP-LoRA."""

from __future__ import annotations

from collections.abc import Sequence

from fewshot.report import TITLES
from fewshot.runs import Profile, Run, grid
from fewshot.studies import with_options

SHOTS = (1, 4, 16)
WORDS = {
    "task": "template",
    "sentences": "sentences",
    "named_sentences": "named sentences",
}  # what the classifier is made of
OPTION = {"zero_shot": "templates", "tip_adapter": "texts", "clip_lora": "template"}  # of each method, that says so
LORA_SEEDS, LORA_NAMED_SHOTS = 3, 4  # a run of CLIP-LoRA takes a hundred times as long as one of the others
BOTH = f"{TITLES['clip_lora']}, both encoders"


def label(method: str, words: str) -> str:
    """The arm of a method with a classifier of "task", "sentences" or "named_sentences"."""
    of = ", image encoder" if method == "clip_lora" else ""
    return f"{TITLES[method]}{of}, {WORDS[words]}"


def arms(
    profile: Profile, datasets: Sequence[str], shots: Sequence[int] = SHOTS, seeds: Sequence[int] = (1, 2, 3, 4, 5),
    limit: int | None = None,
) -> dict[str, list[Run]]:  # fmt: skip
    """An arm per method and kind of classifier, and CLIP-LoRA as its authors have it, with both encoders.

    CLIP-LoRA with sentences trains the image encoder alone, so its control does too. It has the first three seeds, and
    with names in front and with both encoders at most four shots.
    """
    found = {}
    for method, option in OPTION.items():
        some = {"encoder": "vision"} if method == "clip_lora" else {}
        for words in WORDS:
            own = with_options(profile, method, **some, **({} if words == "task" else {option: words}))
            few = method == "clip_lora" and words == "named_sentences"
            found[label(method, words)] = _runs(method, datasets, _shots(shots, few), seeds, own, limit)
    found[BOTH] = _runs("clip_lora", datasets, _shots(shots, True), seeds, profile, limit)
    return {name: runs for name, runs in found.items() if runs}


def _runs(method: str, datasets, shots, seeds, profile: Profile, limit: int | None) -> list[Run]:
    seeds = seeds[:LORA_SEEDS] if method == "clip_lora" else seeds
    return grid("llm_text_adapter", [method], datasets, shots, seeds, profile, limit=limit)


def _shots(shots: Sequence[int], few: bool) -> list[int]:
    return [k for k in shots if not few or k <= LORA_NAMED_SHOTS]
