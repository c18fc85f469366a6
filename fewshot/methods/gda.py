"""GDA (Wang et al. 2024): Gaussian discriminant analysis on unit features, added to the zero-shot logits.

Let the features of class c be normal with mean mu_c and a covariance S shared by all classes, all classes equally
likely. Then log p(c | f) = -(f - mu_c)^T S^-1 (f - mu_c) / 2 + const, and f^T S^-1 f is the same for every class:
    score_c(f) = w_c f + b_c,    w_c = S^-1 mu_c,    b_c = -mu_c^T S^-1 mu_c / 2,
a linear classifier that takes no gradient step. With N samples, A = sum_i (f_i - mu_{y_i}) (f_i - mu_{y_i})^T and
trace(A) / (N - 1) the sum of the variances, the inverse is shrunk towards a multiple of the identity,
    S^-1 = D pinv(A + trace(A) / (N - 1) I),
and logits = 100 f T^T + alpha (f W^T + b), T the zero-shot classifier. Constants: mrflogs/ICLR24, main_few_shots.py.

Only differences between classes count. W and b are kept with their means over the classes taken off: where the samples
hardly vary, what all classes share can be 1e8, and float32 would have no digit left for what tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot.clip import unit
from fewshot.errors import FewshotError
from fewshot.methods.cross_modal_probe import hand_crafted
from fewshot.methods.method import Method
from fewshot.methods.zero_shot import ENSEMBLE

ALPHAS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)  # in this order: the first best wins, that is the smallest
ROUNDING = 1e-12  # a mean squared distance to the class mean below this is no variation but float32's last digit


@dataclass(frozen=True)
class Config:
    alpha: float = 1.0  # weight of the Gaussian scores when nothing is selected; at 1 they are log-likelihoods
    augment_epoch: int = 10  # augmented views of each picture, every one a sample of its own
    scale: tuple[float, float] | None = None  # share of the area of a random crop; None: (0.5, 1), ImageNet (0.08, 1)


class GDA(Method):
    name, title, paper = "gda", "GDA", "wang2024gda"
    selection = "fewval"
    trained = False
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        if self.config.augment_epoch < 1:
            raise FewshotError(f"{self.name} needs one view or more, not augment_epoch={self.config.augment_epoch}.")
        self.templates = hand_crafted(task.dataset, task.template)
        self.alpha = self.config.alpha
        count, width = len(task.classnames), clip.embed_dim
        self.register_buffer("weight", torch.zeros(count, width, device=clip.device))  # W [C, D]
        self.register_buffer("bias", torch.zeros(count, device=clip.device))  # b [C]
        self.set_classes(task.classnames)

    def learned(self) -> int:
        return self.weight.numel() + self.bias.numel()

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self.constant("text", self.clip.zero_shot_weights(classnames, self.templates))  # T [C, D]

    def retarget(self, classnames: Sequence[str]) -> Method:
        return self.refuse_retarget(classnames, "it holds the mean of each of the old ones")

    def prepare(self, support) -> None:
        from fewshot.data.features import image_features
        from fewshot.data.views import View

        imagenet = self.templates == ENSEMBLE
        scale = self.config.scale or ((0.08, 1.0) if imagenet else (0.5, 1.0))
        views = (View("train", epoch, self.seed, scale) for epoch in range(self.config.augment_epoch))
        features = (image_features(self.clip, support, view, progress=False) for view in views)
        self.estimate(features, torch.as_tensor(support.labels))

    def estimate(self, views: Iterable[Tensor], labels: Tensor) -> None:
        """W and b from the raw features [n, D] of each view and the labels [n]; one view at a time is in memory."""
        count, width = self.weight.shape
        total = torch.zeros(count, width, dtype=torch.float64)  # sums per class
        second = torch.zeros(width, width, dtype=torch.float64)  # sum of f f^T
        seen = torch.zeros(count, dtype=torch.float64)
        for features in views:
            f = unit(features.cpu()).double()  # float64: the two sums are about to be subtracted
            total.index_add_(0, labels, f)
            second += f.t() @ f
            seen += torch.bincount(labels, minlength=count)
        if seen.min() == 0:
            missing = self.classnames[int(seen.argmin())]
            raise FewshotError(f"{self.title} needs a picture of every class, and there is none of {missing!r}.")
        means, n = total / seen[:, None], float(seen.sum())
        scatter = second - total.t() @ means  # A
        weight = torch.zeros_like(means)
        if float(scatter.trace()) > ROUNDING * n:  # else A = 0, whose pseudo-inverse is 0: what is left is zero-shot
            shrunk = scatter + scatter.trace() / (n - 1) * torch.eye(width)
            weight = width * torch.linalg.solve(shrunk, means.t()).t()
        bias = -(weight * means).sum(dim=1) / 2
        self.weight, self.bias = (weight - weight.mean(dim=0)).to(self.weight), (bias - bias.mean()).to(self.bias)

    @torch.no_grad()
    def choose(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        f, labels = unit(features.to(self.clip.device)), labels.to(self.clip.device)
        zero_shot, gaussian = self.parts(f)
        best, alpha = 0, 0.1  # the authors' answer when nothing is right
        for candidate in ALPHAS:
            right = int(((zero_shot + candidate * gaussian).argmax(dim=-1) == labels).sum())
            if right > best:
                best, alpha = right, candidate
        return self.adopt({"alpha": alpha})

    def adopt(self, chosen: dict[str, float]) -> dict[str, float]:
        self.alpha = chosen["alpha"]
        return super().adopt(chosen)

    def parts(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Zero-shot logits and Gaussian scores [B, C] of unit features [B, D]."""
        return 100.0 * f @ self.text.t(), f @ self.weight.t() + self.bias

    def logits(self, x: Tensor) -> Tensor:
        zero_shot, gaussian = self.parts(unit(x))
        return zero_shot + self.alpha * gaussian
