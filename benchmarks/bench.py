"""One machine, both paths side by side: what is proven, counted and timed, and the file of rows it goes to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from meters import Memory, bandwidth, count, gemm_peaks, seconds, spread
from reference import reference
from steps import OURS, PATHS, REFERENCE, Case, Step, random_clip

from fewshot.runs import hardware, versions
from fewshot.studies.alone import seconds_waited, share_waited

SHORT, LONG = 1.5, 8  # seconds of turns below which there are more, above which there are fewer
BRIEF = 0.1  # seconds; a work below it is called once off the clock, for in a training it follows its like, ..
OFTEN = 5  # .. and then so many times a turn, which costs nothing beside the other path
LOGITS, GRADIENTS = 1e-5, 1e-4  # how far the paths may be apart, relative to the largest entry


class Bench:
    """The machine, the weights on both paths, and the file of rows."""

    def __init__(self, rows: Path | None, device: str, precision: str, repeats: int, config=None) -> None:
        self.rows, self.device, self.precision, self.repeats = rows, torch.device(device), precision, repeats
        lines = rows.read_text().splitlines() if rows and rows.exists() else []
        self.done = {row["key"]: row for row in map(json.loads, lines)}
        self.waited = None  # share of the last turns in which another process had our processor
        clip = random_clip(self.device, config)
        self.clips = {OURS: clip, REFERENCE: reference(clip)}
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.peaks = gemm_peaks(self.device, dtype)
        self.bandwidth = bandwidth(self.device)
        on_gpu = self.device.type == "cuda"
        # a processor's name often hides its generation; how wide it multiplies tells
        machine = hardware(self.device) if on_gpu else f"{hardware()}, {torch.backends.cpu.get_cpu_capability()}"
        self.environment = {
            "device": self.device.type, "precision": precision, "date": date.today().isoformat(), "versions": versions(),
            "hardware": machine, "threads": torch.get_num_threads(),
            "gemm_flops": self.peaks, "peak_flops": max(self.peaks.values()), "bandwidth": self.bandwidth,
        }  # fmt: skip

    def autocast(self):
        on = self.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16) if on else nullcontext()

    def inputs(self, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise [B, 3, S, S], and its features as a cache has them."""
        clip = self.clips[OURS]
        pixels = torch.randn(batch, 3, clip.image_size, clip.image_size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            return pixels.to(self.device), torch.cat([clip.encode_image(p) for p in pixels.split(32)])

    def step(self, case: Case, path: str, inputs, clip=None) -> Step:
        return Step(clip or self.clips[path], case, path, *inputs)

    def has(self, *keys: str) -> bool:
        return all(key in self.done for key in keys)

    def store(self, row: dict) -> None:
        """Append a row, durably, and say it."""
        row = self.environment | {"load_average": round(os.getloadavg()[0], 2), "waited": self.waited} | row
        said = f"{row['key']}: {row['seconds']:.4g} s" if "seconds" in row else row["key"]
        if row.get("flops"):
            row["peak_share"] = row["flops"] / row["seconds"] / row["peak_flops"]
            said += f", {row['flops'] / 1e9:.1f} GFLOP, {100 * row['peak_share']:.0f} % of peak"
        print(said, flush=True)
        if self.rows:
            with self.rows.open("a") as file:
                file.write(json.dumps(row, sort_keys=True) + "\n")
                file.flush()
                os.fsync(file.fileno())
        self.done[row["key"]] = row

    def turns(self, works: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
        """Seconds of each work, turn by turn: `repeats` turns, more of short ones and fewer of long ones.

        The other path's step leaves nothing of ours in the processor's caches, which in a training nobody does: see BRIEF.
        """
        times = {name: [] for name in works}
        start, turn, passed, waited = time.perf_counter(), 0, 0.0, seconds_waited()
        while turn == 0 or (turn < self.repeats and passed < LONG) or (turn < 5 * self.repeats and passed < SHORT):
            with self.autocast():
                for name, work in works.items():
                    brief = bool(times[name]) and times[name][-1] < BRIEF
                    if brief:
                        work()
                    times[name] += [seconds(work, self.device) for _ in range(OFTEN if brief else 1)]
            turn += 1
            passed = time.perf_counter() - start
        self.waited = share_waited(waited, passed)
        return times

    def counted(self, work: Callable[[], object]) -> tuple[dict, object]:
        """Operations, bytes, peak memory and seconds of one call, which also warms everything up; and what it returned."""
        counts, waited = [], seconds_waited()
        with self.autocast(), Memory(self.device) as memory:
            took = seconds(lambda: counts.extend(count(work)), self.device)
        self.waited = share_waited(waited, took)
        flops, moved, found = counts
        meters = {"flops": flops, "bytes": moved, "memory": memory.peak, "counted_in": took}
        return meters | {"waited": self.waited}, found

    def timed(self, works: dict[str, Callable[[], object]], meters: dict[str, dict]) -> dict[str, list[float]]:
        """Seconds of each work in turns; counting costs a long call nothing to speak of, so that is not repeated.

        What the turns waited for a processor goes to the meters of those that took part.
        """
        long = {name: [meters[name]["counted_in"]] for name in works if meters[name]["counted_in"] > LONG}
        short = {name: work for name, work in works.items() if name not in long}
        times = (self.turns(short) if short else {}) | long
        for name in short:
            meters[name]["waited"] = self.waited
        return times

    def look_at_the_machine(self) -> None:
        """Its peak is the best product of the whole run: a few more tries before each measurement."""
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        now = gemm_peaks(self.device, dtype, tries=3)
        self.peaks.update({name: max(flops, now[name]) for name, flops in self.peaks.items()})
        self.environment["peak_flops"] = max(self.peaks.values())
        self.environment["bandwidth"] = max(self.environment["bandwidth"], bandwidth(self.device, tries=2))


def apart(ours: dict, theirs: dict, limit: float, what: str) -> float:
    """Largest difference of two dicts of tensors, relative to each one's largest entry. SystemExit beyond `limit`."""
    if ours.keys() != theirs.keys() or not ours:
        raise SystemExit(f"{what}: the paths give different tensors, {sorted(ours.keys() ^ theirs.keys())}")
    each = [(ours[name] - theirs[name]).abs().max() / theirs[name].abs().max() for name in ours]
    found = float(torch.stack(each).max())  # NaN if one is
    if not found <= limit:
        raise SystemExit(f"{what}: the paths disagree by {found:.1e} of the largest entry, more than {limit:g}")
    return found


def proof(bench: Bench, case: Case, inputs) -> dict[str, float]:
    """How far apart the paths are where a timed step cannot show it: in fp32, and without dropout.

    Its masks are drawn for the shapes of a path, so two paths never drop the same.
    """
    if case.method == "clip_lora":
        case = replace(case, options={**case.options, "dropout": 0.0})
    logits, gradients = {}, {}
    for path in PATHS:
        step = bench.step(case, path, inputs)
        logits[path] = {"logits": step.evaluate()}
        noted(bench, step)
        gradients[path] = step.gradients()
    return {
        "logits": apart(logits[OURS], logits[REFERENCE], LOGITS, f"logits of {case.key}"),
        "gradients": apart(gradients[OURS], gradients[REFERENCE], GRADIENTS, f"gradients of {case.key}"),
    }


def measure(bench: Bench, case: Case, sides=PATHS, phases=("evaluate", "train"), proven: bool = True) -> None:
    """Rows of one case: a training step and an evaluation pass, on both paths or on ours alone.

    The first call of each is counted, and its result is what the paths are compared by; where that cannot be, in a step of
    its own. `proven=False` leaves that one out. Training moves the parameters, so it comes last.
    """
    keys = {(phase, path): f"{phase} {case.key} {path}" for phase in phases for path in sides}
    if bench.has(*keys.values()):
        return
    bench.look_at_the_machine()
    inputs = bench.inputs(case.batch)
    alone = bench.precision != "fp32" or case.method == "clip_lora"
    shown = proof(bench, case, inputs) if alone and proven and len(sides) == 2 else None
    steps = {path: bench.step(case, path, inputs) for path in sides}
    for phase in phases:
        train = phase == "train"
        meters, found = {}, {}
        for path in sides:
            if train:
                noted(bench, steps[path])
            work = steps[path].gradients if train else steps[path].evaluate
            meters[path], found[path] = bench.counted(work)
        if not alone and len(sides) == 2:
            name, limit = ("gradients", GRADIENTS) if train else ("logits", LOGITS)
            found = {path: dict(result) if train else {"logits": result} for path, result in found.items()}
            shown = {name: apart(found[OURS], found[REFERENCE], limit, f"{name} of {case.key}")}
        del found
        times = bench.timed({path: getattr(steps[path], phase) for path in sides}, meters)
        for path in sides:
            row = {"key": keys[phase, path], "kind": "step", "phase": phase, "path": path, **columns(case)}
            bench.store(row | spread(times[path]) | meters[path] | {"proof": shown})


def noted(bench: Bench, step: Step) -> None:
    """Where the reference goes in pieces: note the gradients of the features, and hold the parameters still."""
    if step.path == REFERENCE:
        step.clip.text.given.clear()
    if step.in_pieces():
        step.gradients()
        step.train = step.gradients  # a step of the optimiser would move them; it costs next to nothing


def columns(case: Case) -> dict:
    return {"method": case.method, "classes": case.classes, "batch": case.batch, "shots": case.shots,
            "options": case.options}  # fmt: skip
