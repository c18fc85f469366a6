"""Tip-Adapter (Zhang et al. 2022): a cache of the support features votes beside the zero-shot classifier.

logits = 100 f W^T + alpha exp(-beta (1 - f K^T)) V, with f a unit-norm image feature, W the zero-shot classifier,
K [N, D] the support features (mean of ten augmented views, then unit norm) and V [N, C] their one-hot labels.
Here, as in the authors' code, alpha weighs the cache and beta sharpens it; the paper swaps the letters in places.
Nothing is trained. Constants: gaopengcuhk/Tip-Adapter, configs/*.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewshot.clip import unit
from fewshot.data.catalogue import known_as
from fewshot.errors import FewshotError, unknown
from fewshot.methods.method import LATER, Method
from fewshot.methods.zero_shot import SENTENCES, sentence_weights

# data set: (end of the search of beta, of alpha), (beta, alpha) before any search; set by hand by the authors
PAPER = {
    "imagenet": ((7, 3), (1, 1.17)),
    "caltech101": ((12, 5), (1, 3)),
    "dtd": ((13, 13), (1, 2)),
    "eurosat": ((12, 10), (1, 2)),
    "fgvc_aircraft": ((30, 30), (1, 5)),
    "food101": ((10, 10), (1, 1.17)),
    "oxford_flowers": ((50, 50), (1, 10)),
    "oxford_pets": ((7, 3), (1, 1.17)),
    "stanford_cars": ((20, 10), (1, 3)),
    "sun397": ((12, 10), (1, 1.17)),
    "ucf101": ((7, 3), (1, 3)),
}
MANY = 4096  # keys


def paper_setting(dataset: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """The authors' search range and initial (beta, alpha) of a data set, by its last name; ImageNet's for any other."""
    return PAPER.get(known_as(dataset), PAPER["imagenet"])


@dataclass(frozen=True)
class Config:
    alpha: float | None = None  # weight of the cache; None: the authors' value for the data set
    beta: float | None = None  # sharpness; None: the authors' value for the data set
    search_scale: tuple[float, float] | None = None  # ends of the search of (beta, alpha); None: the authors'
    search_step: tuple[int, int] = (200, 20)  # number of betas and of alphas
    augment_epoch: int = 10  # augmented views averaged in each key
    scale: tuple[float, float] = (0.5, 1.0)  # share of the area that a random crop takes
    # what W is made of: "task", the template; "sentences" or "named_sentences", what ships about the classes
    texts: str = field(default="task", metadata=LATER)


class TipAdapter(Method):
    name, title, paper = "tip_adapter", "Tip-Adapter", "zhang2022tip"
    selection = "fewval"
    trained = False
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        c = self.config
        scale, (beta, alpha) = paper_setting(task.dataset)
        self.search_scale = c.search_scale or scale
        self.alpha = alpha if c.alpha is None else c.alpha
        self.beta = beta if c.beta is None else c.beta
        if len(self.search_scale) != 2 or len(c.search_step) != 2 or min(c.search_step) < 1 or c.augment_epoch < 1:
            raise FewshotError(
                f"{self.name} needs pairs (beta, alpha) in search_scale and search_step, and one view or more."
            )
        if c.texts not in ("task", *SENTENCES):
            raise unknown(f"texts of {self.name}", c.texts, ("task", *SENTENCES))
        self.make_cache(0)
        self.set_classes(task.classnames)

    def make_cache(self, n: int) -> None:
        self.register_buffer("keys", torch.empty(n, self.clip.embed_dim, device=self.clip.device))  # [N, D]
        self.register_buffer("labels", torch.empty(n, dtype=torch.int64, device=self.clip.device))  # [N]

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        if self.config.texts in SENTENCES:
            weights = sentence_weights(self, classnames, self.config.texts)
        else:
            weights = self.clip.zero_shot_weights(classnames, self.template)
        self.constant("weights", weights)  # [C, D]

    def retarget(self, classnames: Sequence[str]) -> Method:
        return self.refuse_retarget(classnames, "its cache holds pictures of the old ones")

    def prepare(self, support) -> None:
        from fewshot.data.features import image_features
        from fewshot.data.views import View

        views = [View("train", epoch, self.seed, self.config.scale) for epoch in range(self.config.augment_epoch)]
        features = [image_features(self.clip, support, v, progress=False) for v in views]
        self.fill(features, torch.as_tensor(support.labels))

    def fill(self, views: Sequence[Tensor], labels: Tensor) -> None:
        """Build the cache from raw features [N, D] of each augmented view: mean first, unit norm after."""
        keys = unit(torch.stack(list(views)).mean(dim=0)).to(self.clip.device)
        self.set_keys(keys)
        self.labels = labels.to(self.clip.device)

    def set_keys(self, keys: Tensor) -> None:
        self.keys = keys

    def affinity(self, f: Tensor) -> Tensor:
        """K f^T [N, B] of unit features f [B, D]."""
        (n, d), b = self.keys.shape, len(f)
        # few pictures and thousands of keys: in parts both the product and its gradient take half the time
        parts = math.gcd(n, 32) if n > MANY else 1
        return torch.bmm(self.keys.view(parts, n // parts, d), f.t().expand(parts, d, b)).view(n, b)

    def cache_logits(self, affinity: Tensor, beta: float) -> Tensor:
        """exp(-beta (1 - affinity))^T V [B, C] of an affinity [N, B]: a sum over the shots of a class, not a mean."""
        votes = torch.exp(beta * affinity - beta)
        # added up by class: N numbers each instead of a product with N C zeros
        return votes.new_zeros(len(self.classnames), votes.shape[1]).index_add(0, self.labels, votes).t()

    def logits(self, x: Tensor) -> Tensor:
        f = unit(x)
        return 100.0 * f @ self.weights.t() + self.alpha * self.cache_logits(self.affinity(f), self.beta)

    @torch.no_grad()
    def choose(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        f = unit(features.to(self.clip.device))
        accuracies, betas, alphas = self.search(f, labels.to(f.device))
        best = int(accuracies.flatten().argmax())  # the first of equals: smaller beta, then smaller alpha
        return self.adopt({"beta": betas[best // len(alphas)], "alpha": alphas[best % len(alphas)]})

    def adopt(self, chosen: dict[str, float]) -> dict[str, float]:
        self.beta, self.alpha = chosen["beta"], chosen["alpha"]
        return super().adopt(chosen)

    def search(self, f: Tensor, labels: Tensor) -> tuple[Tensor, list[float], list[float]]:
        """Accuracy (percent) [betas, alphas] on unit features f [N, D], and the two grids (their ends not reached)."""
        betas, alphas = (grid(end, n) for end, n in zip(self.search_scale, self.config.search_step, strict=True))
        zero_shot, affinity = 100.0 * f @ self.weights.t(), self.affinity(f)
        right = []
        for beta in betas:
            cache = self.cache_logits(affinity, beta)  # one product serves all the alphas
            right += [((zero_shot + alpha * cache).argmax(dim=-1) == labels).sum() for alpha in alphas]
        accuracy = torch.stack(right).double().cpu() * (100 / len(labels))
        return accuracy.view(len(betas), len(alphas)), betas, alphas


def grid(end: float, n: int) -> list[float]:
    """0.1 + i (end - 0.1) / n for i = 0..n-1."""
    return [i * (end - 0.1) / n + 0.1 for i in range(n)]
