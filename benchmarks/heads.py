"""What it saves to fit many small heads as one: three draws with three learning rates each, nine runs in turn or as a stack.

Both ways are those of this package, on the toy CLIP with its features in the cache; see fewshot.together.
"""

from __future__ import annotations

from functools import partial

import torch
from bench import Bench, apart
from meters import spread
from steps import OURS, REFERENCE

import fewshot
from fewshot.methods import METHODS, get_method
from fewshot.together import fit_together

LRS = (1e-3, 2e-3, 4e-3)
SEEDS = (1, 2, 3)
DATASET, SHOTS, STEPS = "toy/pets", 4, 200
APART = 1e-3  # how far the weights of a run and of the same run in the stack may be apart after STEPS steps


def together(bench: Bench, quick: bool) -> None:
    """A row per method and way: "ours" is the stack, "reference" one run after the other."""
    clip = fewshot.load_clip("toy", device=bench.device)
    tasks = [fewshot.load_task(DATASET, shots=SHOTS, seed=seed) for seed in SEEDS]
    settings = [{"lr": lr, "iterations": 2 if quick else STEPS, "views": 1} for lr in LRS]
    fixed = {"selection": "fixed", "progress": False}
    found = {}

    def in_turn(method: str) -> None:
        found[REFERENCE] = [[fewshot.fit(method, clip, task, **fixed, **one) for one in settings] for task in tasks]

    def as_one(method: str) -> None:
        found[OURS] = fit_together(method, clip, tasks, settings, **fixed)

    for method in (name for name in METHODS if get_method(name).head):
        keys = {path: f"together {method} {path}" for path in (REFERENCE, OURS)}
        if bench.has(*keys.values()):
            continue
        fit_together(method, clip, tasks, [{**one, "iterations": 1} for one in settings], **fixed)  # fills the cache
        times = bench.turns({REFERENCE: partial(in_turn, method), OURS: partial(as_one, method)})
        proof = {"weights": apart(_weights(found[OURS]), _weights(found[REFERENCE]), APART, f"heads of {method}")}
        of = {"kind": "together", "method": method, "classes": len(tasks[0].classnames), "shots": SHOTS, "proof": proof}
        of |= {"options": {"runs": len(tasks) * len(settings), "steps": settings[0]["iterations"]}}
        for path, key in keys.items():
            bench.store({"key": key, "path": path, **of} | spread(times[path]))


def _weights(models: list[list]) -> dict[str, torch.Tensor]:
    """Every trained tensor of a grid of models, by place and name."""
    grid = [(i, j, model) for i, row in enumerate(models) for j, model in enumerate(row)]
    return {f"{i} {j} {name}": p.detach() for i, j, model in grid for name, p in model.named_parameters()}
