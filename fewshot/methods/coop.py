"""CoOp (Zhou et al. 2022): the words around the class name are replaced by learned vectors.

t_c = text encoder([S, V_1..V_n, name_c, "."]); logits[i, c] = exp(logit_scale) <f_i/|f_i|, t_c/|t_c|>; mean
cross-entropy. Only V trains. Constants: KaiyangZhou/CoOp, trainers/coop.py and scripts/coop/main.sh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fewshot.clip import unit
from fewshot.data.catalogue import known_as
from fewshot.errors import FewshotError
from fewshot.methods.method import LATER, Method, Training, coop_lr
from fewshot.prompts import Prompts, word_context


@dataclass(frozen=True)
class Config(Training):
    n_ctx: int = 16  # number of learned vectors
    ctx_init: str = ""  # words to start from, for example "a photo of a"; they decide n_ctx, and the context is shared
    csc: bool = False  # a context of its own for every class
    class_token_position: str = "end"  # "end", "middle" or "front"
    chunk: int = 0  # classes per chunk in training; 0: as many as the memory budget holds, see TextTower.features
    precision: str = field(default="fp32", metadata=LATER)  # of the encoders' products; "bf16" is for GPUs


class CoOp(Method):
    name, title, paper = "coop", "CoOp", "zhou2022coop"
    drop_last = True
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        c = self.config
        if c.n_ctx < 1:
            raise FewshotError(f"n_ctx of {self.name} must be 1 or more, not {c.n_ctx}.")
        clip.require_text(self.title)
        self.own = c.csc and c.ctx_init == ""
        self.ctx = nn.Parameter(self.start(len(task.classnames)).to(clip.device))  # [n, w], or [C, n, w] with csc
        self.set_classes(task.classnames)

    def start(self, classes: int) -> Tensor:
        """The context before training: the embeddings of `ctx_init`, or small noise."""
        c = self.config
        if c.ctx_init:
            return word_context(self.clip, c.ctx_init, self.title)
        shape = (c.n_ctx, self.clip.text_width)
        return 0.02 * torch.randn((classes, *shape) if self.own else shape, generator=self.rng("ctx"))

    def words(self) -> str | int:
        """The text that the context takes the place of, or its number of placeholders."""
        return self.config.ctx_init or self.config.n_ctx

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self.prompts = Prompts(self.clip, classnames, self.words(), self.config.class_token_position, self.title)

    def retarget(self, classnames: Sequence[str]) -> Method:
        if self.own:
            return self.refuse_retarget(classnames, "each class has learned a context of its own")
        return super().retarget(classnames)

    def text_features(self) -> Tensor:
        """[C, D], not normalised."""
        chunk = self.config.chunk if torch.is_grad_enabled() else 0
        return self.prompts.features(self.ctx, own=self.own, chunk=chunk)

    def logits(self, x: Tensor) -> Tensor:
        return self.score(x, self.kept("text", lambda: unit(self.text_features())))

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """Logits [B, C] of image features x [B, D] for unit text features t [C, D]."""
        return self.clip.logit_scale * unit(x) @ t.t()

    def epochs(self) -> int:
        """50 for one shot, 100 for two and four, 200 above; 50 on ImageNet."""
        return few_shot_epochs(self.shots, self.dataset)

    def lr(self, step: int, steps: int, per_epoch: int) -> float:
        return coop_lr(self.config.lr, step // per_epoch, -(-steps // per_epoch))


def few_shot_epochs(shots: int | None, dataset: str) -> int:
    """CoOp's number of epochs."""
    if known_as(dataset) == "imagenet" or shots == 1:
        return 50
    return 100 if shots is not None and shots <= 4 else 200
