"""Many runs: a grid, resumed, shared between processes, completed from what is stored."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from fewshot.dispatch import Dispatch, Failed, Gone, trace_path
from fewshot.errors import FewshotError, unknown
from fewshot.paths import path_of
from fewshot.plan import require
from fewshot.rows import FIRST, Rows
from fewshot.runs import HALVES, SELECTIONS, Profile, Run, load_profile, run, stamp
from fewshot.workers import Cluster, engine


def grid(
    experiment: str,
    methods: Iterable[str],
    datasets: Iterable[str],
    shots: Iterable[int],
    seeds: Iterable[int] = (1, 2, 3),
    profile: str | Profile = "toy",
    selection: str | None = None,
    targets: Iterable[str | None] = (None,),
    limit: int | None = None,
) -> list[Run]:
    """Every combination, data set by data set; zero_shot appears once per data set and target, with 0 shots.

    Runs that differ in `targets` alone follow each other: they share one training (see `run`).

    Raises FewshotError for an unknown method, data set, profile, or a number of shots that is not a positive integer.
    """
    from fewshot.data import dataset_names, full_name
    from fewshot.methods import METHODS
    from fewshot.toy import ALIASES

    profile = profile if isinstance(profile, Profile) else load_profile(profile)
    methods, datasets = ([v] if isinstance(v, str) else list(v) for v in (methods, datasets))
    shots, seeds = ([v] if isinstance(v, int) else list(v) for v in (shots, seeds))
    for method in methods:
        if method not in METHODS:
            raise unknown("method", method, METHODS)
    known = dataset_names()
    datasets = [full_name(dataset) for dataset in datasets]
    for dataset in datasets:
        if dataset in known or (dataset and path_of(dataset).exists()):
            continue
        if dataset.startswith((".", "~", "/")):
            raise FewshotError(f"the folder {dataset} does not exist; check the path.")
        raise unknown("data set", dataset, [*known, *(f"toy/{name}" for name in ALIASES)])
    for k in shots:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise FewshotError(f"shots must be positive whole numbers, not {k!r}; zero_shot needs none.")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise FewshotError(f"seeds must be whole numbers, not {seed!r}.")
    if selection is not None and selection not in SELECTIONS:
        raise unknown("selection", selection, SELECTIONS)
    targets = [t if t is None or t in HALVES else full_name(t) for t in targets]
    for target in targets:
        if target is not None and target not in HALVES and target not in known:
            raise unknown("target", target, [*HALVES, *known])

    def one(method: str, dataset: str, k: int, seed: int) -> list[Run]:
        overrides = profile.methods.get(method, {})
        asked = None if method == "zero_shot" else selection
        where = (profile.backbone, profile.pretrained, asked, profile.name)
        return [Run(experiment, method, dataset, k, seed, overrides, *where, target, limit) for target in targets]

    runs = []
    for dataset in datasets:
        if "zero_shot" in methods:
            runs += one("zero_shot", dataset, 0, 1)
        for s in seeds:
            for k in shots:
                runs += [run for m in methods if m != "zero_shot" for run in one(m, dataset, k, s)]
    return runs


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a grid; the message says what is stored and how to go on."""


