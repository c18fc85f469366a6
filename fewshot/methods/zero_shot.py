"""Zero-shot CLIP (Radford et al. 2021): logits = 100 f/|f| W^T, row k of W the unit text feature of class k.

With several templates each prompt's feature is normalised, then averaged, then normalised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fewshot.clip import unit
from fewshot.errors import unknown
from fewshot.methods.method import Method

PHOTO = "a photo of a {}."
# OpenAI's forward selection from 80 templates (openai/CLIP, notebook on prompt engineering for ImageNet).
ENSEMBLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


@dataclass(frozen=True)
class Config:
    templates: str = "task"  # "task": the task's own; "photo": a photo of a {}.; "ensemble": the seven above
    logit_scale: float = 100.0  # a constant in CLIP-LoRA's and Tip-Adapter's code, whatever the model's own is


class ZeroShot(Method):
    name, title, paper = "zero_shot", "Zero-shot CLIP", "radford2021clip"
    trained = sees_support = False
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        known = {"task": (task.template,), "photo": (PHOTO,), "ensemble": ENSEMBLE}
        if self.config.templates not in known:
            raise unknown("choice of templates", self.config.templates, known)
        self.templates = known[self.config.templates]
        self.set_classes(task.classnames)

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self.constant("weights", self.clip.zero_shot_weights(classnames, self.templates))  # [C, D]

    def logits(self, x: Tensor) -> Tensor:
        return self.config.logit_scale * unit(x) @ self.weights.t()
