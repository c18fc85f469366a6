"""A path as a user writes it."""

from __future__ import annotations

import os
from pathlib import Path

from fewshot.errors import FewshotError


def path_of(name: str | os.PathLike) -> Path:
    """`name` as a path, with ~ for the home folder. Raises FewshotError for the home of somebody who is not known here."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise FewshotError(
            f"{os.fspath(name)} begins with the home of a user who is not known here; write the whole path."
        ) from error
