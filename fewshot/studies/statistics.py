"""What the method table can and cannot tell apart: ranks, tests, noise of the seeds, calibration, and what accuracy costs.

Two sets of rows: the method table's own (`table_arms`), and the same kind of runs with their confidence kept (`arms`), which
older rows of the method table lack. Tables and figures: rank_report.py, seed_noise.py, calibration.py and costs.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fewshot.grids import grid
from fewshot.report import TITLES, _average, _shots, _signed, _title
from fewshot.runs import Profile, Run
from fewshot.studies import datasets_of, ranks
from fewshot.studies.calibration import measures
from fewshot.studies.costs import costs
from fewshot.studies.method_table import ALL_CLASS, SHOTS
from fewshot.studies.rank_report import ALPHA, p_value, published_scores, rankings, scores
from fewshot.studies.seed_noise import interval_numbers, noise_numbers

CALIBRATED = ("dtd", "eurosat", "oxford_pets", "fgvc_aircraft")
CALIBRATED_AT = 4  # shots


def arms(
    profile: Profile,
    methods: Sequence[str] = ALL_CLASS,
    datasets: Sequence[str] | None = None,
    shots: Sequence[int] = (CALIBRATED_AT,),
    seeds: Sequence[int] = (1, 2, 3),
    limit: int | None = None,
) -> dict[str, list[Run]]:
    """The runs whose confidence is looked at, an arm per method.

    They are runs of the method table as well; its older rows have no `reliability`, so read these from their own file.
    """
    datasets = datasets_of(profile, CALIBRATED) if datasets is None else list(datasets)
    return {TITLES[m]: grid("statistics", [m], datasets, shots, seeds, profile, limit=limit) for m in methods}


def table_arms(
    profile: Profile,
    methods: Sequence[str] = ALL_CLASS,
    datasets: Sequence[str] | None = None,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = (1, 2, 3),
    limit: int | None = None,
) -> dict[str, list[Run]]:
    """The runs of the ranks, the tests and the noise: the method table's own, an arm per method."""
    datasets = datasets_of(profile) if datasets is None else list(datasets)
    return {TITLES[m]: grid("method_table", [m], datasets, shots, seeds, profile, limit=limit) for m in methods}


# sentences


def statement(
    rows: pd.DataFrame,
    confident: pd.DataFrame,
    shots: Sequence[int],
    against: str,
    cost_at: int,
    alone: pd.DataFrame | None = None,
) -> str:
    """What can be told apart and what cannot: one sentence a line. `against` is a title, the others as in the tables."""
    said = [*_of_tests(rows, shots, against), *_of_intervals(rows, shots, against), *_of_noise(rows, shots)]
    said += [*_of_calibration(confident), *_of_costs(rows, cost_at, alone)]
    return "\n".join(said) or "Nothing was run that could be compared."


def published_statement(shots: Sequence[int]) -> str:
    """The same tests on the published table, one sentence per number of shots."""
    found = rankings(None, shots)
    said = [f"Published, {_shots(k)}: {_ranked(one)} {_best_two(published_scores(k), one)}" for k, one in found.items()]
    return "\n".join([*said, *_floor(found)]) or "Nothing is published at these shots."


def _of_tests(rows: pd.DataFrame, shots: Sequence[int], against: str) -> list[str]:
    said, found = [], rankings(rows, shots)
    for k, one in found.items():
        table = scores(rows, k)
        text = f"{_shots(k)}: {_ranked(one)} {_best_two(table, one)}"
        if against in table:
            tests = ranks.pairs(table, against)
            clear = tests[tests["p_holm"] < ALPHA]
            better = int((clear["difference"] > 0).sum())
            which = f" (better than {better}, worse than {len(clear) - better})" if len(clear) else ""
            text += f" {against} differs from {len(clear)} of {len(tests)} others after Holm's correction{which}."
        said.append(text)
    return said + _floor(found)


