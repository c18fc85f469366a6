"""LP++ (Huang et al. 2024): a linear probe on unit features whose class weights are w_k + alpha_k t_k.

logits = F W^T + b + alpha * (F T^T), F [N, D] unit image features, W [C, D], T [C, D] the zero-shot classifier, alpha
[C] one weight per class; no temperature. Mean cross-entropy L, full batch. With P the softmax minus the one-hot labels,
    dL/dW = P^T F / N,    dL/db = sum_i P_i / N,    dL/dalpha_k = sum_i P_ik (F T^T)_ik / N = <(dL/dW)_k, t_k>.
So F T^T is never formed: the logits are F (W + alpha T)^T + b, and a step is two products of size N C D instead of three.
Both step sizes and the initial W and alpha are computed from the support set, so nothing is tuned. All constants:
FereshteShakeri/FewShot-CLIP-Strong-Baseline, methods/linear_probe_p2.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.clip import unit
from fewshot.errors import FewshotError, unknown
from fewshot.methods.cross_modal_probe import hand_crafted
from fewshot.methods.method import Method

MOMENTUM = 0.9  # on W and b only
ALPHA_EVERY = 10  # epochs from one step of alpha to the next
ALPHA_START = 250.0  # times the mean cosine between a picture and its own class
ROWS = 2048  # pictures in a part of a pass: its scores are used before they leave the processor's caches


@dataclass(frozen=True)
class Config:
    epochs: int = 300  # one full-batch step each
    bias: str = "random"  # "random": U(-1/sqrt(D), 1/sqrt(D)) as released; "zero"; it is learned either way
    accumulate_alpha: bool = (
        True  # released: alpha steps along the sum of all its gradients so far; False: the last one
    )
    scale: tuple[float, float] = (0.5, 1.0)  # share of the area that the random crop of the one training view takes


class LPPlusPlus(Method):
    name, title, paper = "lpplusplus", "LP++", "huang2024lpplusplus"
    selection = "fewval"
    trained = False
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        if self.config.bias not in ("random", "zero"):
            raise unknown(f"bias of {self.name}", self.config.bias, ("random", "zero"))
        if (self.config.epochs or 0) < 1:
            raise FewshotError(f"{self.name} needs one epoch or more, not {self.config.epochs}.")
        count, width = len(task.classnames), clip.embed_dim
        for name, shape in (("weight", (count, width)), ("bias", (count,)), ("alpha", (count,))):
            self.register_buffer(name, torch.zeros(shape, device=clip.device))
        self.support: tuple[Tensor, Tensor] | None = None  # unit features [N, D], labels [N]
        self.set_classes(task.classnames)

    def learned(self) -> int:
        return self.weight.numel() + self.bias.numel() + self.alpha.numel()

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        templates = hand_crafted(self.dataset, self.template)
        self.constant("text", self.clip.zero_shot_weights(classnames, templates))  # [C, D]

    def retarget(self, classnames: Sequence[str]) -> Method:
        return self.refuse_retarget(classnames, "it learns one weight vector per class")

    def prepare(self, support) -> None:
        from fewshot.data.features import image_features
        from fewshot.data.views import View

        view = View("train", 0, self.seed, self.config.scale)  # encoded once: no new view per epoch
        self.take(image_features(self.clip, support, view, progress=False), torch.as_tensor(support.labels))
        self.history = torch.stack(list(self.descend())).tolist()

    def take(self, features: Tensor, labels: Tensor) -> None:
        """Use these pictures: raw features [N, D], labels [N]."""
        self.support = unit(features).to(self.clip.device), labels.to(self.clip.device)

    def choose(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        """Train again and stop at the last of the epochs that are best on these features."""
        if self.support is None:
            raise FewshotError(f"{self.title} has no support features to train on again; select right after fit.")
        f, labels, best = unit(features.to(self.clip.device)), labels.to(self.clip.device), -1
        for epoch, _ in enumerate(self.descend(), start=1):
            right = int((self.scores(f).argmax(dim=-1) == labels).sum())
            if right >= best:
                best, kept = right, (epoch, self.weight.clone(), self.bias.clone(), self.alpha.clone())
        epoch, self.weight, self.bias, self.alpha = kept
        return self.adopt({"epoch": epoch})

    def start(self) -> tuple[float, float]:
        """Set W, b and alpha to where they start; returns the step sizes of (W, b) and of alpha."""
        f, labels = self.support
        votes = F.one_hot(labels, len(self.classnames)).to(f.dtype)  # [N, C]
        text, count = f @ self.text.t(), votes.sum(dim=0)
        self.weight = votes.t() @ f  # the sum over a class, not the mean
        self.bias = torch.zeros_like(self.bias)
        if self.config.bias == "random":  # as nn.Linear draws it
            draw = torch.rand(len(count), generator=self.rng("bias"))
            self.bias = (self.clip.embed_dim**-0.5 * (2 * draw - 1)).to(f)
        cosine = ((votes * text).sum(dim=0) / count)[count > 0].mean()  # of class means, so that large classes weigh 1
        self.alpha = torch.full_like(self.alpha, float(ALPHA_START * cosine))
        lr_w = 4 * len(f) / float(torch.linalg.eigvalsh((f.t() @ f).cpu().double())[-1])
        return lr_w, len(f) / (4 * float(text.square().sum(dim=0).max()))

    @torch.no_grad()
    def descend(self) -> Iterator[Tensor]:
        """All epochs from the start; yields the loss before each step, W, b and alpha being those after it."""
        f, labels = self.support
        lr_w, lr_alpha = self.start()
        speed_w, speed_b, slope = (torch.zeros_like(t) for t in (self.weight, self.bias, self.alpha))
        for epoch in range(1, self.config.epochs + 1):
            loss, (grad_w, grad_b, grad_alpha) = self.gradient(f, labels)
            speed_w, speed_b = MOMENTUM * speed_w + grad_w, MOMENTUM * speed_b + grad_b
            self.weight, self.bias = self.weight - lr_w * speed_w, self.bias - lr_w * speed_b
            slope = slope + grad_alpha if self.config.accumulate_alpha else grad_alpha
            if epoch % ALPHA_EVERY == 0:
                self.alpha = self.alpha - lr_alpha * slope
            yield loss

    def gradient(self, f: Tensor, labels: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Loss of unit features f [N, D], and its gradients at W, b and alpha."""
        loss, grad_w, grad_b = f.new_zeros(()), torch.zeros_like(self.weight), torch.zeros_like(self.bias)
        for x, y in zip(f.split(ROWS), labels.split(ROWS), strict=True):
            log_p = self.scores(x).log_softmax(dim=-1)
            loss += F.nll_loss(log_p, y, reduction="sum") / len(f)
            off = log_p.exp_()
            off[torch.arange(len(y), device=y.device), y] -= 1
            grad_w += off.t() @ x / len(f)
            grad_b += off.sum(dim=0) / len(f)
        return loss, (grad_w, grad_b, (grad_w * self.text).sum(dim=1))

    def scores(self, f: Tensor) -> Tensor:
        joint = self.weight + self.alpha[:, None] * self.text  # one linear classifier
        return torch.addmm(self.bias, f, joint.t())

    def logits(self, x: Tensor) -> Tensor:
        return self.scores(unit(x))
