"""Base and new: from rows that were tested on one half of the classes to scores of both, and to differences.

Only what has both halves counts, arm by arm, data set by data set, seed by seed: a half that is still missing would shift
one side of a comparison. Rows are those of `studies.measured`, with the columns arm and target.
"""

from __future__ import annotations

import pandas as pd

from fewshot.errors import FewshotError
from fewshot.intervals import paired
from fewshot.report import TITLES
from fewshot.runs import HALVES

COLUMNS = (*HALVES, "H")
ZERO = TITLES["zero_shot"]


def both_halves(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose arm, data set and seed have both halves. Raises FewshotError where one of them stands there twice."""
    by = ["arm", "dataset", "seed"]
    if rows.empty:
        return rows.assign(target=[])
    if rows.duplicated([*by, "target"]).any():
        raise FewshotError("the rows mix settings: two of one arm, data set, seed and half; keep one of them.")
    rows = rows[rows["target"].isin(HALVES)]
    return rows[rows.groupby(by)["target"].transform("size") == len(HALVES)]


def scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracies in percent, a line per arm, data set and seed that has both halves: arm, dataset, seed, base, new, H."""
    by = ["arm", "dataset", "seed"]
    rows = both_halves(rows)
    if rows.empty:
        return pd.DataFrame(columns=[*by, *COLUMNS])
    table = rows.pivot(index=by, columns="target", values="accuracy").reset_index()
    table["H"] = harmonic(table["base"], table["new"])
    order = {label: i for i, label in enumerate(dict.fromkeys(rows["arm"]))}
    return table.sort_values("arm", key=lambda arms: arms.map(order), kind="stable", ignore_index=True)


def harmonic(base, new):
    """2 b n / (b + n)."""
    return 2 * base * new / (base + new)


def averages(found: pd.DataFrame) -> pd.DataFrame:
    """Over the data sets, a line per arm: base, new, H, base_std, new_std, H_std, seeds, datasets.

    H is that of the averaged accuracies, as the papers form it, and not the average of the H's. The deviations are the
    population's, over the seeds that have all data sets of the arm. `found` is what `scores` returns.
    """
    lines = {}
    for arm, own in found.groupby("arm", sort=False):
        by_seed = own.pivot(index="seed", columns="dataset", values=list(HALVES)).dropna().T.groupby(level=0).mean().T
        by_seed["H"] = harmonic(by_seed["base"], by_seed["new"])
        line = dict(own.groupby("dataset")[list(HALVES)].mean().mean())
        line["H"] = harmonic(line["base"], line["new"])
        line |= {f"{name}_std": by_seed[name].std(ddof=0) for name in COLUMNS}
        lines[arm] = line | {"seeds": len(by_seed), "datasets": own["dataset"].nunique()}
    columns = [*COLUMNS, *(f"{name}_std" for name in COLUMNS), "seeds", "datasets"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns)


def change(rows: pd.DataFrame, arm: str, half: str, other: str, other_half: str | None = None) -> pd.DataFrame:
    """`arm` on `half` minus `other` on `other_half` (default: the same half), a table data set x seed, in points."""
    rows = both_halves(rows)
    sides = ((arm, half), (other, other_half or half))
    left, right = (rows[(rows["arm"] == a) & (rows["target"] == h)] for a, h in sides)
    return paired(left, right) if len(left) and len(right) else pd.DataFrame()


def beyond(rows: pd.DataFrame, arm: str) -> pd.DataFrame:
    """What an arm loses from base to new beyond what zero-shot loses (negative: a loss), a table data set x seed."""
    base, new = (change(rows, arm, half, ZERO) for half in HALVES)
    return (new - base).dropna(how="all") if base.size and new.size else pd.DataFrame()
