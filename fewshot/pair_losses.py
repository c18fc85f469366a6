"""What a converted text feature should be near to and far from: losses over all pairs of a batch.

I [N, D] image features, I' [N, D] converted text features, c_ij = cos(I_i, I'_j). Equation (4) of the paper is printed
with its two cases exchanged, 1 - c_ij for i != j and max(0, c_ij) for i = j. The usual cosine embedding loss, and all the
paper says about it, is the other way round: "swapped" is max(0, c_ij) for i != j and 1 - c_ij for i = j. Equation (5) is
the mean over all N^2 pairs. "printed" is kept to show what the misprint would do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.clip import unit

LOSSES = ("swapped", "printed", "swapped_balanced", "positive_only", "infonce", "mse")
SAME_CLASS = ("ignore", "negative", "positive")


def pair_loss(
    images: Tensor, converted: Tensor, labels: Tensor | None = None, *, loss: str = "swapped",
    same_class: str = "negative", margin: float = 0.0, neg_weight: float = 1.0, tau: float = 0.07,
) -> Tensor:  # fmt: skip
    """The scalar of a batch. `labels` [N] say which pairs i != j are of one class, `same_class` what those are."""
    cos = unit(images) @ unit(converted).t()
    positive, kept = roles(cos, labels, same_class)
    if loss == "infonce":
        return infonce(cos / tau, positive, kept)
    value, weight = terms(cos, positive, kept, loss, margin, neg_weight, images.shape[1])
    return (weight * value).sum()


def roles(like: Tensor, labels: Tensor | None, same_class: str) -> tuple[Tensor, Tensor]:
    """Boolean [N, N]: which pairs belong together, and which count at all."""
    own = torch.eye(len(like), dtype=torch.bool, device=like.device)
    if labels is None or same_class == "negative":
        return own, torch.ones_like(own)
    same = labels[:, None] == labels
    return (same, torch.ones_like(own)) if same_class == "positive" else (own, own | ~same)


def terms(
    cos: Tensor, positive: Tensor, kept: Tensor, loss: str, margin: float = 0.0, neg_weight: float = 1.0, width: int = 1
) -> tuple[Tensor, Tensor]:
    """The value of every pair [N, N] and its weight; the loss is the sum of their products."""
    far, near = F.relu(cos - margin), 1 - cos
    kept = kept.to(cos.dtype)
    ours, theirs = kept * positive, kept * ~positive
    if loss == "printed":
        return torch.where(positive, far, near), kept / kept.sum()
    if loss == "swapped":
        return torch.where(positive, near, far), kept / kept.sum()
    if loss == "swapped_balanced":
        weight = ours / ours.sum() + neg_weight * theirs / theirs.sum().clamp(min=1)
        return torch.where(positive, near, far), weight
    return (2 * near / width if loss == "mse" else near), ours / ours.sum()


def infonce(logits: Tensor, positive: Tensor, kept: Tensor) -> Tensor:
    """Symmetric cross-entropy over rows and columns; several positives share the target."""
    logits = logits.masked_fill(~kept, float("-inf"))
    total = logits.new_zeros(())
    for scores, target in ((logits, positive), (logits.t(), positive.t())):
        target = target.to(scores.dtype)
        log = scores.log_softmax(dim=1).masked_fill(target == 0, 0.0)
        total = total - (target / target.sum(dim=1, keepdim=True) * log).sum(dim=1).mean() / 2
    return total
