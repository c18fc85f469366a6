"""How hyper-parameters that no gradient reaches are chosen; the choice is named and part of every row.

fixed: the values of the config. fewval: on the few validation pictures of the task (min(shots, 4) per class). oracle:
on the test pictures themselves, handed over explicitly after fitting, to measure what that optimism buys.
"""

from __future__ import annotations

import torch

from fewshot.errors import FewshotError, unknown
from fewshot.methods.method import Method

SELECTIONS = ("fixed", "fewval")


def check_selection(selection: str) -> str:
    """The name of a selection that `fit` can make."""
    if selection == "oracle":
        raise FewshotError(
            "fit never sees the test pictures; fit with selection='fixed' and call fewshot.select.oracle(model, task.test)."
        )
    if selection not in SELECTIONS:
        raise unknown("selection", selection, [*SELECTIONS, "oracle"])
    return selection


def select(model: Method, val, selection: str) -> dict[str, float]:
    """Choose on `val` (an Images) when `selection` is "fewval"; returns what was chosen.

    Raises FewshotError when there is nothing to choose on.
    """
    if check_selection(selection) == "fixed" or type(model).choose is Method.choose:
        return {}
    if len(val) == 0:
        raise FewshotError(
            f"{model.dataset} has no validation pictures to choose the settings of {model.title} on; use selection='fixed'."
        )
    return _choose(model, val)


def oracle(model: Method, test) -> dict[str, float]:
    """Choose on the test pictures themselves: an upper bound, never a result."""
    return {} if type(model).choose is Method.choose else _choose(model, test)


def _choose(model: Method, images) -> dict[str, float]:
    from fewshot.data.features import image_features

    if model.needs != "features":
        raise FewshotError(f"{model.title} has nothing to choose on features; use selection='fixed'.")
    features = image_features(model.clip, images)
    return model.choose(features, torch.as_tensor(images.labels))
