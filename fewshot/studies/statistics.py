"""What the method table can and cannot tell apart: ranks, tests, noise of the seeds, calibration, and what accuracy costs."""

from __future__ import annotations

from collections.abc import Sequence

from fewshot.report import TITLES
from fewshot.runs import Profile, Run, grid
from fewshot.studies import datasets_of, method_table
from fewshot.studies.method_table import ALL_CLASS

CALIBRATED = ("dtd", "eurosat", "oxford_pets", "fgvc_aircraft")
CALIBRATED_AT = 4  # shots
SHOTS = (1, 4, 16)  # of the ranks and tests: those of the published table


def arms(
    profile: Profile,
    methods: Sequence[str] = ALL_CLASS,
    datasets: Sequence[str] | None = None,
    shots: Sequence[int] = (CALIBRATED_AT,),
    seeds: Sequence[int] = (1, 2, 3),
) -> dict[str, list[Run]]:
    """The runs whose confidence is looked at, an arm per method.

    They are runs of the method table as well; its older rows have no `reliability`, so read these from their own file.
    """
    datasets = datasets_of(profile, CALIBRATED) if datasets is None else list(datasets)
    return {TITLES[m]: grid("statistics", [m], datasets, shots, seeds, profile) for m in methods}


def table_arms(
    profile: Profile,
    methods: Sequence[str] = ALL_CLASS,
    datasets: Sequence[str] | None = None,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = (1, 2, 3),
) -> dict[str, list[Run]]:
    """The runs of the ranks, the tests and the noise: the method table's own, an arm per method."""
    return method_table.arms(profile, methods, datasets, shots, seeds)
