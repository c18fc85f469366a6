"""Linear-probe CLIP (Radford et al. 2021; the few-shot protocol of CoOp): logistic regression on raw image features.

logits = x coef^T + intercept, minimising |coef|^2 / 2 + C sum_i CE_i with L-BFGS, from zero, without any text.
C: a sweep over seven powers, then eight steps of a search between 0.1 and 10 times the best, on validation accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewshot.errors import FewshotError
from fewshot.methods.method import Method

SWEEP = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)  # in this order: the first best wins, that is the largest C


@dataclass(frozen=True)
class Config:
    C: float = 0.316  # used when nothing is selected: the value of OpenAI's README
    max_iter: int = 1000
    search_steps: int = 8


class Fit(NamedTuple):
    coef: np.ndarray  # [C, D] float64
    intercept: np.ndarray  # [C]
    n_iter: int

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        return float(np.mean((features @ self.coef.T + self.intercept).argmax(axis=1) == labels))


class Step(NamedTuple):
    """One step of the search: the interval at which both ends were fitted, and the end that survived."""

    left: float
    right: float
    C: float
    fit: Fit


class LinearProbe(Method):
    name, title, paper = "linear_probe", "Linear-probe CLIP", "radford2021clip"
    selection = "fewval"
    trained = False
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        if not self.config.C > 0:
            raise FewshotError(f"C of linear_probe must be above 0, not {self.config.C}.")
        count = len(task.classnames)
        self.register_buffer("coef", torch.zeros(count, clip.embed_dim, device=clip.device))
        self.register_buffer("intercept", torch.zeros(count, device=clip.device))
        self.support: tuple[np.ndarray, np.ndarray] | None = None
        self.set_classes(task.classnames)

    def learned(self) -> int:
        return self.coef.numel() + self.intercept.numel()

    def retarget(self, classnames: Sequence[str]) -> Method:
        return self.refuse_retarget(classnames, "it learns one weight vector per class")

    def prepare(self, support) -> None:
        from fewshot.data.features import image_features

        # float64: in float32 the chosen C changes in one run of ten
        self.support = image_features(self.clip, support).double().numpy(), np.asarray(support.labels)
        self._use(self._fit(self.config.C))

    def choose(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        if self.support is None:
            raise FewshotError("the linear probe has no support features to refit C on; select right after fit.")
        validation = features.double().cpu().numpy(), labels.cpu().numpy()
        last = search(self._fit, validation, self.config.search_steps)[-1]
        self._use(last.fit)
        return self.adopt({"C": last.C})

    def _fit(self, C: float) -> Fit:
        return logistic(*self.support, C=C, classes=len(self.classnames), max_iter=self.config.max_iter)

    def _use(self, fit: Fit) -> None:
        self.coef.copy_(torch.from_numpy(fit.coef))
        self.intercept.copy_(torch.from_numpy(fit.intercept))

    def logits(self, x: Tensor) -> Tensor:
        return x @ self.coef.t() + self.intercept


def logistic(features: np.ndarray, labels: np.ndarray, *, C: float, classes: int, max_iter: int = 1000) -> Fit:
    """scikit-learn's LogisticRegression (L-BFGS, L2, default tolerance) on features [N, D] float64, labels [N].

    A class without an example gets the score -inf; two classes are written as softmax([0, z]), which is sigmoid(z).
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present = np.unique(labels)
    coef, intercept = np.zeros((classes, features.shape[1])), np.full(classes, -np.inf)
    if len(present) == 1:  # nothing to separate
        intercept[present] = 0.0
        return Fit(coef, intercept, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter is part of the protocol
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # few shots look like regression
        model = LogisticRegression(C=C, max_iter=max_iter).fit(features, labels)
    if len(present) == 2:
        coef[present], intercept[present] = [np.zeros_like(model.coef_[0]), model.coef_[0]], [0.0, model.intercept_[0]]
    else:
        coef[present], intercept[present] = model.coef_, model.intercept_
    return Fit(coef, intercept, int(model.n_iter_[0]))


def search(fit: Callable[[float], Fit], validation: tuple[np.ndarray, np.ndarray], steps: int = 8) -> list[Step]:
    """CoOp's search for C after the sweep; the survivor of the last step is the result.

    Both ends of the interval are fitted at each step. The better end survives, the left one on a tie, and the other
    end moves to the geometric mean. No interior point is ever tried by itself. Fits are kept by C, so a C that comes
    back costs nothing.
    """
    fits: dict[float, Fit] = {}

    def accuracy(c: float) -> float:
        if c not in fits:
            fits[c] = fit(c)
        return fits[c].accuracy(*validation)

    best = SWEEP[int(np.argmax([accuracy(c) for c in SWEEP]))]
    left, right = 0.1 * best, 10 * best
    trace = []
    for _ in range(steps):
        middle = float(10 ** ((np.log10(left) + np.log10(right)) / 2))
        if accuracy(left) < accuracy(right):
            trace.append(Step(left, right, right, fits[right]))
            left = middle
        else:
            trace.append(Step(left, right, left, fits[left]))
            right = middle
    return trace
