"""Ranks and tests of the method table, and of the published one: tables and critical-difference diagrams.

Rows are those of `studies.measured`, with the column arm: a method's title.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pandas as pd

from fewshot import published, ranks
from fewshot.report import NOT_RUN, TITLES, Table, _origin, _published_title, _shots, _signed, summary

ALPHA = 0.05
METHOD_OF = {title: method for method, title in TITLES.items()}
TESTS = [
    "methods on data sets", "Friedman p", "critical distance", "Nemenyi", "Wilcoxon, each alone", "Wilcoxon, Holm",
    "most tests for Holm", "best two", "won – lost", "p",
]  # fmt: skip


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
    lines = {}
    for source, given in (("here", rows), ("published", None)):
        for k in shots:
            table = published_scores(k) if given is None else scores(rows, k)
            name = f"{_shots(k)}, {source}"
            if min(table.shape) < 2:
                lines[name] = [NOT_RUN if given is not None else "–"] * len(TESTS)
                continue
            one, every = ranks.ranking(table, ALPHA), ranks.pairs(table)
            apart = sum(abs(a - b) > one.distance for a, b in combinations(one.average, 2))
            first, second = one.average.index[:2]
            best = ranks.pairs(table[[first, second]]).iloc[0]
            n = len(every)
            lines[name] = [
                f"{len(one.average)} on {one.datasets}", p_value(one.p), f"{one.distance:.2f}", f"{apart} of {n}",
                f"{(every['p'] < ALPHA).sum()} of {n}", f"{(every['p_holm'] < ALPHA).sum()} of {n}",
                str(ranks.most_tests(one.datasets, ALPHA)), f"{first} {_signed(best['difference'])} over {second}",
                f"{best['won']} – {best['lost']}", p_value(best["p"]),
            ]  # fmt: skip
    table = Table(pd.DataFrame.from_dict(lines, orient="index", columns=TESTS))
    table.index.name = "shots"
    table.caption = (
        f"Pairs of methods told apart at the {ALPHA:.0%} level. Friedman: are all methods alike? Nemenyi: average ranks "
        "further apart than the critical distance. Wilcoxon: signed-rank test of each pair, by itself and with Holm's "
        "correction for all pairs. Most tests for Holm: with more, no pair can pass, not even one that wins everywhere. "
        "Best two: by average rank, mean difference in points, data sets won – lost. Published: CLIP-LoRA paper, table 2. "
        f"{_origin(rows)}"
    )
    return table


def against_table(rows: pd.DataFrame, against: str, shots: int) -> Table:
    """One method against each other one: mean difference, data sets won and lost, Wilcoxon's p, and p by Holm's rule."""
    table = scores(rows, shots)
    if against not in table or table.shape[0] < 2 or table.shape[1] < 2:
        return nothing(f"{against} and another method on two data sets at {_shots(shots)}")
    found = ranks.pairs(table, against)
    cells = {
        one.other: {
            f"{against} over it": _signed(one.difference), "won – lost": f"{one.won} – {one.lost}", "p": p_value(one.p),
            "p, Holm": p_value(one.p_holm), "told apart": "yes" if one.p_holm < ALPHA else "no",
        }
        for one in found.itertuples(index=False)
    }  # fmt: skip
    table = Table(pd.DataFrame.from_dict(cells, orient="index"))
    table.index.name = "method"
    table.caption = (
        f"{against} against every other method over {found['n'].iloc[0]} data sets, {_shots(shots)}: mean difference in "
        f"points, Wilcoxon's signed-rank test (exact), corrected for {len(found)} tests. {_origin(rows)}"
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
