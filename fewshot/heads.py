"""Linear heads on fixed features, trained together as one stack W [R, C, D], b [R, C].

AdamW treats every number by itself and each head has a loss, an order and a noise of its own, so a head in a stack goes
the way of a run of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from fewshot.clip import unit
from fewshot.errors import FewshotError
from fewshot.methods.cross_modal_probe import deal
from fewshot.methods.method import cosine_lr

SCALE = 100.0
WARMUP = 50  # steps of a straight line up to the peak learning rate


class Heads(nn.Module):
    """logits = 100 x W^T + b of R heads at once; with a scale that learns, s x W^T + b, and s starts at 100."""

    def __init__(self, weight: Tensor, bias: Tensor | None, learn_scale: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)  # [R, C, D]
        self.bias = None if bias is None else nn.Parameter(bias)  # [R, C]
        self.stretch = nn.Parameter(torch.zeros(len(weight), 1, 1, device=weight.device)) if learn_scale else None

    def weights(self) -> Tensor:
        """[R, C, D]: what W would be with the constant 100 in front."""
        return self.weight if self.stretch is None else self.stretch.exp() * self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Unit features [R, B, D], or [B, D] for all, to [R, B, C]."""
        scores = SCALE * x @ self.weights().transpose(1, 2)
        return scores if self.bias is None else scores + self.bias[:, None]


@dataclass(frozen=True)
class Pool:
    """What one head learns from: unit features [n, D], the first `images` of them of pictures, labels and weights [n]."""

    x: Tensor
    labels: Tensor
    weights: Tensor
    images: int
    noise: float = 0.0  # standard deviation of what is added to the text rows, anew in every step

    @classmethod
    def of(cls, images, texts, text_weight: float = 1.0, noise: float = 0.0) -> Pool:
        """From (features, labels) of pictures and of converted texts."""
        x = torch.cat([unit(images[0]), unit(texts[0])])
        weights = torch.ones(len(x), device=x.device)
        weights[len(images[0]) :] = text_weight
        return cls(x, torch.cat([images[1], texts[1]]), weights, len(images[0]), noise)

    def batches(self, size: int, steps: int, mix: str, rng: torch.Generator) -> Tensor:
        """Rows [steps, B]: from one shuffled pool, or half pictures and half texts, each half dealt by itself."""
        texts = len(self.x) - self.images
        if mix == "concat" or not texts:
            return deal(len(self.x), size, steps, rng)
        pictures = deal(self.images, max(1, size // 2), steps, rng)
        return torch.cat([pictures, self.images + deal(texts, max(1, size - size // 2), steps, rng)], dim=1)


def head_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Equation (9) of each head, with the index of the label put right: weighted mean cross-entropies [R].

    logits [R, B, C], labels [R, B], weights [R, B] (0: no row at all).
    """
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
    return (each * weights).sum(dim=1) / weights.sum(dim=1)


def train_heads(
    pools: Sequence[Pool], weight: Tensor, bias: Tensor | None, rngs: Sequence[tuple[torch.Generator, torch.Generator]],
    *, steps: int, batch_size: int, lr: float, weight_decay: float, mix: str = "concat", what: str = "heads",
    learn_scale: bool = False, keep: Callable[[int, Heads], None] | None = None,
) -> Heads:  # fmt: skip
    """One head for each pool, all from the start W [C, D], b [C]; `rngs` are the pools' own, for order and noise.

    `keep(steps done, heads)` is called after every step.
    """
    r, device = len(pools), weight.device
    heads = Heads(weight.repeat(r, 1, 1), None if bias is None else bias.repeat(r, 1), learn_scale)
    dealt = [pool.batches(batch_size, steps, mix, order) for pool, (order, _) in zip(pools, rngs)]
    width = max(rows.shape[1] for rows in dealt)
    # a pool smaller than the batch is filled up with rows of weight 0
    rows = torch.stack([F.pad(rows, (0, width - rows.shape[1]), value=-1) for rows in dealt]).to(device)
    longest = max(len(pool.x) for pool in pools)
    x = torch.stack([F.pad(pool.x, (0, 0, 0, longest - len(pool.x))) for pool in pools])
    labels = torch.stack([F.pad(pool.labels, (0, longest - len(pool.labels))) for pool in pools])
    weights = torch.stack([F.pad(pool.weights, (0, longest - len(pool.weights))) for pool in pools])
    decays = [p for p in heads.parameters() if p is not heads.stretch]
    groups = [{"params": decays}] + ([{"params": [heads.stretch], "weight_decay": 0.0}] if learn_scale else [])
    optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=True)
    index = torch.arange(r, device=device)[:, None]
    noisy = any(pool.noise for pool in pools)
    with torch.enable_grad():
        for step in tqdm(range(steps), desc=what, leave=False, disable=None):
            for group in optimizer.param_groups:
                group["lr"] = schedule(lr, step, steps)
            some = rows[:, step]
            there = some >= 0
            some = some.clamp(min=0)
            batch = x[index, some]
            if noisy:
                sizes = [len(part[0]) for part in dealt]  # what fills up takes no random number
                batch = torch.stack([shaken(*each) for each in zip(batch, some, pools, sizes, (n for _, n in rngs))])
            loss = head_loss(heads(batch), labels[index, some], weights[index, some] * there).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if keep is not None:
                keep(step + 1, heads)
    if not torch.isfinite(loss):
        raise FewshotError(f"the loss of the {what} is not finite; lower lr (now {lr:g}).")
    return heads.requires_grad_(False)


def shaken(x: Tensor, rows: Tensor, pool: Pool, size: int, rng: torch.Generator) -> Tensor:
    """normalise(x + noise) where one of the first `size` rows is a text; x [B, D], rows [B]."""
    if not pool.noise:
        return x
    other = x.clone()
    other[:size] = unit(x[:size] + pool.noise * torch.randn(size, x.shape[1], generator=rng).to(x))
    return torch.where((rows >= pool.images)[:, None], other, x)


def schedule(peak: float, step: int, steps: int) -> float:
    """A straight line to the peak in 50 steps (fewer where half of the training is shorter), a cosine to 0 after."""
    warmup = min(WARMUP, steps // 2)
    return peak * (step + 1) / warmup if step < warmup else cosine_lr(peak, step - warmup, steps - warmup)
