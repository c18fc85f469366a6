"""Zero-shot CLIP (Radford et al. 2021): logits = 100 f/|f| W^T, row k of W the unit text feature of class k.

With several templates each prompt's feature is normalised, then averaged, then normalised again; so with sentences that
describe the classes (`templates="sentences"`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot.clip import unit
from fewshot.errors import unknown
from fewshot.methods.method import Method
from fewshot.texts import domain_of, sentences

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
# Instead of templates: what ships about the classes, as written, or with the name in front where it is missing.
SENTENCES = {"sentences": "keep", "named_sentences": "require"}


@dataclass(frozen=True)
class Config:
    # "task": the task's own; "photo": a photo of a {}.; "ensemble": the seven above; "sentences"; "named_sentences"
    templates: str = "task"
    logit_scale: float = 100.0  # a constant in CLIP-LoRA's and Tip-Adapter's code, whatever the model's own is


class ZeroShot(Method):
    name, title, paper = "zero_shot", "Zero-shot CLIP", "radford2021clip"
    trained = sees_support = False
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        known = {"task": (task.template,), "photo": (PHOTO,), "ensemble": ENSEMBLE}
        if self.config.templates not in (*known, *SENTENCES):
            raise unknown("choice of templates", self.config.templates, (*known, *SENTENCES))
        self.templates = known.get(self.config.templates)
        self.set_classes(task.classnames)

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        if self.templates is None:
            weights = sentence_weights(self, classnames, self.config.templates)
        else:
            weights = self.clip.zero_shot_weights(classnames, self.templates)
        self.constant("weights", weights)  # [C, D]

    def logits(self, x: Tensor) -> Tensor:
        return self.config.logit_scale * unit(x) @ self.weights.t()


@torch.no_grad()
def sentence_weights(method: Method, classnames: Sequence[str], kind: str) -> Tensor:
    """Unit class vectors [C, D]: the mean of the unit features of a class's sentences, normalised again.

    Raises FewshotError for a data set or class without sentences.
    """
    lines = sentences(method.dataset, classnames, "", SENTENCES[kind], domain_of(method.template))
    features = unit(method.clip.encode_text([line for some in lines for line in some]))
    return unit(torch.stack([part.mean(dim=0) for part in features.split([len(some) for some in lines])]))
