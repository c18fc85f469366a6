"""KgCoOp (Yao et al. 2023): CoOp whose class features must stay near those of a fixed, hand-written prompt.

L = CE + w D,  D = 1 - (1/C) sum_c cos(t_c, T_c), with t_c CoOp's learned text feature of class c and T_c the feature of
the teacher's prompt for it. D is a mean over all classes, not only those of the batch; no picture enters it, and it
plays no part at test time. Constants: htyao89/KgCoOp, KgCoOp/trainers/kgcoop.py, configs/trainers/KgCoOp/
vit_b16_ep100_ctxv1.yaml and scripts/base2new_train.sh; the squared schedule: the same code before 15 August 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from fewshot.clip import unit
from fewshot.data.catalogue import known_as
from fewshot.data.dataset import check_template
from fewshot.errors import FewshotError, unknown
from fewshot.methods import coop
from fewshot.methods.coop import CoOp
from fewshot.methods.method import coop_lr

TEACHERS = {
    "imagenet": "a photo of a {}.",
    "caltech101": "a photo of a {}.",
    "oxford_pets": "a photo of a {}, a type of pet.",
    "stanford_cars": "a photo of a {}.",
    "oxford_flowers": "a photo of a {}, a type of flower.",
    "food101": "a photo of {}, a type of food.",
    "fgvc_aircraft": "a photo of a {}, a type of aircraft.",
    "sun397": "a photo of a {}.",
    "dtd": "a photo of a {}, a type of texture.",  # CoOp's zero-shot prompt is "{} texture."
    "eurosat": "a centered satellite photo of {}.",
    "ucf101": "a photo of a person doing {}.",
}
SCHEDULES = ("cosine", "squared_cosine")


@dataclass(frozen=True)
class Config(coop.Config):
    n_ctx: int = 4  # number of learned vectors, where ctx_init gives no words
    ctx_init: str = "a photo of a"  # on every data set; csc needs ctx_init=""
    w: float = 8.0  # weight of the distance to the teacher; 1.0 is the code's default, 8.0 that of every script
    template: str | None = None  # of the teacher; None: the authors' for the data set, the task's own on any other
    schedule: str = "cosine"  # "squared_cosine": the factor applied twice per epoch, as in the code before August 2023
    batch_size: int = 128
    epochs: int | None = 100  # whatever the shots


class KgCoOp(CoOp):
    name, title, paper = "kgcoop", "KgCoOp", "yao2023kgcoop"
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        c = self.config
        if c.schedule not in SCHEDULES:
            raise unknown(f"schedule of {self.name}", c.schedule, SCHEDULES)
        if not c.w >= 0:
            raise FewshotError(f"w of {self.name} must be 0 or more, not {c.w}.")

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self.constant("teacher", self.clip.zero_shot_weights(classnames, self.teacher_template()))  # [C, D], unit norm

    def teacher_template(self) -> str:
        return teacher_template(self.config.template, TEACHERS, self.dataset, self.template)

    def losses(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and D, of one run of the text encoder."""
        t = unit(self.text_features())
        distance = 1 - (t * self.teacher).sum(dim=-1).mean()
        return F.cross_entropy(self.score(x, t), labels), distance

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        ce, distance = self.losses(x, labels)
        return ce + self.config.w * distance

    def lr(self, step: int, steps: int, per_epoch: int) -> float:
        schedule = squared_cosine_lr if self.config.schedule == "squared_cosine" else coop_lr
        return schedule(self.config.lr, step // per_epoch, -(-steps // per_epoch))


def teacher_template(given: str | None, table: Mapping[str, str], dataset: str, own: str) -> str:
    """The template that is `given`, else the table's for the data set, else the task's own."""
    if given is None:
        return table.get(known_as(dataset), own)
    check_template(given)
    return given


def squared_cosine_lr(peak: float, epoch: int, epochs: int, warmup: float = 1e-5) -> float:
    """CoOp's schedule with the cosine factor squared: what two such schedulers on one optimiser do.

    PyTorch's cosine rule multiplies the rate it finds, so with two schedulers every step is taken twice:
    lr(0) = 1e-5; lr(j) = peak ((1 + cos(pi (j - 1) / T)) / 2)^2 for j = 1..T-1.
    """
    return warmup if epoch == 0 else peak * coop_lr(1.0, epoch, epochs) ** 2
