"""A training step and an evaluation pass of each method at the sizes of ViT-B/16, on this package's path and the authors'.

Weights are random and pictures noise: time does not depend on the values. Class names are ImageNet's, taken evenly. Both
paths start from the same tensors and see the same batch; only what the authors' programs do at every step differs:

- methods on image features: their programs encode the batch of pictures, here a row of cached features is read;
- ProGrad's encodes it a second time for the teacher; CLIP-Adapter's runs the frozen text encoder as well;
- LP++'s encodes each picture once, as here; its step differentiates by autograd and multiplies F T^T at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.clip import Clip
from fewshot.methods import get_method
from fewshot.methods.method import Names, make_config

REFERENCE, OURS = "reference", "ours"
PATHS = (REFERENCE, OURS)
TEMPLATE = "a photo of a {}."
BACKBONE = "ViT-B-16-quickgelu"
BATCH = {"coop": 8, "kgcoop": 8, "prograd": 8, "cocoop": 1, "plotpp": 4, "maple": 4, "clip_lora": 8,
         "tip_adapter_f": 8, "taskres": 8, "clip_adapter": 8, "lpplusplus": 8}  # fmt: skip
SMALL = dict(
    embed_dim=32, quick_gelu=True, vision_cfg=dict(image_size=32, patch_size=8, width=64, head_width=32, layers=3),
    text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=3),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What is measured on both paths."""

    method: str
    classes: int
    batch: int
    shots: int = 16
    options: dict = field(default_factory=dict, hash=False)  # fields of the method's Config

    @property
    def key(self) -> str:
        extra = "".join(f" {k}={v}" for k, v in sorted(self.options.items()))
        return f"{self.method} classes={self.classes} batch={self.batch} shots={self.shots}{extra}"


def random_clip(device: torch.device, config: dict | None = None) -> Clip:
    """ViT-B/16, or another model of open_clip's arguments, with random weights, the same ones every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.model.CLIP(**(config or open_clip.get_model_config(BACKBONE)))
        for p in model.parameters():
            if p.dim() == 1:  # norms and biases that matter
                p.data += 0.02 * torch.randn_like(p)
    return Clip(model, "random weights", device=device)


def class_names(count: int) -> tuple[str, ...]:
    """`count` of ImageNet's 1000 class names, evenly spaced."""
    names = open_clip.IMAGENET_CLASSNAMES
    return tuple(names[i * len(names) // count] for i in range(count))


class Step:
    """One method on one path, ready to run. `names` are the classes, by default those of the case."""

    def __init__(self, clip: Clip, case: Case, path: str, pixels: Tensor, cached: Tensor, names: Sequence[str] = ()):
        cls = get_method(case.method)
        names = tuple(names) or class_names(case.classes)
        self.case, self.path, self.clip = case, path, clip
        task = Names("speed", names, TEMPLATE, case.shots, seed=1)
        self.model = cls(clip, task, make_config(cls, {**case.options}))
        self.pixels, self.cached = pixels, cached  # [B, 3, S, S], [B, D]
        self.labels = (torch.arange(case.batch) * 7 % len(names)).to(clip.device)
        self._support(len(names))
        self.model.begin(self.model.stages()[-1] if self.model.trained else "")
        gen = torch.Generator().manual_seed(3)
        for p in self.model.parameters():  # nothing stays at zero
            p.data += 0.02 * torch.randn(p.shape, generator=gen).to(p)
        if case.method == "lpplusplus":
            self._start_lpplusplus()
        else:
            self.optimizer = self.model.optimizer()

    def _support(self, classes: int) -> None:
        """Random features of `shots` pictures per class, for heads that keep them."""
        gen = torch.Generator().manual_seed(2)
        if self.case.method not in ("tip_adapter_f", "lpplusplus"):
            return
        features = torch.randn(classes * self.case.shots, self.clip.embed_dim, generator=gen).to(self.clip.device)
        labels = torch.arange(classes).repeat_interleave(self.case.shots)
        if self.case.method == "tip_adapter_f":
            self.model.fill([features], labels)
        else:
            self.model.take(features, labels)

    def in_pieces(self) -> bool:
        """Whether the text pass of a training step is too large for the reference to run at once."""
        if self.path == OURS:
            return False
        copies = {"plotpp": 4, "cocoop": self.case.batch}.get(self.case.method, 1)
        prompts = copies * len(self.model.classnames)
        return "text_features" in dir(self.model) and prompts > self.clip.text.piece

    def input(self) -> Tensor:
        """What the method's logits take, [B, 3, S, S] or [B, D]; the authors encode the pictures anew at every step."""
        if self.model.needs == "images":
            return self.pixels
        if self.path == OURS:
            return self.cached[torch.arange(self.case.batch, device=self.cached.device)]
        with torch.no_grad():
            for _ in range(2 if self.case.method == "prograd" and self.model.training else 1):
                x = self.clip.encode_image(self.pixels)
            if self.case.method == "clip_adapter":
                self.model.weights = self.clip.zero_shot_weights(self.model.classnames, TEMPLATE)
        return x

    def gradients(self) -> dict[str, Tensor]:
        """Gradients of one batch, by parameter; the optimiser takes no step."""
        if self.case.method == "lpplusplus":
            return self._gradients_lpplusplus()
        if self.path == REFERENCE:
            self.clip.text.count = 0
        self.model.train().zero_grad(set_to_none=True)
        self.model.backward(self.input(), self.labels)
        return {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}

    def train(self) -> None:
        """A whole training step."""
        if self.case.method == "lpplusplus":
            self._step_lpplusplus()
            return
        self.gradients()
        self.optimizer.step()

    @torch.no_grad()
    def evaluate(self) -> Tensor:
        """Logits [B, C] of a batch of test pictures; no text feature or merged weight is kept from before."""
        self.model.train().eval()  # forgets what was kept
        return self.model.logits(self.input())

    # LP++ makes full-batch steps without autograd here, with it in the authors' program

    def _start_lpplusplus(self) -> None:
        rates = self.model.start()
        self.epochs = iter(())
        if self.path == REFERENCE:
            self.parts = [t.clone().requires_grad_() for t in (self.model.weight, self.model.bias, self.model.alpha)]
            self.optimizer = torch.optim.SGD(self.parts[:2], lr=rates[0], momentum=0.9)

    def _loss_lpplusplus(self) -> Tensor:
        f, labels = self.model.support
        weight, bias, alpha = self.parts
        return F.cross_entropy(f @ weight.t() + bias + alpha * (f @ self.model.text.t()), labels)

    def _gradients_lpplusplus(self) -> dict[str, Tensor]:
        f, labels = self.model.support
        if self.path == OURS:
            grads = self.model.gradient(f, labels)[1]
        else:
            grads = torch.autograd.grad(self._loss_lpplusplus(), self.parts)
        return dict(zip(("weight", "bias", "alpha"), grads, strict=True))

    def _step_lpplusplus(self) -> None:
        if self.path == OURS:
            if next(self.epochs, None) is None:  # the first step, outside the clock, or the last of the epochs
                self.epochs = self.model.descend()
                next(self.epochs)
            return
        self.optimizer.zero_grad()
        self._loss_lpplusplus().backward()
        self.optimizer.step()
