"""From a CLIP text feature to where the image feature of a matching picture lies, I' = f_Q(T).

Closed forms (identity, mean_shift, center, linear, procrustes) are affine maps found in milliseconds; `MLP` and the
Q-Former are trained on pairs by `train`. All work on unit features and return rows that are not normalised.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from fewshot.clip import unit
from fewshot.errors import FewshotError
from fewshot.methods.cross_modal_probe import deal
from fewshot.methods.method import cosine_lr
from fewshot.pair_losses import pair_loss
from fewshot.qformer import QFormer

CLOSED = ("identity", "mean_shift", "center", "linear", "procrustes", "noise")
TRAINED = ("qformer", "mlp")
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
FIRST_LR, LAST_LR, WARMUP = 1e-6, 1e-5, 0.05  # of the paper's schedule for BLIP-2, the warm-up as a share of the steps
EVERY = 50  # steps to a value of the training loss


class Affine:
    """I' = T A + b, with A [D, D] (None: the identity) and b [D] (None: 0)."""

    def __init__(self, matrix: Tensor | None = None, shift: Tensor | None = None) -> None:
        self.matrix, self.shift = matrix, shift

    def __call__(self, t: Tensor) -> Tensor:
        t = t if self.matrix is None else t @ self.matrix
        return t if self.shift is None else t + self.shift


def closed_form(name: str, texts: Tensor, images: Tensor, ridge: float = 0.1, share: float = 1.0) -> Affine:
    """The map of that name from unit text features [P, D] to the unit image features [P, D] of the same rows.

    mean_shift goes `share` of the way between the means: 0 is the identity, 1 closes the modality gap.
    center subtracts the mean of the texts from texts; the mean of the images has to be taken from images elsewhere.
    linear is ridge regression on [T, 1], A = (X^T X + ridge I)^-1 X^T Y, the last row of A the shift.
    procrustes is the rotation U V^T of the singular vectors of centred T^T I, plus the shift between the means.
    """
    t_mean, i_mean = texts.mean(dim=0), images.mean(dim=0)
    if name == "mean_shift":
        return Affine(shift=share * (i_mean - t_mean))
    if name == "center":
        return Affine(shift=-t_mean)
    if name == "linear":
        x = F.pad(texts, (0, 1), value=1.0).double()
        gram = x.t() @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        a = torch.linalg.solve(gram, x.t() @ images.double()).to(texts.dtype)
        return Affine(a[:-1], a[-1])
    if name == "procrustes":
        u, _, vt = torch.linalg.svd(((texts - t_mean).t() @ (images - i_mean)).double())
        rotation = (u @ vt).to(texts.dtype)
        return Affine(rotation, i_mean - t_mean @ rotation)
    return Affine()  # identity; noise is added in training, and the map itself is the identity


class MLP(nn.Module):
    """Linear(D, 1024), GELU, Linear(1024, D), with the input added when `residual`."""

    def __init__(self, width: int, inner: int = 1024, residual: bool = False, rng: torch.Generator | None = None):
        super().__init__()
        self.fc1, self.fc2, self.residual = nn.Linear(width, inner), nn.Linear(inner, width), residual
        for layer in (self.fc1, self.fc2):  # nn.Linear's own start, from a generator of ours
            if not layer.weight.is_meta:
                bound = layer.in_features**-0.5
                for p in (layer.weight, layer.bias):
                    nn.init.uniform_(p, -bound, bound, generator=rng)

    def forward(self, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, 1, D] as the Q-Former takes it, to [B, 1, D]."""
        out = self.fc2(F.gelu(self.fc1(t)))
        return t + out if self.residual else out


def pooled(out: Tensor, pool: str) -> Tensor:
    """Features [B, Q, D] of the queries to [B, D], or for "each" to [B, Q, D]. max_cos pools by the mean after training."""
    if pool == "each":
        return out
    return out[:, 0] if pool == "first" else out.mean(dim=1)


def conversion_loss(out: Tensor, images: Tensor, labels: Tensor, pool: str, **loss) -> Tensor:
    """Stage 1 on a batch: out [B, Q, D] of the texts, image features [B, D], labels [B]."""
    if pool == "each":  # every query has a loss of its own
        return torch.stack([pair_loss(images, out[:, q], labels, **loss) for q in range(out.shape[1])]).mean()
    if pool == "max_cos":  # as BLIP-2: the query that is nearest to the picture
        best = (unit(out) * unit(images)[:, None]).sum(dim=-1).argmax(dim=1)
        return pair_loss(images, out[torch.arange(len(out), device=out.device), best], labels, **loss)
    return pair_loss(images, pooled(out, pool), labels, **loss)


def optimizer(converter: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW in one kernel; matrices alone decay, biases, norms, queries and positions do not."""
    alone = ("query_tokens", "positions")
    free = [p for name, p in converter.named_parameters() if p.dim() == 1 or name in alone]
    rest = [p for name, p in converter.named_parameters() if p.dim() > 1 and name not in alone]
    groups = [{"params": rest}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=True)


def schedule(peak: float, step: int, steps: int) -> float:
    """A straight line from 1e-6 over the first 5 % of the steps, then a cosine to 1e-5 (both no higher than the peak)."""
    warmup = int(WARMUP * steps)
    if step < warmup:
        first = min(FIRST_LR, peak)
        return first + (peak - first) * step / warmup
    return cosine_lr(peak, step - warmup, steps - warmup, min(LAST_LR, peak))


def train(
    converter: QFormer | MLP, images: Tensor, labels: Tensor, captions: Tensor, keys: Callable, *, steps: int,
    batch_size: int, lr: float, weight_decay: float, pool: str, rng: torch.Generator, what: str, **loss,
) -> list[float]:  # fmt: skip
    """Stage 1: batches of pictures, each at most once, each with one caption drawn at random; in fp32.

    images [N, D], labels [N]; captions [N, M] are rows of texts (-1: none), keys(rows, rng) their (kv, mask). The
    converter is frozen and in eval mode afterwards. Returns the mean loss of every EVERY steps.
    """
    adam = optimizer(converter, lr, weight_decay)
    count = (captions >= 0).sum(dim=1)
    history, total = [], torch.zeros((), device=images.device)
    converter.train()
    with torch.enable_grad():
        bar = tqdm(deal(len(images), batch_size, steps, rng), desc=what, leave=False, disable=None)
        for step, rows in enumerate(bar):
            for group in adam.param_groups:
                group["lr"] = schedule(lr, step, steps)
            drawn = (torch.rand(len(rows), generator=rng) * count[rows]).long()
            out = converter(*keys(captions[rows, drawn], rng))
            at = rows.to(images.device)
            value = conversion_loss(out, images[at], labels[at], pool, **loss)
            adam.zero_grad(set_to_none=True)
            value.backward()
            adam.step()
            total += value.detach()
            if step % EVERY == EVERY - 1 or step + 1 == steps:
                history.append(float(total) / (step % EVERY + 1))
                total.zero_()
                if history[-1] != history[-1]:
                    raise FewshotError(f"the loss of the {what} is not finite by step {step + 1}; lower converter_lr.")
    converter.eval().requires_grad_(False)
    return history
