"""CLIP-LoRA (Zanella and Ben Ayed 2024): low-rank updates of the attention of both encoders, one setting for all.

Every adapted matrix M becomes M + (alpha / sqrt(r)) B A. logits = 100 cos(f, t), with f and t of the adapted encoders
and the one prompt "a photo of a {}."; mean cross-entropy; the last iterate is used, merged. Note sqrt(r): the authors'
code does not divide by r. Constants: MaxZanella/CLIP-LoRA, run_utils.py, lora.py and loralib/utils.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewshot.clip import common_prefix, unit
from fewshot.errors import FewshotError, unknown
from fewshot.lora import LowRank
from fewshot.methods.method import LATER, Method, Training, cosine_lr
from fewshot.methods.zero_shot import SENTENCES, sentence_weights

# Blocks that a position names, as the authors' tables for 12 blocks; other depths are divided in the same proportion.
POSITIONS = {
    "all": (0, 1),
    "half-up": (1 / 2, 1),
    "half-bottom": (0, 1 / 2),
    "up": (2 / 3, 1),
    "mid": (1 / 3, 2 / 3),
    "bottom": (0, 1 / 3),
}
TOPS = {"top1": 1, "top2": 2, "top3": 3}


@dataclass(frozen=True)
class Config(Training):
    encoder: str = "both"  # "text", "vision" or "both"
    params: tuple[str, ...] = ("q", "k", "v")  # matrices to adapt, among q, k, v, o
    position: str = "all"
    r: int = 2
    alpha: float = 1.0
    dropout: float = 0.25  # on the input of the low-rank branch only
    # on every data set; with encoder="vision" also "sentences" or "named_sentences", what ships about the classes
    template: str = "a photo of a {}."
    logit_scale: float = 100.0
    lr: float = 2e-4
    weight_decay: float = 1e-2  # 1e2 in the code before June 2024, by mistake
    per_shot: int = 500  # iterations per shot
    chunk: int = 0  # classes per chunk in training; 0: as many as the memory budget holds, see TextTower.features
    precision: str = field(default="fp32", metadata=LATER)  # of the encoders' products; "bf16" is for GPUs


class CLIPLoRA(Method):
    name, title, paper = "clip_lora", "CLIP-LoRA", "zanella2024cliplora"
    needs = "images"
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        c = self.config
        if c.encoder not in ("text", "vision", "both"):
            raise unknown("encoder", c.encoder, ("text", "vision", "both"))
        if c.template in SENTENCES and c.encoder != "vision":
            raise FewshotError(f"{self.title} trains on one prompt per class; template={c.template!r} needs encoder='vision'.")
        self.text = self.vision = None
        for name in ("text", "vision") if c.encoder == "both" else (c.encoder,):
            tower = (clip.require_text if name == "text" else clip.require_vision)(f"{self.title} on the {name} side")
            layers = layers_at(c.position, len(tower.blocks))
            params = (c.params,) if isinstance(c.params, str) else c.params
            lora = LowRank(tower.blocks, layers, params, c.r, c.alpha, c.dropout, self.rng(name))
            setattr(self, name, lora)
        if self.vision is None:
            self.needs = "features"  # the image encoder is frozen: its features come from the cache
        self.set_classes(task.classnames)

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        if self.text is None:
            if self.config.template in SENTENCES:
                weights = sentence_weights(self, classnames, self.config.template)
            else:
                weights = self.clip.zero_shot_weights(classnames, self.config.template)
            self.constant("weights", weights)  # [C, D]
        else:
            prompts = [self.config.template.replace("{}", n.replace("_", " ")) for n in classnames]
            tower, tokens = self.clip.text, self.clip.tokenize(prompts)
            eot = tower.eot(tokens)
            tokens = tokens[:, : int(eot.max()) + 1]
            self.prefix = common_prefix(tokens, eot)
            self.constant("eot", eot)  # [C]
            self.tower, states = tower.above(tower.embed(tokens), self.text.layers[0])
            self.constant("states", states)  # [C, L, w], in front of the first block that is adapted

    def image_features(self, x: Tensor) -> Tensor:
        """Unit features [B, D]."""
        if self.vision is None:
            return unit(x)
        return unit(self.clip.vision.encode(x, adapters=self._adapters(self.vision)))

    def text_features(self) -> Tensor:
        """Unit features [C, D] of the class prompts under the adapted text encoder."""
        if self.text is None:
            return self.weights
        # what is dropped in a shared prefix would be dropped for all classes at once
        shared = 0 if self.training and self.text.dropout else self.prefix
        chunk = self.config.chunk if torch.is_grad_enabled() else 0
        adapters = self._adapters(self.text)[-len(self.tower.blocks) :]
        return unit(self.tower.encode(self.states, self.eot, shared, adapters=adapters, chunk=chunk))

    def _adapters(self, lora: LowRank) -> list:
        if self.training or torch.is_grad_enabled():
            return lora.adapters()
        return self.kept(f"merged {id(lora)}", lora.merged)

    def logits(self, x: Tensor) -> Tensor:
        t = self.kept("text", self.text_features)
        return self.config.logit_scale * self.image_features(x) @ t.t()

    def iterations(self, per_epoch: int) -> int:
        """500 per shot, whatever the number of classes."""
        c = self.config
        if c.iterations is not None or c.epochs is not None:
            return super().iterations(per_epoch)
        if self.shots is None:
            raise FewshotError(
                f"{self.title} counts its iterations per shot; give iterations= for a task without shots."
            )
        return c.per_shot * self.shots

    def optimizer(self) -> torch.optim.Optimizer:
        c = self.config
        return torch.optim.AdamW(self.parameters(), lr=c.lr, betas=(0.9, 0.999), weight_decay=c.weight_decay)

    def lr(self, step: int, steps: int, per_epoch: int) -> float:
        return cosine_lr(self.config.lr, step, steps, floor=1e-6)


def layers_at(position: str, depth: int) -> list[int]:
    """Block indices that a position names in an encoder of `depth` blocks."""
    if position in TOPS:
        return list(range(max(0, depth - TOPS[position]), depth))
    if position not in POSITIONS:
        raise unknown("LoRA position", position, [*POSITIONS, *TOPS])
    first, last = POSITIONS[position]
    chosen = list(range(round(first * depth), round(last * depth)))
    if not chosen:
        raise FewshotError(f"position {position!r} names no block of an encoder of {depth}; choose 'all' or 'top1'.")
    return chosen