def _ranked(one: ranks.Ranking) -> str:
    best = one.average.index[0]
    near, others = one.beside(best), len(one.average) - 1
    alike = "" if one.p != one.p else f", Friedman p {p_value(one.p)}"
    apart = f"Nemenyi's test tells it apart from {others - len(near)} of {others} others"
    return f"{best} has the best average rank, {one.average.iloc[0]:.1f} of {others + 1}{alike}; {apart}."


def _best_two(table: pd.DataFrame, one: ranks.Ranking) -> str:
    first, second = one.average.index[:2]
    best = ranks.pairs(table[[first, second]]).iloc[0]
    points = f"{_signed(best['difference'])} points, Wilcoxon p {p_value(best['p'])}"
    return f"The best two ranks, {first} minus {second}: {points}."


def _floor(found: dict[int, ranks.Ranking]) -> list[str]:
    """Where Holm's rule for all pairs cannot be passed by any pair."""
    sizes = dict.fromkeys((one.datasets, len(one.average)) for one in found.values())
    pairs = {(n, k): k * (k - 1) // 2 for n, k in sizes}
    return [
        f"With {n} data sets and {count} pairs of methods, no pair can pass Holm's correction for all pairs."
        for (n, _), count in pairs.items()
        if count > ranks.most_tests(n, ALPHA)
    ]


def _of_intervals(rows: pd.DataFrame, shots: Sequence[int], against: str) -> list[str]:
    numbers = interval_numbers(rows, shots, against)
    numbers = numbers[numbers["method"] != against]
    said = []
    for k, part in numbers.groupby("shots"):
        clear = {
            what: int(((part[f"low_{what}"] > 0) | (part[f"high_{what}"] < 0)).sum()) for what in ("datasets", "seeds")
        }
        said.append(
            f"{_shots(int(k))}: of {len(part)} differences to {against}, the interval over other seeds leaves out 0 for "
            f"{clear['seeds']}, that over other data sets for {clear['datasets']}."
        )
    return said


def _of_noise(rows: pd.DataFrame, shots: Sequence[int]) -> list[str]:
    return [
        f"{_shots(int(one.shots))}, one data set, {int(one.seeds)} seeds: two methods closer than "
        f"{one.least_same_draws:.1f} points cannot be told apart ({one.least_other_draws:.1f} with other draws); "
        f"{one.share_closer:.0f} % of all pairs are closer."
        for one in noise_numbers(rows, shots).itertuples(index=False)
    ]


def _of_calibration(confident: pd.DataFrame) -> list[str]:
    found = measures(confident)
    if found.empty:
        return []
    every = found["dataset"].nunique()
    lines = {}
    for method, own in found.groupby("method"):
        covered = list(own["dataset"].unique())
        if len(covered) == every:
            lines[method] = [_average(own.assign(accuracy=own[c]), covered)[0] for c in ("ece", "over")]
    table = pd.DataFrame.from_dict(lines, orient="index", columns=["ece", "over"]).sort_values("ece")
    if len(table) < 2:
        return []
    low, high = table.iloc[0], table.iloc[-1]
    return [
        f"Calibration, {every} data sets: the error is least for {_title(low.name)} ({low['ece']:.1f} points) and largest for "
        f"{_title(high.name)} ({high['ece']:.1f}); {int((table['over'] > 0).sum())} of {len(table)} methods are more confident "
        "than right on average."
    ]


def _of_costs(rows: pd.DataFrame, shots: int, alone: pd.DataFrame | None) -> list[str]:
    found = costs(rows, shots, alone)
    best = found[found["front"]]
    if best.empty:
        return []
    each = ", ".join(
        f"{_title(one.method)} ({one.seconds:.{2 if one.seconds < 1 else 1}f} s, {one.accuracy:.1f} %)"
        for one in best.itertuples()
    )
    return [f"Cost, {_shots(shots)}: on the front are {each}; seconds {best['measured'].iloc[0]}."]
