"""Learned on ImageNet, tested elsewhere: on ten other data sets, and on four shifted ImageNets.

What a method has learned meets other class names (data sets), or the same names in other pictures (shifts). Methods that
learn something per class can only do the second.
"""

from __future__ import annotations

from collections.abc import Sequence

from fewshot.report import TITLES
from fewshot.runs import Profile, Run, grid
from fewshot.studies import datasets_of, toy, with_options
from fewshot.toy import ELEVEN, SHIFTED

SOURCE = "imagenet"
OTHERS = tuple(name for name in ELEVEN if name != SOURCE)
WORDS = {"ctx_init": "a photo of a"}  # CoCoOp's baseline: CoOp with four vectors that start as words
ZERO_SHOT, PHOTO = TITLES["zero_shot"], "Zero-shot CLIP, a photo of a"
# label: method, and options that differ from the profile's
MOVABLE = {
    TITLES["clip_adapter"]: ("clip_adapter", {}),
    "CoOp": ("coop", WORDS),
    "CoOp, 16 vectors": ("coop", {}),
    TITLES["cocoop"]: ("cocoop", {}),
    TITLES["kgcoop"]: ("kgcoop", {}),
    TITLES["prograd"]: ("prograd", {}),
    TITLES["plotpp"]: ("plotpp", {}),
    TITLES["maple"]: ("maple", {}),
    TITLES["clip_lora"]: ("clip_lora", {}),
}
BOUND = ("linear_probe", "cross_modal_probe", "lpplusplus", "gda", "tip_adapter", "tip_adapter_f", "taskres")
# The authors train MaPLe on ImageNet in their own way where it is to transfer.
MAPLE = {"prompt_depth": 3, "epochs": 2, "lr": 0.0026}


def arms(
    profile: Profile,
    methods: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    shifts: Sequence[str] | None = None,
    shots: int = 16,
    seeds: Sequence[int] = (1, 2, 3),
    limit: int | None = None,
) -> dict[str, list[Run]]:
    """An arm per method, learned on ImageNet and tested there, on `datasets` and on `shifts`; None: all of them.

    Methods that are bound to their classes are tested on the shifts alone. Zero-shot CLIP learns nothing: its arm asks for
    each test directly, with that data set's own template; a second arm says "a photo of a {}." everywhere.
    """
    source = datasets_of(profile, [SOURCE])
    datasets = datasets_of(profile, OTHERS) if datasets is None else list(datasets)
    shifts = datasets_of(profile, SHIFTED) if shifts is None else list(shifts)

    def runs(method: str, targets: Sequence[str], options: dict) -> list[Run]:
        own = with_options(profile, method, **options) if options else profile
        return grid("transfer", [method], source, [shots], seeds, own, targets=[None, *targets], limit=limit)

    found = {}
    for label, templates in ((ZERO_SHOT, {}), (PHOTO, {"templates": "photo"})):
        own = with_options(profile, "zero_shot", **templates) if templates else profile
        everywhere = [*source, *datasets, *shifts]
        found[label] = grid("transfer", ["zero_shot"], everywhere, [shots], [1], own, limit=limit)
    for label, (method, options) in MOVABLE.items():
        options = MAPLE if method == "maple" and not toy(profile) else options
        found[label] = runs(method, [*datasets, *shifts], options)
    for method in BOUND:
        found[TITLES[method]] = runs(method, shifts, {})
    methods_of = {label: asked[0].method for label, asked in found.items()}
    return {label: asked for label, asked in found.items() if methods is None or methods_of[label] in methods}
