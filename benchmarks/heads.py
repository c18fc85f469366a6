"""What it saves to fit many small heads as one: three draws with three learning rates each, nine runs in turn or as a stack.

Both ways are those of this package, on the toy CLIP with its features in the cache; see fewshot.together.
"""

from __future__ import annotations

from bench import Bench
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
    for method in (name for name in METHODS if get_method(name).head):
        keys = {path: f"together {method} {path}" for path in (REFERENCE, OURS)}
        if bench.has(*keys.values()):
            continue
        clip = fewshot.load_clip("toy", device=bench.device)
        tasks = [fewshot.load_task(DATASET, shots=SHOTS, seed=seed) for seed in SEEDS]
        settings = [{"lr": lr, "iterations": 2 if quick else STEPS, "views": 1} for lr in LRS]
        fixed = {"selection": "fixed", "progress": False}
        fit_together(method, clip, tasks, [{**setting, "iterations": 1} for setting in settings], **fixed)  # fills the cache
        found = {}
        ways = {
            REFERENCE: lambda: [[fewshot.fit(method, clip, task, **fixed, **s) for s in settings] for task in tasks],  # noqa: B023
            OURS: lambda: fit_together(method, clip, tasks, settings, **fixed),  # noqa: B023
        }
        times = bench.turns({path: lambda path=path: found.update({path: ways[path]()}) for path in ways})  # noqa: B023
        proof = {"weights": _apart(found[OURS], found[REFERENCE], method)}
        of = {"kind": "together", "method": method, "classes": len(tasks[0].classnames), "shots": SHOTS, "proof": proof}
        of |= {"options": {"runs": len(tasks) * len(settings), "steps": settings[0]["iterations"]}}
        for path, key in keys.items():
            bench.store({"key": key, "path": path, **of} | spread(times[path]))


def _apart(ours, theirs, method: str) -> float:
    """Largest difference of two grids of models, relative to each tensor's largest entry. SystemExit beyond APART."""
    pairs = [pair for rows in zip(ours, theirs, strict=True) for pair in zip(*rows, strict=True)]
    found = max(
        float((a - b).detach().abs().max() / b.detach().abs().max().clamp_min(1e-12))
        for one, other in pairs
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )
    if not found <= APART:
        raise SystemExit(f"{method}: runs in a stack end {found:.1e} from the same runs by themselves, more than {APART:g}")
    return found
