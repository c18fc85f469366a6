"""CLIP-Adapter (Gao et al. 2024): a small network on the image feature, mixed with the feature that went in.

a = relu(W2 relu(W1 f)), g = r a + (1 - r) f, logits[i, c] = exp(logit_scale) <g_i/|g_i|, t_c/|t_c|>; mean cross-entropy.
Only W1 and W2 train. Without biases a(s f) = s a(f) for s > 0, so the length of f has no effect.
The form, r and the reduction: gaopengcuhk/CLIP-Adapter, clip_adapter.py. That repository gives no training settings but
"follow CoOp"; those of CoOp's RN50 configurations (KaiyangZhou/CoOp) are taken here, which is a choice.
Variant "lp++": f of unit length, g left as it is, t_c the mean over templates; FereshteShakeri/FewShot-CLIP-Strong-Baseline,
methods/clip_adapter.py, a baseline in the comparison of LP++ (Huang et al. 2024). Of that file only the form is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.clip import unit
from fewshot.data.catalogue import known_as
from fewshot.data.dataset import check_template
from fewshot.errors import FewshotError, unknown
from fewshot.methods.coop import few_shot_epochs
from fewshot.methods.method import Method, Training, coop_lr
from fewshot.methods.zero_shot import ENSEMBLE

RATIO = {"official": 0.2, "lp++": 0.5}  # by variant


@dataclass(frozen=True)
class Config(Training):
    variant: str = "official"  # "official", or "lp++": the form in the repository of LP++
    ratio: float | None = None  # weight of the adapter; None: 0.2, and 0.5 in the variant
    reduction: int = 4  # feature width over hidden width
    # None: the task's one; in the variant OpenAI's seven on ImageNet
    templates: tuple[str, ...] | None = None


class CLIPAdapter(Method):
    name, title, paper = "clip_adapter", "CLIP-Adapter", "gao2024clipadapter"
    drop_last = True
    head = True
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        c, width = self.config, clip.embed_dim
        if c.variant not in RATIO:
            raise unknown("variant of clip_adapter", c.variant, RATIO)
        self.ratio = RATIO[c.variant] if c.ratio is None else c.ratio
        if not 0 < self.ratio <= 1:
            raise FewshotError(f"ratio of {self.name} must be above 0 and at most 1, not {self.ratio}.")
        if not 1 <= c.reduction <= width:
            raise FewshotError(f"reduction of {self.name} must be from 1 to {width}, the width of a feature.")
        self.templates = self._templates()
        for template in self.templates:
            check_template(template)
        hidden, generator = width // c.reduction, self.rng("adapter")

        def linear(wide: int, narrow: int) -> nn.Parameter:  # [out, in], as torch.nn.Linear starts
            start = (2 * torch.rand(wide, narrow, generator=generator) - 1) / narrow**0.5
            return nn.Parameter(start.to(clip.device))

        self.down = linear(hidden, width)
        self.up = linear(width, hidden)
        self.set_classes(task.classnames)

    def _templates(self) -> Sequence[str]:
        c = self.config
        if c.templates is not None:
            return (c.templates,) if isinstance(c.templates, str) else c.templates
        imagenet = known_as(self.dataset) == "imagenet"
        return ENSEMBLE if imagenet and c.variant == "lp++" else (self.template,)

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self.constant("weights", self.clip.zero_shot_weights(classnames, self.templates))  # [C, D]

    def adapt(self, f: Tensor) -> Tensor:
        """What the network makes of features [B, D]; nothing negative, there is a ReLU behind both layers."""
        return F.relu(F.linear(F.relu(F.linear(f, self.down)), self.up))

    def logits(self, x: Tensor) -> Tensor:
        official = self.config.variant == "official"
        f = x if official else unit(x)
        g = self.ratio * self.adapt(f) + (1 - self.ratio) * f
        return self.clip.logit_scale * (unit(g) if official else g) @ self.weights.t()

    def epochs(self) -> int:
        """50 for one shot, 100 for two and four, 200 above; 50 on ImageNet."""
        return few_shot_epochs(self.shots, self.dataset)

    def lr(self, step: int, steps: int, per_epoch: int) -> float:
        return coop_lr(self.config.lr, step // per_epoch, -(-steps // per_epoch))
