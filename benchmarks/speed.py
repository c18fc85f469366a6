"""How fast is a step, beside what the authors' programs do? python benchmarks/speed.py --rows results/speed/cpu.jsonl

For every method and number of classes a training step, and at 100 classes an evaluation pass, on this package's path and on
the reference path (benchmarks/reference.py), in one process, turn by turn, where both have been shown to give the same
logits (1e-5) and gradients (1e-4, relative to the largest). A line per path, with operations, bytes, memory and the share
of the machine's matrix-product peak measured in the same run. A line that is there is not measured again, so an
interrupted run goes on.

    --quick               few classes and repeats: is everything in order? Its numbers mean nothing
    --only coop,maple     some methods; --parts steps,towers,ablation,scaling,linearity,together: some parts
    --device cuda         a GPU; --precision bf16: autocast on both paths, proven in fp32 before

Leave the machine alone meanwhile. Where the reference takes minutes it is measured at two smaller numbers of classes and
continued as a straight line ("scaled_from" in the row), which is compared with a measurement once.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import parts
import torch
from bench import GRADIENTS, Bench, apart, columns, measure, noted
from heads import together
from meters import spread
from steps import BATCH, OURS, REFERENCE, SMALL, Case

TABLE = (37, 100, 1000)  # numbers of classes
EVALUATED = 100  # classes of the evaluation pass
FULL = ("coop", 300)  # the method and classes at which the straight line is compared with a measurement
# methods whose reference is measured at other numbers of classes than the first two: without text in a step at all of
# them, and with four prompts per class at fewer
ON_BOTH = {"plotpp": (10, 37), **dict.fromkeys(("tip_adapter_f", "taskres", "lpplusplus"), TABLE)}


def steps(bench: Bench, methods: list[str], quick: bool) -> None:
    """Every method: both paths where the reference takes seconds, elsewhere ours, and the reference as a straight line."""
    for method in methods:
        if quick:
            options = {"prompt_depth": 2} if method == "maple" else {}
            measure(bench, Case(method, 5, BATCH[method], options=options))
            continue
        both = ON_BOTH.get(method, TABLE[:2])
        for classes in both:
            phases = ("evaluate", "train") if classes == EVALUATED or classes == both[-1] < EVALUATED else ("train",)
            # the steps of a proof are dear where they are none of the timed ones
            measure(bench, Case(method, classes, BATCH[method]), phases=phases, proven=classes == both[0])
        for classes in sorted({*TABLE} - {*both}):
            far = Case(method, classes, BATCH[method])
            measure(bench, far, (OURS,), ("train",))
            continued(bench, "train", far, both)


def continued(bench: Bench, phase: str, case: Case, measured: tuple[int, int]) -> None:
    """The reference where it takes minutes: a straight line through what was measured at fewer classes."""
    key = f"{phase} {case.key} {REFERENCE}"
    low, high = (bench.done[f"{phase} {replace(case, classes=n).key} {REFERENCE}"] for n in measured)
    if bench.has(key):
        return
    far = (case.classes - measured[1]) / (measured[1] - measured[0])
    values = {name: high[name] + far * (high[name] - low[name]) for name in ("seconds", "flops", "bytes", "memory")}
    row = {"key": key, "kind": "step", "phase": phase, "path": REFERENCE, **columns(case), **values}
    bench.store(row | {"scaled_from": measured, "proof": None, "waited": None})


def linearity(bench: Bench) -> None:
    """One reference step far out, in full and in pieces, once: does the straight line hold?"""
    case = Case(*FULL, BATCH[FULL[0]])
    key = f"linearity train {case.key} {REFERENCE}"
    if bench.has(key):
        return
    inputs = bench.inputs(case.batch)
    ours, theirs = (bench.step(case, path, inputs) for path in (OURS, REFERENCE))
    noted(bench, theirs)
    found = {}
    took = bench.turns({REFERENCE: lambda: found.update(theirs.gradients())})[REFERENCE]
    row = {"key": key, "kind": "linearity", "phase": "train", "path": REFERENCE, **columns(case)}
    bench.store(row | spread(took) | {"proof": {"gradients": apart(ours.gradients(), found, GRADIENTS, key)}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, metavar="FILE", help="append here and skip what is there")
    parser.add_argument("--only", default=",".join(BATCH), metavar="METHODS")
    parser.add_argument("--parts", default="steps,towers,ablation,scaling,linearity,together", metavar="PARTS")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    small = {"repeats": 1, "config": SMALL} if asked.quick else {"repeats": asked.repeats}
    bench = Bench(asked.rows, asked.device, asked.precision, **small)
    best = ", ".join(f"{name} {flops / 1e9:.0f}" for name, flops in bench.peaks.items())
    print(f"{bench.environment['hardware']}: GFLOP/s {best}; copy {bench.bandwidth / 1e9:.0f} GB/s", flush=True)
    methods = asked.only.split(",")
    for part in asked.parts.split(","):
        start = time.perf_counter()
        if part == "steps":
            steps(bench, methods, asked.quick)
        elif part == "linearity" and not asked.quick and FULL[0] in methods:
            linearity(bench)
        elif part == "together":
            together(bench, asked.quick)
        elif part in ("towers", "ablation", "scaling"):
            getattr(parts, part)(bench, asked.quick)
        print(f"-- {part}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