def run_grid(
    runs: Sequence[Run],
    rows: Rows | str | os.PathLike,
    executor: Executor | int | str | None = None,
    progress: bool | Callable[[int, int], None] = True,
    *,
    minutes: float | None = None,
    run_one: Callable[[Run], dict] = run,
    stamp_of: Callable[[Run], str | None] = stamp,
    retries: int = 2,
):
    """Run what is not done yet; every finished run is stored at once. Returns the rows of `runs` as a DataFrame.

    Done means: a row with this key, made with today's weights and defaults (see `Run.key`). `executor` says where the runs are
    computed: None here, one after the other; a number on that many processes of this machine; an address such as
    "tcp://host:8786" on the workers of that Dask scheduler; or any concurrent.futures.Executor. Workers give their rows back
    to this process, which alone writes: they need not see the file. Processes that work on the same file share the runs: each
    is claimed by one of them, and free again when that one dies.
    `progress`: True shows a bar on a terminal; a function is called with (done, total). After `minutes` no further run is
    started, and the rows returned are those that are there.

    Before the first run everything that the runs need is looked for, where they are computed (see fewshot.plan.require), so
    that a data set or weights that cannot be had stop the grid when nothing has been spent yet.

    A run whose worker died, that found no memory or whose file system failed is tried `retries` times more, on another worker
    where there is one. A failing run does not stop the others; at the end a FewshotError names the failures and where their
    tracebacks are. A row that cannot be stored stops the grid, and so does an executor that is gone.
    Ctrl-C raises Interrupted; what is under way on workers is waited for and stored, a run here is lost.
    """
    rows = rows if isinstance(rows, Rows) else Rows(rows)
    asked = {one.key: one for one in runs}
    todo = dict(asked)
    there = rows.keys()
    stamps = {key: stamp_of(one) for key, one in todo.items() if key in there}
    for key, expected in stamps.items():
        if rows.get(key, expected) is not None:
            del todo[key]
    if todo:
        _make(asked, todo, rows, stamps, executor, progress, minutes, run_one, retries)
    frame = rows.frame()
    if frame.empty:
        return frame
    place = {one.key: i for i, one in reversed(list(enumerate(runs)))}
    frame = frame[frame["key"].isin(place)]
    return frame.sort_values("key", key=lambda keys: keys.map(place), ignore_index=True)


def _make(asked, todo, rows, stamps, executor, progress, minutes, run_one, retries) -> None:
    from tqdm import tqdm

    total = len(asked)
    done = total - len(todo)
    told = progress if callable(progress) else None
    quiet = True if told or not progress else None
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    order = _spread(todo.values()) if executor else list(todo.values())
    with engine(executor) as workers, tqdm(total=total, initial=done, unit="run", disable=quiet) as bar:
        _look_ahead(workers, order if getattr(run_one, "func", run_one) is run else [])
        dispatch = Dispatch(order, rows, stamps, run_one, workers, retries)
        bar.set_postfix(dispatch.counts())
        try:
            for _ in dispatch.results(deadline):
                done += 1
                bar.set_postfix(dispatch.counts(), refresh=False)
                bar.update()
                if told:
                    told(done, total)
        except KeyboardInterrupt:
            for _ in dispatch.drain():
                pass
            raise Interrupted(
                f"interrupted: {_stored(asked, rows)} of {total} runs are stored in {rows.path}; start it again to go on."
            ) from None
        except Gone as gone:
            raise FewshotError(
                f"{gone.what}, and {total - _stored(asked, rows)} of {total} runs did not finish (the others are in "
                f"{rows.path}); {gone.remedy}."
            ) from gone
        finally:
            dispatch.close()
    if dispatch.failed:
        raise _failure(asked, rows, dispatch.failed)


def _look_ahead(workers: Executor, runs: Sequence[Run]) -> None:
    """Everything that the runs need is looked for where they are computed."""
    if isinstance(workers, Cluster):
        workers.ready(runs)
    else:
        require(runs)


def _stored(asked: dict[str, Run], rows: Rows) -> int:
    return sum(key in rows for key in asked)


