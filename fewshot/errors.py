"""The one error a user's mistake raises: a sentence that names the thing and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class FewshotError(ValueError):
    """Something the user can put right; the message is one sentence and says how. A notebook shows the sentence alone."""

    def __init__(self, message: str = ""):
        super().__init__(on_one_line(message))

    def _render_traceback_(self) -> list[str]:  # IPython prints these lines instead of a traceback
        return [f"{type(self).__name__}: {self}"]


def on_one_line(text: str) -> str:
    """The text with line breaks, other control characters and broken Unicode spelt out: file names may hold them all."""
    text = str(text).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() or c in " \u00a0\u200d" else repr(c)[1:-1] for c in text)


def unknown(kind: str, name: str, known: Iterable[str]) -> FewshotError:
    """The error for a name that does not exist, with the nearest names that do (to be raised by the caller)."""
    names = sorted(str(n) for n in known)
    near = get_close_matches(str(name).lower(), [n.lower() for n in names], n=1, cutoff=0.6)
    if near:
        hint = f"did you mean {next(n for n in names if n.lower() == near[0])!r}?"
    elif names:
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        hint = f"known: {shown}."
    else:
        hint = f"there is no {kind} to choose from."
    return FewshotError(f"unknown {kind} {str(name)!r}; {hint}")
