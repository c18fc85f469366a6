"""Full fine-tuning, with the interpolation of WiSE-FT (Wortsman et al. 2022): the whole image encoder is trained.

logits = W f/|f| + b with f of the trained encoder; at the start W = exp(logit_scale) t_c, the zero-shot classifier, and
b = 0. Mean cross-entropy on all weights theta, gradients cut to norm 1. Tested with (1 - mix) theta_0 + mix theta_1, where
theta_0 is the start and theta_1 the end of the training; mix = 1 is fine-tuning as it is.

Constants: mlfoundations/wise-ft, src/args.py, src/models/finetune.py, modeling.py and zeroshot.py, clip/clip.py (crops), and
the README's command for ImageNet (lr, batch, epochs). None of it was made for few pictures, so two rules are chosen here:
at least `per_shot` steps per shot, and a warm-up of at most a tenth of the steps. The authors train in train mode, which
for a ResNet moves the statistics of batch norm; here they stay, as in all methods of this package. Our views also flip.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.clip import VisionTower, autocast, unit
from fewshot.errors import FewshotError
from fewshot.methods.method import LATER, Method, Training, cosine_lr

MOST = 16  # shots up to which `per_shot` counts


@dataclass(frozen=True)
class Config(Training):
    lr: float = 3e-5
    weight_decay: float = 0.1
    batch_size: int = 512
    scale: tuple[float, float] = (0.9, 1.0)
    warmup: int = 500  # steps of a linear rise, or a tenth of all steps where that is less
    max_norm: float = 1.0  # of the gradient of all weights together
    per_shot: int = 30  # steps per shot (of at most 16) where ten epochs are fewer: chosen here
    mix: float = 1.0  # share of the trained weights in those that are tested
    chunk: int = 64  # pictures per backward pass; the gradient of a batch is the sum over its chunks
    precision: str = field(default="fp32", metadata=LATER)  # of the encoder's products; "bf16" is for GPUs


class FineTune(Method):
    name, title, paper = "fine_tune", "Full fine-tuning", "wortsman2022wise"
    needs = "images"
    saves_encoder = True
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        c = self.config
        if not 0 <= c.mix <= 1:
            raise FewshotError(f"mix of {self.name} must be between 0 and 1, not {c.mix}.")
        if isinstance(c.chunk, bool) or not isinstance(c.chunk, int) or c.chunk < 1:
            raise FewshotError(f"chunk of {self.name} must be a whole number from 1 on, not {c.chunk!r}.")
        if getattr(clip.model.visual, "output_tokens", False):
            raise FewshotError(
                f"{self.title} needs an image encoder that gives one vector, and that of {clip.name} gives more; use a CLIP "
                "such as 'ViT-B-16-quickgelu'."
            )
        self.encoder = copy.deepcopy(clip.model.visual).requires_grad_(True)
        self.set_classes(task.classnames)
        self.weight = nn.Parameter(self.start.clone())  # [C, D]
        self.bias = nn.Parameter(torch.zeros_like(self.start[:, 0]))  # [C]

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self.constant("start", self.clip.logit_scale * self.clip.zero_shot_weights(classnames, self.template))  # [C, D]

    def retarget(self, classnames: Sequence[str]) -> Method:
        return self.refuse_retarget(classnames, "its head has learned a row for each")

    def train(self, mode: bool = True) -> Method:
        super().train(mode)
        self.encoder.eval()  # batch norm keeps CLIP's statistics
        return self

    def logits(self, x: Tensor) -> Tensor:
        encoder, weight, bias = self.encoder, self.weight, self.bias
        if not self.training and self.config.mix < 1:
            encoder, weight, bias = self.kept("mixed", self.mixed)
        return F.linear(unit(encode(encoder, x, self.config.precision)), weight, bias)

    @torch.no_grad()
    def mixed(self) -> tuple[nn.Module, Tensor, Tensor]:
        """Encoder, weight and bias of the head with the weights (1 - mix) theta_0 + mix theta_1; new tensors."""
        share = self.config.mix
        encoder = copy.deepcopy(self.encoder)
        for trained, before in zip(encoder.parameters(), self.clip.model.visual.parameters(), strict=True):
            trained.lerp_(before, 1 - share)
        return encoder, torch.lerp(self.start, self.weight, share), share * self.bias

    def backward(self, x: Tensor, labels: Tensor) -> Tensor:
        losses = []
        for part, own in zip(x.split(self.config.chunk), labels.split(self.config.chunk), strict=True):
            loss = F.cross_entropy(self.logits(part), own, reduction="sum") / len(labels)
            loss.backward()
            losses.append(loss.detach())
        nn.utils.clip_grad_norm_(self.parameters(), self.config.max_norm)
        return torch.stack(losses).sum()

    def epochs(self) -> int:
        """10, as on ImageNet."""
        return 10

    def iterations(self, per_epoch: int) -> int:
        c = self.config
        steps = super().iterations(per_epoch)
        return steps if c.iterations or c.epochs else max(steps, c.per_shot * min(self.shots or MOST, MOST))

    def optimizer(self) -> torch.optim.Optimizer:
        c = self.config
        return torch.optim.AdamW(self.parameters(), lr=c.lr, weight_decay=c.weight_decay)

    def lr(self, step: int, steps: int, per_epoch: int) -> float:
        c = self.config
        rise = min(c.warmup, steps // 10)
        return c.lr * (step + 1) / rise if step < rise else cosine_lr(c.lr, step - rise, steps - rise)


def encode(visual: nn.Module, x: Tensor, precision: str = "fp32") -> Tensor:
    """Features [B, D] of pixels [B, 3, S, S] under an image encoder of open_clip, a ViT along its fast path."""
    if VisionTower.fits(visual):
        return VisionTower(visual).cast(precision).encode(x)
    with autocast(x.device, precision):
        return visual(x).to(x.dtype)
