"""Rows of another experiment that a page shows beside its own: read where they are, and never made."""

from __future__ import annotations

import pandas as pd

from fewshot.rows import FIRST, Rows
from fewshot.runs import Profile, stamp
from fewshot.studies import Arms, labelled, rows_file, runs_of, stored_files


def borrowed(name: str, arms: Arms, profile: Profile) -> pd.DataFrame:
    """The rows of experiment `name` that are there for `arms`, with a column `arm`; prints how many. Nothing is run.

    Read are the project's files and the reader's own (see `studies.measured`); rows made with other weights or settings than
    today's do not count. Data sets and weights need not be there for the rest.
    """
    files = [Rows(path) for path in [*stored_files(name, profile), rows_file(name, profile)]]
    asked, found = runs_of(arms), []
    for one in asked:
        for file in files:
            if one.key in file and (row := file.get(one.key, stamp(one))) is not None:
                found.append(row)
                break
    print(f"{len(found)} of {len(asked)} rows of {name} are there; nothing is run for them here")
    if not found:
        return pd.DataFrame(columns=[*FIRST, "key", "seconds_fit", "arm"])
    return labelled(pd.DataFrame(found), arms)
