"""A path as a user writes it."""

from __future__ import annotations

import os
from pathlib import Path

from fewshot.errors import FewshotError


def path_of(name: str | os.PathLike) -> Path:
    """`name` as a path, with ~ for the home folder; it need not exist.

    Raises FewshotError for the home of somebody who is not known here, and for what no file can be called or looked at.
    """
    try:
        path = Path(name).expanduser()
        os.stat(path)
    except RuntimeError as error:
        raise FewshotError(
            f"{os.fspath(name)} begins with the home of a user who is not known here; write the whole path."
        ) from error
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # too long, not allowed, a null byte
        why = getattr(error, "strerror", None) or error
        raise FewshotError(f"{os.fspath(name)} cannot be looked at ({why}); check the path.") from error
    return path
