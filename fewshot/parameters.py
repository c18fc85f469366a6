"""The guard of a parameterised notebook: wrong names, types and choices stop it in its second cell, in one sentence."""

from __future__ import annotations

import functools
import operator
import types
import typing
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from fewshot.errors import FewshotError, unknown

PLAIN = (bool, int, float, str, list, tuple, dict, set, type(None))
SCALARS = (bool, int, float, str)
KINDS = {kind.__name__: kind for kind in SCALARS} | {f"list[{kind.__name__}]": list[kind] for kind in SCALARS}
IPYTHON = {"In", "Out", "exit", "quit", "get_ipython", "open"}


def settings(scope: Mapping[str, Any], **choices: Iterable) -> types.SimpleNamespace:
    """The checked parameters of a notebook: `cfg = settings(globals(), methods=METHODS, shots=(1, 2, 4, 8, 16))`.

    The parameters are the annotated names of the first cell (`shots: list[int] = [1, 4]`); annotations may be int, float,
    str, bool, a list of one of them, and `| None`. `choices` lists the legal values; for a list they apply to its elements.
    Text that papermill passes on the command line (`-p shots '[1, 4]'`, `-p fast true`) is read as YAML where the annotation
    asks for something else than text, and a single value stands for a list of one.

    Raises FewshotError (shown without a traceback) for a name nobody annotated, a wrong type, or an illegal value. Must
    run before the notebook makes other plain values; names in capitals count as constants, not as parameters.
    """
    # tqdm.auto says so at import, with a path of this machine, where there is no ipywidgets
    warnings.filterwarnings("ignore", message="IProgress not found")
    annotations = {name: kind for name, kind in scope.get("__annotations__", {}).items() if not name.startswith("_")}
    if not annotations:
        raise FewshotError("no annotated parameter; write the parameters cell like `shots: list[int] = [1, 4]`.")
    for name in choices:
        if name not in annotations:
            raise unknown("parameter", name, annotations)
    allowed = list(choices.values())
    lower = {name.lower() for name in annotations}
    for name, value in scope.items():
        if name in annotations or name.startswith("_") or name in IPYTHON or not isinstance(value, PLAIN):
            continue
        if any(value is known for known in allowed) or (name.isupper() and name.lower() not in lower):
            continue
        raise unknown("parameter", name, annotations)
    values = {}
    for name, kind in annotations.items():
        if name not in scope:
            raise FewshotError(f"the parameter {name!r} has no value; give it one, like `{name}: int = 4`.")
        kind = _kind(kind) if isinstance(kind, str) else kind
        values[name] = coerce(name, scope[name], kind)
        if name in choices:
            _check_choice(name, values[name], list(choices[name]))
    return types.SimpleNamespace(**values)


def coerce(name: str, value: Any, kind: Any) -> Any:
    """`value` as the annotation `kind` wants it, or a FewshotError that says what was given and what is wanted."""
    wanted, optional = _split_optional(kind)
    if wanted is list or typing.get_origin(wanted) is list:
        element = (typing.get_args(wanted) or (None,))[0]
    elif wanted in SCALARS:
        element = None
    else:
        raise FewshotError(
            f"the parameter {name!r} is annotated {_show(kind)}; use int, float, str, bool, a list or `| None`."
        )
    if optional and (value is None or value in ("None", "null")):
        return None
    if wanted in SCALARS:
        return _scalar(name, value, wanted, kind)
    if isinstance(value, str) and (element is not str or value.lstrip().startswith("[")):
        value = _yaml(value)
    if not isinstance(value, list | tuple):
        value = [value]
    return [v if element is None else _scalar(name, v, element, kind) for v in value]


def _scalar(name: str, value: Any, wanted: type, kind: Any) -> Any:
    given = value
    if wanted is not str and isinstance(value, str):
        value = _yaml(value)
        if wanted is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
            try:
                value = float(value)
            except ValueError:
                pass
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted:
        shown = type(given).__name__ if given is not None else "None"
        raise FewshotError(f"{name} wants {_show(kind)}, not {given!r} ({shown}).")
    return value


def _check_choice(name: str, value: Any, allowed: list) -> None:
    if isinstance(value, list) and not value:
        raise FewshotError(f"{name} is empty; choose from {', '.join(map(str, allowed))}.")
    for one in value if isinstance(value, list) else [value]:
        if one is None or one in allowed:
            continue
        if isinstance(one, str):
            raise unknown(name.removesuffix("s") if isinstance(value, list) else name, one, map(str, allowed))
        raise FewshotError(f"{name}: {one!r} is not one of {', '.join(map(str, allowed))}.")


def _kind(text: str) -> Any:
    """The annotation that a text spells ("list[int] | None"), looked up and never run; the text itself where it is none."""
    parts = text.replace(" ", "")
    if parts.startswith(("Optional[", "typing.Optional[")) and parts.endswith("]"):
        parts = parts.partition("[")[2][:-1] + "|None"
    known = KINDS | {"list": list, "None": None}
    found = [known.get(part, text) for part in parts.split("|")]
    return text if text in found else functools.reduce(operator.or_, found) if found[1:] else found[0]


def _split_optional(kind: Any) -> tuple[Any, bool]:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        parts = [part for part in typing.get_args(kind) if part is not type(None)]
        return (parts[0] if len(parts) == 1 else kind), len(parts) < len(typing.get_args(kind))
    return kind, False


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _show(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
