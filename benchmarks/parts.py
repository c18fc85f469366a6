"""The other parts of benchmarks/speed.py: the towers by themselves, where the gain comes from, and how a step grows."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from bench import Bench, columns, measure
from meters import spread
from reference import PlainText, Unshared
from steps import BATCH, OURS, PATHS, REFERENCE, Case
from torch import Tensor

from fewshot.clip import TextTower

TOWERS = ("text", "vit", "encode")
CLASSES = (10, 316)  # beside those of the table
BATCHES = {"coop": (1, 32), "clip_lora": (1, 2, 4, 16), "maple": (1, 2, 8), "plotpp": (1, 2), "cocoop": (2, 4)}
SHOTS = {"tip_adapter_f": (1, 2, 4, 8), "lpplusplus": (1, 2, 4, 8)}


def towers(bench: Bench, quick: bool) -> None:
    """Forward and backward of the text tower on CoOp's prompts and of the ViT with a prompt that learns, 8 pictures.

    "encode": the ViT's forward pass alone.
    """
    case = Case("coop", 5 if quick else 100, 8)
    keys = {(tower, path): f"tower {tower} {path}" for tower in TOWERS for path in PATHS}
    if bench.has(*keys.values()):
        return
    inputs = bench.inputs(case.batch)
    for tower in TOWERS:
        works = {path: _tower(bench, case, path, tower, inputs) for path in PATHS}
        meters = {path: bench.counted(work)[0] for path, work in works.items()}
        times = bench.timed(works, meters)
        for path in PATHS:
            row = {"key": keys[tower, path], "kind": "tower", "tower": tower, "path": path, **columns(case)}
            bench.store(row | spread(times[path]) | meters[path])


def _tower(bench: Bench, case: Case, path: str, tower: str, inputs) -> Callable[[], None]:
    clip = bench.clips[path]
    if tower == "text":
        step = bench.step(case, path, inputs)
        return lambda: _back(step.model.text_features())
    if tower == "encode":
        return torch.no_grad()(lambda: clip.encode_image(inputs[0]))
    prompt = torch.zeros(2, clip.vision.width, device=clip.device, requires_grad=True)
    return lambda: _back(clip.vision.encode(inputs[0], prompts=prompt))


def _back(features: Tensor) -> None:
    features.backward(torch.ones_like(features))


def ablation(bench: Bench, quick: bool) -> None:
    """A step of CoOp, one saving added after the other, from the authors' to this package's."""
    case = Case("coop", 5 if quick else 100, 8)
    text = bench.clips[OURS].text.module
    unshared, padded = Unshared(text), TextTower(text)
    unshared.packs = padded.packs = False
    stages = {
        "the authors' step": (bench.clips[REFERENCE], REFERENCE),
        "image features from the cache": (bench.clips[REFERENCE], OURS),
        "cut behind the longest prompt": (_with(bench, PlainText(text, 10**9, cut=True)), OURS),
        "last block for one row, fused activation": (_with(bench, unshared), OURS),
        "prefix shared by the classes": (_with(bench, padded), OURS),
        "prompts end to end, without padding": (bench.clips[OURS], OURS),
    }
    keys = {name: f"ablation {i} {case.key}" for i, name in enumerate(stages)}
    if bench.has(*keys.values()):
        return
    inputs, works, meters = bench.inputs(case.batch), {}, {}
    for name, (clip, path) in stages.items():
        step = bench.step(case, path, inputs, clip)
        meters[name], _ = bench.counted(step.train)
        works[name] = step.train
    times = bench.timed(works, meters)
    for i, name in enumerate(stages):
        row = {"key": keys[name], "kind": "ablation", "stage": i, "saving": name, "path": OURS, **columns(case)}
        bench.store(row | spread(times[name]) | meters[name])


def _with(bench: Bench, text):
    clip = copy.copy(bench.clips[OURS])
    clip.text = text
    return clip


def scaling(bench: Bench, quick: bool) -> None:
    """A training step on our path with other numbers of classes, pictures in a batch, and shots."""
    if quick:
        return
    cases = [Case(method, n, BATCH[method]) for method in ("coop", "cocoop", "maple", "clip_lora") for n in CLASSES]
    cases += [Case(method, n, BATCH[method]) for method in SHOTS for n in CLASSES]
    cases += [Case(method, 37 if method == "plotpp" else 100, n) for method, sizes in BATCHES.items() for n in sizes]
    cases += [Case(method, 100, BATCH[method], shots) for method, counts in SHOTS.items() for shots in counts]
    for case in cases:
        measure(bench, case, (OURS,), ("train",))
