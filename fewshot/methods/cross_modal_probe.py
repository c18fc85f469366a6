"""Cross-modal linear probe (Lin et al. 2023): the class prompts are training samples beside the pictures.

logits = 100 x/|x| W^T with one matrix W [C, D] for both modalities, x an image or a text feature; half of each batch is
pictures, half prompts; mean cross-entropy; AdamW. Learning rate, weight decay, batch size and the step to keep are
chosen on validation pictures. Constants: linzhiqiu/cross_modal_adaptation, train.py and engine/optimizer/.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from fewshot.clip import unit
from fewshot.data.catalogue import known_as
from fewshot.errors import FewshotError, unknown
from fewshot.methods.method import Method, cosine_lr
from fewshot.methods.zero_shot import ENSEMBLE

SCALE = math.exp(4.60517)  # 99.99998: the authors' code writes the logarithm with five digits
BETAS, EPS = (0.9, 0.999), 1e-8  # of AdamW
WARMUP, FIRST_LR = 50, 1e-5


@dataclass(frozen=True)
class Config:
    modality: str = "cross"  # "cross": half of each batch is prompts; "uni": pictures only
    init: str = "random"  # "random", or "zeroshot": the mean text feature of each class
    iterations: int = 12800
    every: int = 100  # steps between two looks at the validation accuracy
    lrs: tuple[float, ...] = (1e-3, 1e-4)  # every combination of these three is tried
    weight_decays: tuple[float, ...] = (0.0, 0.01, 1e-4)
    batch_sizes: tuple[int, ...] = (8, 32)
    wise_ft: float = 0.0  # share of the zero-shot classifier in the classifier that is tested; 0.5: the authors' option
    templates: tuple[str, ...] | None = None  # None: the task's own, on ImageNet the seven of zero-shot CLIP


class Runs(NamedTuple):
    """Of each of S settings: W [S, C, D], right answers on validation [S] (-1: none given), step [S]."""

    weight: Tensor
    right: Tensor
    step: Tensor


class CrossModalProbe(Method):
    name, title, paper = "cross_modal_probe", "Cross-modal probe", "lin2023crossmodal"
    selection = "fewval"
    trained = False
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        check(self.config)
        self.templates = self.config.templates or hand_crafted(task.dataset, task.template)
        shape = (len(task.classnames), clip.embed_dim)
        self.register_buffer("weight", torch.zeros(shape, device=clip.device))  # W [C, D]
        self.support: tuple[Tensor, Tensor] | None = None  # unit features [N, D], labels [N]
        self.set_classes(task.classnames)

    def learned(self) -> int:
        return self.weight.numel()

    @torch.no_grad()
    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        names = [name.replace("_", " ") for name in classnames]
        raw = self.clip.encode_text([t.replace("{}", name) for name in names for t in self.templates])
        self.constant("texts", unit(raw))  # [C T, D], class by class: samples that never change
        self.constant("text_labels", torch.arange(len(names)).repeat_interleave(len(self.templates)))
        self.constant("zero_shot", unit(raw.view(len(names), len(self.templates), -1).mean(dim=1)))  # of raw features

    def retarget(self, classnames: Sequence[str]) -> Method:
        return self.refuse_retarget(classnames, "it learns one weight vector per class")

    def prepare(self, support) -> None:
        """Train the first setting to its end; `choose` replaces it."""
        from fewshot.data.features import image_features
        from fewshot.data.views import View

        both = [image_features(self.clip, support, View(kind), progress=False) for kind in ("eval", "mirror")]
        self.take(torch.cat(both), torch.as_tensor(support.labels).repeat(2))
        first = (self.config.lrs[0], self.config.weight_decays[0])
        self.weight = self.run([first], self.batch_sizes()[0]).weight[0]

    def take(self, features: Tensor, labels: Tensor) -> None:
        """Use these pictures: raw features [N, D], labels [N]."""
        self.support = unit(features).to(self.clip.device), labels.to(self.clip.device)

    def choose(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        """Train every setting; keep the one, and its step, that is best on these features."""
        if self.support is None:
            raise FewshotError(f"the {self.title} has no support features to train on again; select right after fit.")
        c, sizes = self.config, self.batch_sizes()
        settings = list(product(c.lrs, c.weight_decays))
        validation = unit(features.to(self.clip.device)), labels.to(self.clip.device)
        runs = [self.run(settings, size, validation) for size in sizes]
        right = torch.stack([run.right for run in runs], dim=1)  # in the order lr, weight decay, batch size
        setting, size = divmod(int(right.flatten().cpu().argmax()), len(sizes))  # the first of equals
        self.weight = runs[size].weight[setting].clone()
        lr, weight_decay = settings[setting]
        step = int(runs[size].step[setting])
        return self.adopt({"lr": lr, "weight_decay": weight_decay, "batch_size": sizes[size], "iteration": step})

    def halves(self, batch_size: int) -> tuple[int, int]:
        """Pictures and prompts in a batch."""
        prompts = batch_size // 2 if self.config.modality == "cross" else 0
        return batch_size - prompts, prompts

    def batch_sizes(self) -> list[int]:
        """Those whose halves are smaller than their sets; when there is none, the smallest of all."""
        known = self.config.batch_sizes
        pictures, prompts = len(self.support[0]), len(self.texts)
        fitting = [b for b in known if self.halves(b)[0] < pictures and self.halves(b)[1] < prompts]
        return fitting or [min(known)]

    def batches(self, batch_size: int) -> Tensor:
        """Rows [iterations, B] of the table of pictures, then prompts; each half is dealt by itself."""
        pictures, prompts = self.halves(batch_size)
        steps, n = self.config.iterations, len(self.support[0])
        rows = deal(n, pictures, steps, self.rng(f"pictures {batch_size}"))
        if prompts:
            more = deal(len(self.texts), prompts, steps, self.rng(f"prompts {batch_size}"))
            rows = torch.cat([rows, n + more], dim=1)
        return rows.to(self.clip.device)

    def start(self) -> Tensor:
        """The first W [C, D], the same for every setting."""
        if self.config.init == "zeroshot":
            return self.zero_shot
        bound = self.clip.embed_dim**-0.5  # nn.Linear's
        draw = torch.rand(self.weight.shape, generator=self.rng("head"))
        return (bound * (2 * draw - 1)).to(self.clip.device)

    @torch.no_grad()
    def run(self, settings: Sequence[tuple[float, float]], batch_size: int, validation=None) -> Runs:
        """All S settings (lr, weight decay) of one batch size, trained together as a stack W [S, C, D].

        With validation (unit features [V, D], labels [V]) each is kept where it is best, else where it ends.
        """
        c = self.config
        table = torch.cat([self.support[0], self.texts])
        targets = F.one_hot(torch.cat([self.support[1], self.text_labels]), len(self.classnames)).to(table.dtype)
        stack = Stack(self.start(), settings, c.iterations)
        nothing = torch.full((len(settings),), -1, device=table.device)
        best = Runs(stack.weight.clone(), nothing, nothing.clone())
        bar = tqdm(self.batches(batch_size), desc=f"{self.title}, batch {batch_size}", leave=False, disable=None)
        for i, rows in enumerate(bar):
            stack.step(gradient(stack.weight, table[rows], targets[rows]))
            if validation is not None and i % c.every == 0:
                right = count_right(stack.weight, *validation)
                better = right > best.right  # the first of equals stays
                best.weight[better], best.right[better], best.step[better] = stack.weight[better], right[better], i
        return best if validation is not None else Runs(stack.weight, nothing, torch.full_like(nothing, i))

    def logits(self, x: Tensor) -> Tensor:
        share = self.config.wise_ft
        return SCALE * unit(x) @ ((1 - share) * self.weight + share * self.zero_shot).t()


class Stack:
    """torch's AdamW on S copies of W [C, D], with a peak learning rate and a weight decay for each.

    AdamW treats every number by itself, so a layer of the stack goes exactly the way of a run of its own.
    """

    def __init__(self, start: Tensor, settings: Sequence[tuple[float, float]], iterations: int) -> None:
        self.weight = start.repeat(len(settings), 1, 1)
        self.mean, self.square = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        peaks, decays = torch.tensor(settings, dtype=torch.float64).t()
        lr = [[schedule(peak, i, iterations) for peak in peaks.tolist()] for i in range(iterations)]
        lr, count = torch.tensor(lr, dtype=torch.float64), torch.arange(1, iterations + 1, dtype=torch.float64)[:, None]
        tables = (1 - lr * decays, lr / (1 - BETAS[0] ** count), (1 - BETAS[1] ** count).sqrt())
        self.tables = [t[..., None, None].to(start) for t in tables]  # shrink, rate: [T, S, 1, 1]; root: [T, 1, 1, 1]
        self.i = 0

    def step(self, gradient: Tensor) -> None:
        shrink, rate, root = (table[self.i] for table in self.tables)
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        self.weight.mul_(shrink).sub_(self.mean.div(self.square.sqrt().div_(root).add_(EPS)).mul_(rate))
        self.i += 1


def gradient(weight: Tensor, x: Tensor, targets: Tensor) -> Tensor:
    """Of the mean cross-entropy by W [S, C, D], at unit x [B, D] with one-hot targets [B, C].

    With P [B, S, C] the probabilities: SCALE / B (P - targets)^T x. For all S at once these are two matrix products.
    """
    s, c, d = weight.shape
    scores = SCALE * x @ weight.view(s * c, d).t()
    off = scores.view(-1, s, c).softmax(dim=-1).sub_(targets[:, None])
    return (off.view(-1, s * c).t() @ (SCALE / len(x) * x)).view(s, c, d)


def count_right(weight: Tensor, x: Tensor, labels: Tensor) -> Tensor:
    """Right answers [S] of W [S, C, D] at x [V, D], labels [V]."""
    s, c, d = weight.shape
    return ((x @ weight.view(s * c, d).t()).view(-1, s, c).argmax(dim=-1) == labels[:, None]).sum(dim=0)


def schedule(peak: float, step: int, steps: int) -> float:
    """10^-5 at step 0, a straight line up to `peak` at step 50, then a cosine that is 50 steps late at the end."""
    if step == 0:
        return FIRST_LR
    return peak * step / WARMUP if step < WARMUP else cosine_lr(peak, step - WARMUP, steps)


def deal(n: int, size: int, steps: int, rng: torch.Generator) -> Tensor:
    """Rows [steps, size] of n samples: shuffled, dealt, the incomplete rest dropped, and again.

    A batch larger than the set is the whole set.
    """
    size = min(size, n)
    rounds = -(-steps // (n // size))
    dealt = [torch.randperm(n, generator=rng)[: n // size * size].view(-1, size) for _ in range(rounds)]
    return torch.cat(dealt)[:steps]


def hand_crafted(dataset: str, template: str) -> tuple[str, ...]:
    """The data set's own template, and on ImageNet the seven of zero-shot CLIP."""
    return ENSEMBLE if known_as(dataset) == "imagenet" else (template,)


def check(c: Config) -> None:
    name = CrossModalProbe.name
    for option, known in (("modality", ("cross", "uni")), ("init", ("random", "zeroshot"))):
        if getattr(c, option) not in known:
            raise unknown(f"{option} of {name}", getattr(c, option), known)
    if not (c.lrs and c.weight_decays and c.batch_sizes) or min(c.lrs) <= 0 or min(c.weight_decays) < 0:
        raise FewshotError(f"{name} needs one or more lrs above 0, weight_decays from 0 on, and batch_sizes.")
    if min(c.iterations or 0, c.every, *(size - 1 for size in c.batch_sizes)) < 1:
        raise FewshotError(f"{name} needs one iteration or more, every from 1 on, and batch_sizes from 2 on.")
    if not 0 <= c.wise_ft <= 1:
        raise FewshotError(f"wise_ft of {name} is a share between 0 and 1, not {c.wise_ft}.")
