"""MaPLe (Khattak et al. 2023): prompts in front of the first blocks of both encoders, the visual ones projected.

Level j = 0..J-1 has learned vectors P_j [n, w_t] and a projection V_j = P_j W_j^T + b_j [n, w_v]. Text: P_0 replaces the
first n words of "a photo of a {}.", so "of a" stays; P_j overwrites the same positions in front of block j. Image: V_0
is appended to the patches before ln_pre, without a position; V_j replaces those tokens in front of block j. From block J
on, the last prompts stay and are processed. logits = exp(logit_scale) cos(f, t), both encoders otherwise frozen; mean
cross-entropy. Constants: muzairkhattak/multimodal-prompt-learning, trainers/maple.py and
configs/trainers/MaPLe/vit_b16_c2_ep5_batch4_2ctx.yaml. All is fp32 here; the authors' run is half in part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fewshot.clip import unit
from fewshot.errors import FewshotError
from fewshot.methods.method import LATER, Method, Training, coop_lr
from fewshot.prompts import Prompts, clean, word_context


@dataclass(frozen=True)
class Config(Training):
    n_ctx: int = 2  # learned vectors in front of each block
    ctx_init: str = "a photo of a"  # the first n_ctx words become P_0, the others stay; ignored for n_ctx > 4
    prompt_depth: int = 9  # J: how many blocks get new prompts, the input level counted
    lr: float = 0.0035
    batch_size: int = 4
    chunk: int = 0  # classes per chunk in training; 0: as many as the memory budget holds, see TextTower.features
    precision: str = field(default="fp32", metadata=LATER)  # of the encoders' products; "bf16" is for GPUs


class MaPLe(Method):
    name, title, paper = "maple", "MaPLe", "khattak2023maple"
    needs = "images"
    drop_last = True
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        c = self.config
        text, vision = clip.require_text(self.title), clip.require_vision(self.title)
        depth = min(len(text.blocks), len(vision.blocks))
        if not 1 <= c.prompt_depth <= depth:
            raise FewshotError(
                f"prompt_depth of {self.name} must be from 1 to {depth}, the number of blocks of the shallower encoder "
                f"of {clip.name}, not {c.prompt_depth}."
            )
        if c.n_ctx < 1:
            raise FewshotError(f"n_ctx of {self.name} must be 1 or more, not {c.n_ctx}.")
        ctx = 0.02 * torch.randn(c.prompt_depth, c.n_ctx, text.width, generator=self.rng("ctx"))
        self.words: str | int = c.n_ctx  # placeholders
        if c.ctx_init and c.n_ctx <= 4:
            self.words = clean(c.ctx_init)
            start = word_context(clip, self.words, self.title)
            if len(start) < c.n_ctx:
                raise FewshotError(
                    f"the words {self.words!r} are fewer than the {c.n_ctx} vectors of {self.name}; give more words, "
                    "or none for a random start."
                )
            ctx[0] = start[: c.n_ctx]
        # Linear's own initialisation, once for the input level and once for all the others
        bound, generator = text.width**-0.5, self.rng("projection")
        first, others = (bound * (2 * torch.rand(vision.width, text.width + 1, generator=generator) - 1) for _ in "01")
        projection = torch.stack([first] + [others] * (c.prompt_depth - 1))
        self.ctx = nn.Parameter(ctx.to(clip.device))  # P [J, n, w_t]
        self.weight = nn.Parameter(projection[..., 1:].contiguous().to(clip.device))  # W [J, w_v, w_t]
        self.bias = nn.Parameter(projection[..., 0].contiguous().to(clip.device))  # b [J, w_v]
        self.set_classes(task.classnames)

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self.prompts = Prompts(self.clip, classnames, self.words, what=self.title, n=self.config.n_ctx)

    def text_features(self) -> Tensor:
        """[C, D], not normalised."""
        first, *deep = self.ctx
        chunk = self.config.chunk if torch.is_grad_enabled() else 0
        return self.prompts.features(first, deep=dict(enumerate(deep, 1)), chunk=chunk)

    def image_features(self, x: Tensor) -> Tensor:
        """[B, D], not normalised, of pixels [B, 3, S, S]."""
        first, *deep = torch.baddbmm(self.bias.unsqueeze(1), self.ctx, self.weight.transpose(1, 2))  # V [J, n, w_v]
        return self.clip.vision.encode(x, prompts=first, deep=dict(enumerate(deep, 1)))

    def logits(self, x: Tensor) -> Tensor:
        t = self.kept("text", lambda: unit(self.text_features()))
        return self.clip.logit_scale * unit(self.image_features(x)) @ t.t()

    def epochs(self) -> int:
        """5, for training on half of the classes; the authors give no number for all of them."""
        return 5

    def lr(self, step: int, steps: int, per_epoch: int) -> float:
        return coop_lr(self.config.lr, step // per_epoch, -(-steps // per_epoch))
