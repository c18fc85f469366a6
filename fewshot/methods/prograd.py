"""ProGrad (Zhu et al. 2023): CoOp that takes no step against what the zero-shot classifier says.

g_ce and g_kl are the gradients of the cross-entropy and of a distillation loss towards zero-shot logits z,
L_kl = tau^2 mean_i sum_c -softmax(z_i / tau)_c log softmax(s_i / tau)_c, with respect to the context. The step is taken
with g_ce where they agree, and with g_ce - lam <g_ce, u> u, u = g_kl / |g_kl|, where <g_ce, g_kl> < 0. L_kl itself is
never minimised. Constants: BeierZhu/Prompt-align, ProGrad.public/trainers/prograd.py and README.md; the projection
stands in its modified framework, Dassl.ProGrad.pytorch/dassl/engine/trainer.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.clip import unit
from fewshot.data.catalogue import known_as
from fewshot.errors import FewshotError
from fewshot.methods import coop
from fewshot.methods.coop import CoOp
from fewshot.methods.kgcoop import teacher_template
from fewshot.prompts import clean

TEMPLATES = {  # of the teacher, and of the words to start from
    "imagenet": "a photo of a {}.",
    "caltech101": "a photo of a {}.",
    "oxford_pets": "a type of pet, a photo of a {}.",
    "stanford_cars": "a photo of a {}.",
    "oxford_flowers": "a type of flower, a photo of a {}.",
    "food101": "a type of food, a photo of {}.",
    "fgvc_aircraft": "a type of aircraft, a photo of a {}.",
    "sun397": "a photo of a {}.",
    "dtd": "a texture of {}.",
    "eurosat": "a centered satellite photo of {}.",
    "ucf101": "a photo of a person doing {}.",
}
GENTLER = ("oxford_flowers", "dtd", "eurosat")  # lam 0.8 instead of 1.0 at 8 and 16 shots


@dataclass(frozen=True)
class Config(coop.Config):
    ctx_init: str | None = None  # None: the template's words after zeros; "" and words as in CoOp; csc needs ""
    template: str | None = None  # of teacher and start; None: the authors' for the data set, else the task's own
    lam: float | None = None  # share of the conflict taken away; None: 1.0, or the authors' 0.8 (GENTLER)
    tau: float = 1.0  # temperature inside both softmaxes


class ProGrad(CoOp):
    name, title, paper = "prograd", "ProGrad", "zhu2023prograd"
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        c = self.config
        gentler = known_as(self.dataset) in GENTLER and self.shots in (8, 16)
        self.lam = c.lam if c.lam is not None else 0.8 if gentler else 1.0
        if not self.lam >= 0 or not c.tau > 0:
            raise FewshotError(f"{self.name} needs lam from 0 on and tau above 0, not {self.lam} and {c.tau}.")
        if c.ctx_init is None and c.class_token_position != "end":
            raise FewshotError(
                f"{self.name} starts from words that stand before the class name; set ctx_init='' (noise) to learn a "
                f"context at the {c.class_token_position}."
            )

    def teacher_template(self) -> str:
        return teacher_template(self.config.template, TEMPLATES, self.dataset, self.template)

    def first_words(self) -> str:
        """What the template says before the class name; "a photo of a" where that is nothing."""
        words = clean(self.teacher_template().split("{}")[0].strip() or "a photo of a")
        if len(words.split(" ")) > self.config.n_ctx:
            raise FewshotError(
                f"{words!r} has more words than n_ctx of {self.name} ({self.config.n_ctx}); raise n_ctx."
            )
        return words

    def start(self, classes: int) -> Tensor:
        """The context before training: zeros, then the first tokens of the template, as many as it has words."""
        if self.config.ctx_init is not None:
            return super().start(classes)
        words = self.first_words()
        q = len(words.split(" "))
        tokens = self.clip.tokenize([words])
        ctx = torch.zeros(self.config.n_ctx, self.clip.text_width)
        ctx[-q:] = self.clip.text.embed(tokens)[0, 1 : 1 + q]
        return ctx

    def words(self) -> str | int:
        """Placeholders, then the template. A comma is a token and no word, so the last token stays behind, frozen."""
        if self.config.ctx_init is not None:
            return super().words()
        words = self.first_words()
        return " ".join(["X"] * (self.config.n_ctx - len(words.split(" "))) + [words])

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self.constant("teacher", self.clip.zero_shot_weights(classnames, self.teacher_template()))  # [C, D], unit norm

    def kl(self, x: Tensor, scores: Tensor) -> Tensor:
        """L_kl of the scores [B, C] that the context gives to x [B, D]; the teacher sees the same image features."""
        tau = self.config.tau
        target = (self.score(x, self.teacher) / tau).softmax(dim=-1)
        return tau**2 * F.cross_entropy(scores / tau, target)

    def gradients(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """L_ce, and g_ce and g_kl with respect to the context.

        Both losses see the context through the text features alone. So the text encoder runs forward once, and backward
        once with each loss's gradient of the text features: the chain rule, exactly.
        """
        text = self.text_features()  # [C, D]
        t = text.detach().requires_grad_()
        scores = self.score(x, unit(t))
        ce, kl = F.cross_entropy(scores, labels), self.kl(x, scores)
        (ce_t,), (kl_t,) = torch.autograd.grad(ce, t, retain_graph=True), torch.autograd.grad(kl, t)
        (g_ce,) = torch.autograd.grad(text, self.ctx, ce_t, retain_graph=True)
        (g_kl,) = torch.autograd.grad(text, self.ctx, kl_t)
        return ce.detach(), g_ce, g_kl

    def backward(self, x: Tensor, labels: Tensor) -> Tensor:
        ce, g_ce, g_kl = self.gradients(x, labels)
        self.ctx.grad = project(g_ce, g_kl, self.lam)
        return ce


def project(g_ce: Tensor, g_kl: Tensor, lam: float) -> Tensor:
    """g_ce without `lam` times its part against g_kl, each tensor one long vector; g_ce itself where g_kl is zero."""
    u = g_kl / g_kl.norm()
    along = (g_ce * u).sum()
    return torch.where(along < 0, g_ce - lam * along * u, g_ce)  # 0/0 is NaN and not below 0
