"""Ranks and tests of the method table, and of the published one: tables and critical-difference diagrams.

Rows are those of `studies.measured`, with the column arm: a method's title.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import pandas as pd

from fewshot import published
from fewshot.report import NOT_RUN, TITLES, Table, _origin, _published_title, _shots, _signed, summary
from fewshot.studies import ranks

ALPHA = 0.05
METHOD_OF = {title: method for method, title in TITLES.items()}
TESTS = [
    "methods on data sets", "Friedman p", "critical distance", "Nemenyi", "Wilcoxon, each alone", "Wilcoxon, Holm",
    "most tests for Holm",
]  # fmt: skip
BEST = ["best average rank", "second", "difference", "won – lost", "p"]


def scores(rows: pd.DataFrame, shots: int) -> pd.DataFrame:
    """Mean accuracies over the seeds, data set x arm, at one number of shots (zero-shot at every), without gaps.

    Arms that were not run are left out, then data sets that lack one of the others. Raises FewshotError where the rows
    hold two of one arm, data set and seed.
    """
    part = rows[rows["shots"].isin([0, shots])]
    if not (part["shots"] == shots).any():
        return pd.DataFrame()
    table = summary(part, ["arm", "dataset"]).pivot(index="dataset", columns="arm", values="mean")
    return ranks.complete(table[[arm for arm in dict.fromkeys(rows["arm"]) if arm in table]])


def published_scores(shots: int) -> pd.DataFrame:
    """The accuracies of the CLIP-LoRA paper's table 2, data set x method as it is called there; empty where it has none."""
    part = published.published("clip_lora")
    part = part[part["shots"].isin([0, shots]) & (part["dataset"] != "average")]
    if not (part["shots"] == shots).any():
        return pd.DataFrame()
    table = part.pivot(index="dataset", columns="variant", values="top1")
    return ranks.complete(table[list(dict.fromkeys(part["variant"]))].rename(columns=_published_title))


def methods_of(labels: Sequence[str]) -> dict[str, str]:
    """The method of a label, of rows or of the published table: {"CoOp, 4 context vectors": "coop"}."""
    return {label: METHOD_OF.get(label.partition(",")[0], label) for label in labels}


def rankings(rows: pd.DataFrame | None, shots: Sequence[int]) -> dict[int, ranks.Ranking]:
    """The ranking at each number of shots that has two methods on two data sets; `rows` None: of the published table."""
    tables = {k: published_scores(k) if rows is None else scores(rows, k) for k in shots}
    return {k: ranks.ranking(table, ALPHA) for k, table in tables.items() if min(table.shape) > 1}


def diagrams(rows: pd.DataFrame | None, shots: Sequence[int]):
    """Critical-difference diagrams, one below the other; `rows` None: of the published table. None where nothing has a rank."""
    found = rankings(rows, shots)
    if not found:
        return None
    title = "published (CLIP-LoRA table 2): real data sets, ViT-B/16" if rows is None else _origin(rows, short=True)
    labels = [label for one in found.values() for label in one.average.index]
    return ranks.diagram({_shots(k): one for k, one in found.items()}, methods_of(labels), title)


def rank_numbers(rows: pd.DataFrame, shots: Sequence[int]) -> pd.DataFrame:
    """The data of the diagrams: numbers (here, published), shots, method, average rank, data sets, critical distance."""
    lines = []
    for source, found in (("here", rankings(rows, shots)), ("published", rankings(None, shots))):
        for k, one in found.items():
            lines += [(source, k, label, rank, one.datasets, one.distance) for label, rank in one.average.items()]
    columns = ["numbers", "shots", "method", "average_rank", "datasets", "critical_distance"]
    return pd.DataFrame(lines, columns=columns)


def tests_table(rows: pd.DataFrame, shots: Sequence[int]) -> Table:
    """How many pairs of methods each test tells apart, here and in the published table, a line per number of shots."""

    def line(scores: pd.DataFrame, one: ranks.Ranking) -> list[str]:
        every = ranks.pairs(scores)
        apart = sum(abs(a - b) >= one.distance for a, b in combinations(one.average, 2))
        n = len(every)
        return [
            f"{len(one.average)} on {one.datasets}", p_value(one.p), f"{one.distance:.2f}", f"{apart} of {n}",
            f"{(every['p'] < ALPHA).sum()} of {n}", f"{(every['p_holm'] < ALPHA).sum()} of {n}",
            str(ranks.most_tests(one.datasets, ALPHA)),
        ]  # fmt: skip

    table = _by_shots(rows, shots, TESTS, line)
    table.caption = (
        f"Pairs of methods told apart at the {ALPHA:.0%} level. Friedman: are all methods alike? Nemenyi: average ranks "
        "at least the critical distance apart. Wilcoxon: signed-rank test of each pair, by itself and with Holm's "
        "correction for all pairs. Most tests for Holm: with more, no pair can pass, not even one that wins everywhere. "
        f"Published: CLIP-LoRA paper, table 2. {_origin(rows)}"
    )
    return table