def complete(
    runs: Sequence[Run],
    rows: str | os.PathLike,
    stored: Iterable[str | os.PathLike] = (),
    executor: Executor | int | str | None = None,
    *,
    progress: bool | Callable[[int, int], None] = True,
    minutes: float | None = None,
    run_one: Callable[[Run], dict] = run,
    stamp_of: Callable[[Run], str | None] = stamp,
):
    """The rows of `runs` as a DataFrame in their order: what the files `stored` hold, and the rest from `rows`.

    The files `stored` are only read, and a row of theirs that was made with other weights or defaults does not count (see
    `Run.key`). What neither they nor `rows` hold is run and kept in `rows`; the rest as in `run_grid`.
    Raises what `run_grid` raises.
    """
    import pandas as pd

    files = [Rows(path) for path in stored]
    found = {}
    for one in runs:
        for file in files:
            if one.key in file and (row := file.get(one.key, stamp_of(one))) is not None:
                found[one.key] = row
                break
    rest = [one for one in runs if one.key not in found]
    if rest:
        run_grid(rest, rows, executor, progress, minutes=minutes, run_one=run_one, stamp_of=stamp_of)
        own = Rows(rows)
        for one in rest:
            if one.key in own and (row := own.get(one.key, stamp_of(one))) is not None:
                found[one.key] = row
    there = [found[one.key] for one in runs if one.key in found]
    return pd.DataFrame(there, columns=list(dict.fromkeys([*FIRST, *(name for row in there for name in row)])))


PLACE = ["dataset", "shots", "seed"]  # where runs share their pictures


def spot_check(
    rows,
    n: int = 1,
    seed: int = 0,
    tolerance: float = 0.5,
    seconds: float = 3.0,
    *,
    run_one: Callable[[Run], dict] = run,
):
    """Repeat `n` randomly chosen runs per method and compare: does this machine still give the stored numbers?

    They are drawn among those whose fit took at most `seconds` when it was stored, or else among the quickest `n`; all of
    them, where methods allow it, at one place (data set, shots and seed) or on one data set, whose pictures are then drawn
    and encoded once. Among the places that most methods share, chance decides.

    Returns a DataFrame with a line per repeated run; `agrees` is True when weights and split are the stored ones and the
    accuracy differs by at most `tolerance` points. Nothing is stored.
    """
    import pandas as pd

    frame = rows.frame() if isinstance(rows, Rows) else rows
    if frame.empty:
        raise FewshotError("there is no row to check; run the experiment first.")
    quick, lines = frame[frame["seconds_fit"] <= seconds], []
    shared = quick.groupby(PLACE)["method"].nunique().sort_index()
    place = shared[shared == shared.max()].sample(1, random_state=seed).index[0] if len(shared) else None
    for method, group in frame.groupby("method", sort=True):
        own = quick[quick["method"] == method]
        near = [own[own[PLACE[:k]].eq(list(place[:k])).all(axis=1)] for k in (len(PLACE), 1)] if place else []
        group = next((some for some in (*near, own) if len(some) >= n), group.nsmallest(n, "seconds_fit"))
        for _, row in group.sample(min(n, len(group)), random_state=seed).sort_values("key").iterrows():
            again = run_one(Run.from_row(row.to_dict()))
            difference = again["accuracy"] - row["accuracy"]
            same = {
                "same_weights": again["clip"] == row["clip"],
                "same_split": again["split_hash"] == (row["split_hash"] if isinstance(row["split_hash"], str) else None),
            }
            lines.append(
                {name: row[name] for name in ("method", "dataset", "shots", "seed")}
                | {"stored": row["accuracy"], "here": again["accuracy"], "difference": difference}
                | same
                | {"agrees": all(same.values()) and abs(difference) <= tolerance}
            )
    return pd.DataFrame(lines)


def _spread(runs: Iterable[Run]) -> list[Run]:
    """First one run of every training, then the others: processes that share a training would wait for each other."""
    seen: dict[str, int] = {}
    places = []
    for one in runs:
        training = replace(one, target="base" if one.target in HALVES else None, limit=None).key
        places.append(seen.get(training, 0))
        seen[training] = places[-1] + 1
    return [one for _, one in sorted(zip(places, runs, strict=True), key=lambda pair: pair[0])]


def _failure(asked: dict[str, Run], rows: Rows, failed: dict[str, Failed]) -> FewshotError:
    key, first = next(iter(failed.items()))
    return FewshotError(
        f"{len(failed)} of {len(asked)} runs failed and were not stored, the others are in {rows.path}; "
        f"first {asked[key]} ({first.why}); tracebacks in {trace_path(rows, asked[key]).parent}."
    )
