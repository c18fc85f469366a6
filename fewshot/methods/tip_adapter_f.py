"""Tip-Adapter-F (Zhang et al. 2022): Tip-Adapter whose cache keys are trained; everything else stays fixed.

The logits are Tip-Adapter's, with K a parameter that starts at the cache and is not kept at unit norm. Mean
cross-entropy at the initial alpha and beta. The last epoch is used; the authors' code keeps the epoch that is best on
the test set. Constants: gaopengcuhk/Tip-Adapter, main.py and configs/*.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewshot.data.catalogue import known_as
from fewshot.methods.method import Training, cosine_lr
from fewshot.methods.tip_adapter import Config as CacheConfig
from fewshot.methods.tip_adapter import TipAdapter


@dataclass(frozen=True)
class Config(CacheConfig, Training):
    lr: float = 1e-3
    weight_decay: float = 0.01  # not written in the authors' code: the default of AdamW
    eps: float = 1e-4  # of AdamW; chosen for half precision, and it changes the numbers
    batch_size: int = 256
    scale: tuple[float, float] = (0.5, 1.0)


class TipAdapterF(TipAdapter):
    name, title = "tip_adapter_f", "Tip-Adapter-F"
    trained = True
    head = True
    Config = Config

    def make_cache(self, n: int) -> None:
        super().make_cache(n)
        del self.keys
        self.keys = nn.Parameter(torch.empty(n, self.clip.embed_dim, device=self.clip.device))  # [N, D]

    def set_keys(self, keys: Tensor) -> None:
        self.keys = nn.Parameter(keys.clone())

    def epochs(self) -> int:
        """20, and 100 on EuroSAT."""
        return 100 if known_as(self.dataset) == "eurosat" else 20

    def optimizer(self) -> torch.optim.Optimizer:
        c = self.config
        # fused: one pass over the keys, which are the largest parameter of all heads
        return torch.optim.AdamW(self.parameters(), lr=c.lr, eps=c.eps, weight_decay=c.weight_decay, fused=True)

    def lr(self, step: int, steps: int, per_epoch: int) -> float:
        return cosine_lr(self.config.lr, step, steps)
