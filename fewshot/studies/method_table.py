"""CLIP-LoRA tables 2 and 3: every method on every data set at every number of shots. Tables: report.py, curves: curves.py."""

from __future__ import annotations

from collections.abc import Sequence

from fewshot.grids import grid
from fewshot.methods import METHODS
from fewshot.report import TITLES
from fewshot.runs import Profile, Run
from fewshot.studies import datasets_of

SHOTS = (1, 2, 4, 8, 16)
# one of the others is about other data sets, one about more pictures
ALL_CLASS = tuple(name for name in METHODS if name not in ("text_adapter", "fine_tune"))


def arms(
    profile: Profile,
    methods: Sequence[str] = ALL_CLASS,
    datasets: Sequence[str] | None = None,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = (1, 2, 3),
) -> dict[str, list[Run]]:
    """An arm per method."""
    datasets = datasets or datasets_of(profile)
    return {TITLES[m]: grid("method_table", [m], datasets, shots, seeds, profile) for m in methods}
