"""CoCoOp's question: what is learned on half of the classes, what is it worth on the other half?"""

from __future__ import annotations

from collections.abc import Sequence

from fewshot.report import TITLES
from fewshot.runs import HALVES, Profile, Run, grid
from fewshot.studies import datasets_of, with_options

WIDE = "CoOp, 60 vectors"
# label: method, and options that differ from the profile's
ARMS = {
    TITLES["zero_shot"]: ("zero_shot", {}),
    TITLES["clip_adapter"]: ("clip_adapter", {}),
    "CoOp": ("coop", {"ctx_init": "a photo of a"}),  # the CoCoOp paper's baseline: four vectors that start as words
    "CoOp, 16 vectors": ("coop", {}),
    WIDE: ("coop", {"n_ctx": 60}),
    TITLES["cocoop"]: ("cocoop", {}),
    TITLES["kgcoop"]: ("kgcoop", {}),
    TITLES["prograd"]: ("prograd", {}),
    TITLES["plotpp"]: ("plotpp", {}),
    TITLES["maple"]: ("maple", {}),
    TITLES["clip_lora"]: ("clip_lora", {}),
}
# 60 vectors leave 14 of the 77 positions to a class name; "2012 Lamborghini Gallardo LP 570-4 Superleggera" needs 16
TOO_LONG = ("stanford_cars",)


def arms(
    profile: Profile,
    methods: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    shots: int = 16,
    seeds: Sequence[int] = (1, 2, 3),
    limit: int | None = None,
) -> dict[str, list[Run]]:
    """An arm per setting of a method that can change its classes, tested on both halves; `methods` None: all of them."""
    datasets = datasets_of(profile) if datasets is None else list(datasets)
    found = {}
    for label, (method, options) in ARMS.items():
        if methods is None or method in methods:
            own = with_options(profile, method, **options) if options else profile
            names = [d for d in datasets if not (label == WIDE and d in TOO_LONG)]
            found[label] = grid("base_to_new", [method], names, [shots], seeds, own, targets=HALVES, limit=limit)
    return found