def best_table(rows: pd.DataFrame, shots: Sequence[int]) -> Table:
    """The two best average ranks against each other, here and in the published table, a line per number of shots."""

    def line(scores: pd.DataFrame, one: ranks.Ranking) -> list[str]:
        first, second = one.average.index[:2]
        found = ranks.pairs(scores[[first, second]]).iloc[0]
        names = [f"{name} ({one.average[name]:.1f})" for name in (first, second)]
        return [*names, _signed(found["difference"]), f"{found['won']} – {found['lost']}", p_value(found["p"])]

    table = _by_shots(rows, shots, BEST, line)
    table.caption = (
        "The two methods with the best average ranks (in brackets): mean difference in points, data sets won and lost, "
        f"Wilcoxon's p for this pair by itself. Published: CLIP-LoRA paper, table 2. {_origin(rows)}"
    )
    return table


def _by_shots(rows: pd.DataFrame, shots: Sequence[int], columns: list[str], line: Callable) -> Table:
    """A Table with a line per number of shots, first of the rows, then of the published table."""
    lines = {}
    for source, given in (("here", rows), ("published", None)):
        for k in shots:
            table = published_scores(k) if given is None else scores(rows, k)
            missing = "–" if given is None else NOT_RUN
            several = min(table.shape) > 1
            cells = line(table, ranks.ranking(table, ALPHA)) if several else [missing] * len(columns)
            lines[f"{_shots(k)}, {source}"] = cells
    table = Table(pd.DataFrame.from_dict(lines, orient="index", columns=columns))
    table.index.name = "shots"
    return table


def pair_numbers(rows: pd.DataFrame, shots: Sequence[int]) -> pd.DataFrame:
    """`ranks.pairs` of all methods at every number of shots, here and in the published table: the data of the table of tests."""
    parts = []
    for source, given in (("here", rows), ("published", None)):
        for k in shots:
            table = published_scores(k) if given is None else scores(rows, k)
            if min(table.shape) > 1:
                parts.append(ranks.pairs(table).assign(numbers=source, shots=k))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["one", "other", "numbers", "shots"])


def against_table(rows: pd.DataFrame, against: str, shots: Sequence[int]) -> Table:
    """One method against each other one, two columns per number of shots: mean difference with the data sets won and lost,
    and Wilcoxon's p corrected by Holm's rule for the tests of that number of shots; bold where it tells the two apart."""
    found = {}
    for k in shots:
        table = scores(rows, k)
        if against in table and min(table.shape) > 1:
            found[k] = ranks.pairs(table, against).set_index("other")
    if not found:
        return nothing(f"{against} and another method on two data sets")
    names = [name for name in dict.fromkeys(rows["arm"]) if name != against]
    cells, marks = {}, {}
    for k, own in found.items():
        difference, p = _shots(k), f"p, {_shots(k)}"
        cells[difference] = {m: f"{_signed(own.difference[m])} ({own.won[m]} – {own.lost[m]})" for m in own.index}
        cells[p] = {m: p_value(own.p_holm[m]) for m in own.index}
        marks |= {(m, p): "strong" for m in own.index[own["p_holm"] < ALPHA]}
    table = Table(pd.DataFrame(cells, index=names).fillna(NOT_RUN))
    table.index.name, table.marks = "method", marks
    each = " and ".join(dict.fromkeys(str(len(own)) for own in found.values()))
    n = " and ".join(dict.fromkeys(str(own["n"].iloc[0]) for own in found.values()))
    table.caption = (
        f"{against} minus the method of the line: mean over {n} data sets in points (data sets won – lost); p of Wilcoxon's "
        f"signed-rank test (exact), corrected by Holm's rule for {each} tests per number of shots. {_origin(rows)}"
    )
    return table


def nothing(what: str) -> Table:
    """A table that says what would have to be run first."""
    table = Table({"": [NOT_RUN]}, index=[what])
    table.index.name = "needs"
    return table


def p_value(p: float) -> str:
    """ "0.012", "< 0.001", or "–" where there was nothing to test."""
    return "–" if p != p else "< 0.001" if p < 0.001 else f"{p:.3f}"
