"""CoCoOp (Zhou et al. 2022): CoOp's context plus one vector that a small network reads off each image.

pi_i = W_2 relu(W_1 f_i + b_1) + b_2 with f_i at unit norm; t_ic = text encoder([S, V_1 + pi_i, .., V_n + pi_i, name_c,
"."]); logits[i, c] = exp(logit_scale) <f_i, t_ic/|t_ic|>; mean cross-entropy. V and the network train. Each image has a
text classifier of its own. Constants: KaiyangZhou/CoOp, trainers/cocoop.py and
configs/trainers/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.clip import unit
from fewshot.errors import FewshotError
from fewshot.methods.method import LATER, Method, Training, coop_lr
from fewshot.prompts import Prompts, word_context


@dataclass(frozen=True)
class Config(Training):
    n_ctx: int = 4  # number of learned vectors
    ctx_init: str = "a photo of a"  # words to start from; they decide n_ctx. "": random
    batch_size: int = 1  # chosen for memory, not for accuracy
    chunk: int = 0  # classes per chunk in training; 0: as many as the memory budget holds, see TextTower.features
    precision: str = field(default="fp32", metadata=LATER)  # of the encoders' products; "bf16" is for GPUs
    max_prompts: int = 1024  # prompts (images x classes) in flight at evaluation


class CoCoOp(Method):
    name, title, paper = "cocoop", "CoCoOp", "zhou2022cocoop"
    drop_last = True
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        c = self.config
        for key in ("n_ctx", "max_prompts"):
            if getattr(c, key) < 1:
                raise FewshotError(f"{key} of {self.name} must be 1 or more, not {getattr(c, key)}.")
        width, features = clip.require_text(self.title).width, clip.embed_dim
        if c.ctx_init:
            ctx = word_context(clip, c.ctx_init, self.title)
        else:
            ctx = 0.02 * torch.randn(c.n_ctx, width, generator=self.rng("ctx"))
        self.ctx = nn.Parameter(ctx.to(clip.device))  # [n, w]
        hidden, draws = max(1, features // 16), self.rng("meta_net")
        self.linear1 = linear(features, hidden, draws).to(clip.device)
        self.linear2 = linear(hidden, width, draws).to(clip.device)
        self.set_classes(task.classnames)

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self.prompts = Prompts(self.clip, classnames, self.config.ctx_init or self.config.n_ctx, what=self.title)

    def shift(self, f: Tensor) -> Tensor:
        """pi [B, w] of unit image features [B, D]."""
        return self.linear2(F.relu(self.linear1(f)))

    def text_features(self, f: Tensor) -> Tensor:
        """[B, C, D], not normalised: one classifier for each of the unit image features [B, D]."""
        chunk = self.config.chunk if torch.is_grad_enabled() else self.config.max_prompts
        context = self.ctx + self.shift(f).unsqueeze(1)
        return self.prompts.features(context, chunk=chunk)

    def logits(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self._logits(unit(x))
        images = max(1, self.config.max_prompts // len(self.classnames))
        return torch.cat([self._logits(f) for f in unit(x).split(images)])

    def _logits(self, f: Tensor) -> Tensor:
        t = unit(self.text_features(f))
        return self.clip.logit_scale * (t @ f.unsqueeze(2)).squeeze(2)

    def epochs(self) -> int:
        """10 on every data set, at any number of shots."""
        return 10

    def lr(self, step: int, steps: int, per_epoch: int) -> float:
        return coop_lr(self.config.lr, step // per_epoch, -(-steps // per_epoch))


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """torch's default initialisation, weight and bias uniform in +-1/sqrt(inputs), drawn from `generator`."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    for p in layer.parameters():
        p.data = (2 * torch.rand(p.shape, generator=generator) - 1) / inputs**0.5
    return layer
