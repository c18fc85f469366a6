"""The experiments of the book, a module each: its runs, and the tables and figures that are made of their rows.

A module has `arms(profile, ...)`: what is compared, each with its runs, {"CoOp": [Run, ...], "CoCoOp": [...]}. Called with
nothing but a profile it is the whole experiment, which `fewshot reproduce NAME` runs and the notebook of the same name shows.

STUDIES names the experiments. The other modules here hold one idea each of an experiment that has several: base_to_new has
halves, beyond_sixteen has crossings, lora_ablation has lora_figures, selection has optimism, statistics has ranks, rank_report,
seed_noise, calibration and costs, tip_adapter_study has tip_curves and surface, training_time has alone and time_figures,
llm_text_adapter has converted, misprint, open_points and sentences_elsewhere; method_table and transfer have one module. Several
share differences and borrowed. speed and speed_figures show what benchmarks/speed.py has measured.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pandas as pd

from fewshot.errors import unknown
from fewshot.grids import complete
from fewshot.runs import Profile, Run, load_profile, results_folder, run
from fewshot.toy import ELEVEN

STUDIES = (
    "method_table",
    "training_time",
    "lora_ablation",
    "base_to_new",
    "transfer",
    "tip_adapter_study",
    "selection",
    "beyond_sixteen",
    "statistics",
    "llm_text_adapter",
)
# Measured under conditions of their own: they take no row of another experiment, and none takes theirs. Seconds are taken
# one by one for the first; the second needs rows with their confidence, which older rows of the same runs lack.
CONDITIONED = ("training_time", "statistics")
Arms = Mapping[str, list[Run]]


def study(name: str) -> ModuleType:
    """The module of an experiment. Raises FewshotError for an unknown name."""
    if name not in STUDIES:
        raise unknown("experiment", name, STUDIES)
    return importlib.import_module(f"fewshot.studies.{name}")


def profile_of(name: str, backbone: str = "", weights: str = "") -> Profile:
    """The profile `name`, with another backbone or weights where they are given."""
    profile = load_profile(name)
    return replace(profile, backbone=backbone or profile.backbone, pretrained=weights or profile.pretrained)


def toy(profile: Profile) -> bool:
    """Whether a profile is meant for the drawn stand-ins."""
    return profile.name in ("toy", "smoke") or profile.backbone == "toy"


def datasets_of(profile: Profile, names: Iterable[str] = ELEVEN) -> list[str]:
    """The data sets `names`, or their drawn stand-ins where the profile is a toy's."""
    return [f"toy/{name}" if toy(profile) else name for name in names]


def with_options(profile: Profile, method: str, **options) -> Profile:
    """The profile with options of one method changed: with_options(profile, "coop", n_ctx=60)."""
    return replace(profile, methods={**profile.methods, method: {**profile.methods.get(method, {}), **options}})


def runs_of(arms: Arms) -> list[Run]:
    """All runs of all arms, each once: arms may share runs. Runs that share a training stay together."""
    return list({one.key: one for runs in arms.values() for one in runs}.values())


def measured(
    name: str,
    arms: Arms,
    profile: Profile,
    *,
    rows: str = "",
    recompute: bool = False,
    minutes: float | None = None,
    scheduler: str = "",
    workers: int = 0,
    progress: bool | Callable[[int, int], None] = True,
    run_one: Callable[[Run], dict] = run,
) -> pd.DataFrame:
    """The rows of `arms` as they are there, with a column `arm` (a row stands once for every arm that has it).

    Rows of the project are read (see `stored_files`); what is missing is run, for at most `minutes`, and kept in `rows`: by
    default NAME-PROFILE.jsonl in the cache folder; it is run here, on so many `workers` of this machine, or on those of the
    Dask scheduler at the address `scheduler`. `recompute` leaves the project's rows aside. Prints how many rows are there.
    Raises what `fewshot.grids.complete` raises.
    """
    asked = runs_of(arms)
    stored = [] if recompute else stored_files(name, profile)
    own = Path(rows).expanduser() if rows else rows_file(name, profile)
    frame = complete(asked, own, stored, scheduler or workers, progress=progress, minutes=minutes, run_one=run_one)
    left = len(asked) - len(frame)
    print(
        f"{len(frame)} of {len(asked)} rows are there"
        + (f"; {left} not run: execute again, or raise minutes" if left else "")
    )
    return labelled(frame, arms)


def stored_files(name: str, profile: Profile) -> list[Path]:
    """The project's files in which the rows of an experiment may be: results/*-PROFILE.jsonl, whichever experiment made
    them; but only its own file for an experiment that is CONDITIONED, and for the others no file of such a one."""
    conditioned = {one: results_folder() / f"{one}-{profile.name}.jsonl" for one in CONDITIONED}
    if name in conditioned:
        return [conditioned[name]]
    return sorted(set(results_folder().glob(f"*-{profile.name}.jsonl")) - set(conditioned.values()))


def labelled(frame: pd.DataFrame, arms: Arms) -> pd.DataFrame:
    """The rows with a column `arm`, arm by arm in the order of `arms`; a row that no arm has is left out."""
    place = {key: i for i, key in enumerate(frame["key"])} if len(frame) else {}  # no row, no such column
    parts = [
        frame.iloc[[place[one.key] for one in runs if one.key in place]].assign(arm=label)
        for label, runs in arms.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else frame.assign(arm=[])


def rows_file(name: str, profile: Profile) -> Path:
    """Where rows of an experiment are kept that are not the project's."""
    from fewshot.cache import cache_dir

    return cache_dir() / "rows" / f"{name}-{profile.name}.jsonl"
