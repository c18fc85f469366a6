"""What does it save to fit many small heads as one? python benchmarks/heads.py [--dataset NAME] [--shots K] [--steps N]

Three seeds with three learning rates each, on the toy CLIP: nine runs one after the other, and as one stack
(fewshot.together). Features are cached before the clock starts. Prints the seconds of both, their ratio, and the largest
difference between the weights of a run and those of the same run in the stack, as one JSON line per method.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import fewshot
from fewshot.methods import METHODS, get_method
from fewshot.runs import hardware, versions
from fewshot.together import fit_together

LRS = (1e-3, 2e-3, 4e-3)
SEEDS = (1, 2, 3)


def measure(method: str, clip, dataset: str, shots: int, steps: int) -> dict:
    """The row of one method."""
    tasks = [fewshot.load_task(dataset, shots=shots, seed=seed) for seed in SEEDS]
    settings = [{"lr": lr, "iterations": steps, "views": 1} for lr in LRS]
    options = {"selection": "fixed", "progress": False}
    fit_together(method, clip, tasks, [{**setting, "iterations": 1} for setting in settings], **options)  # fills the cache
    start = time.perf_counter()
    alone = [[fewshot.fit(method, clip, task, **options, **setting) for setting in settings] for task in tasks]
    middle = time.perf_counter()
    together = fit_together(method, clip, tasks, settings, **options)
    end = time.perf_counter()
    pairs = [pair for rows in zip(alone, together, strict=True) for pair in zip(*rows, strict=True)]
    apart = max(
        float((a - b).detach().abs().max())
        for one, other in pairs
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )
    return {
        "benchmark": "heads", "method": method, "dataset": dataset, "shots": shots, "steps": steps, "runs": len(pairs),
        "seconds_alone": round(middle - start, 3), "seconds_together": round(end - middle, 3),
        "ratio": round((middle - start) / (end - middle), 2), "largest_difference": apart,
        "load_average": round(os.getloadavg()[0], 1), "hardware": hardware(), "versions": versions(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="toy/pets")
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    clip = fewshot.load_clip("toy")
    for method in (name for name in METHODS if get_method(name).head):
        print(json.dumps(measure(method, clip, options.dataset, options.shots, options.steps), sort_keys=True))


if __name__ == "__main__":
    main()
