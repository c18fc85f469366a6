"""Settings that no gradient reaches: what choosing them on validation pictures costs, and on the test set buys."""

from __future__ import annotations

from collections.abc import Sequence

from fewshot.methods import get_method
from fewshot.report import TITLES
from fewshot.runs import SELECTIONS, Profile, Run, grid
from fewshot.studies import datasets_of
from fewshot.studies.method_table import ALL_CLASS

SHOTS = (1, 4, 16)


def choosers() -> tuple[str, ...]:
    """The methods that have something to choose: those whose class has a `choose` of its own."""
    from fewshot.methods.method import Method

    return tuple(name for name in ALL_CLASS if get_method(name).choose is not Method.choose)


def label(method: str, selection: str) -> str:
    """The arm of a method with one way of choosing: "Tip-Adapter, fixed"."""
    return f"{TITLES[method]}, {selection}"


def arms(
    profile: Profile,
    methods: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = (1, 2, 3),
) -> dict[str, list[Run]]:
    """An arm per method and way of choosing; `methods` None: all that choose. The names of all three ways are written
    out, so that no row of another experiment (which leaves the way open) stands for one of them."""
    methods = choosers() if methods is None else list(methods)
    datasets = datasets_of(profile) if datasets is None else list(datasets)
    return {
        label(method, how): grid("selection", [method], datasets, shots, seeds, profile, selection=how)
        for method in methods
        for how in SELECTIONS
    }
