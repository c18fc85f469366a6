"""Top-1 accuracy of a model on pictures, and how far its confidence can be believed, under the evaluation view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewshot.errors import FewshotError
from fewshot.methods.method import Method

BINS = 15  # of equal width, as is usual for the expected calibration error (Guo et al. 2017)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """accuracy in percent over n pictures; predictions and labels int64 [n].

    `nll` is the mean negative log-likelihood in nats. `reliability` has a line per bin of confidence (the highest softmax
    value, bins of equal width over 0..1): pictures in it, the sum of their confidence, how many of them are right.
    """

    accuracy: float
    n: int
    predictions: np.ndarray
    labels: np.ndarray
    nll: float
    reliability: np.ndarray  # [BINS, 3]

    def __repr__(self) -> str:
        return f"{self.accuracy:.2f} % of {self.n} pictures"


@torch.no_grad()
def evaluate(model: Method, images, classes: Sequence[str] | None = None, *, batch_size: int = 256) -> Evaluation:
    """Accuracy on an Images. Image features are cached when the model takes features.

    `classes` are some of the model's classes: only these are scored, and the labels count among them (ImageNet-A and -R
    have 200 of ImageNet's classes). A name that occurs twice means its first class.
    Raises FewshotError when there are no pictures or their labels are not classes of the model.
    """
    if not hasattr(images, "labels"):
        raise FewshotError(
            f"evaluate needs labelled pictures, such as task.test, and got a {type(images).__name__}; model.predict takes "
            "pictures without labels."
        )
    labels = np.asarray(images.labels)
    columns = None
    if classes is not None:
        absent = [name for name in classes if name not in model.classnames]
        if absent:
            raise FewshotError(f"{absent[0]!r} is no class of this {model.title}; retarget it instead.")
        columns = [model.classnames.index(name) for name in classes]
    if len(labels) == 0:
        raise FewshotError("there are no pictures to evaluate on; give some, such as task.test.")
    known = len(model.classnames if columns is None else columns)
    if labels.min() < 0 or labels.max() >= known:
        raise FewshotError(
            f"the labels go up to {labels.max()} and the model knows {known} classes; evaluate it on its "
            "own task, or retarget it first."
        )
    was_training = model.training
    model.eval()
    try:
        parts = []
        for x in _inputs(model, images, batch_size):
            logits = model.logits(x)
            parts.append(logits if columns is None else logits[:, columns])
    finally:
        model.train(was_training)
    logits = torch.cat(parts).float().cpu()  # [n, C]
    if bad := int(logits.isnan().any(dim=-1).sum()):
        raise FewshotError(
            f"{model.title} gives {bad} of {len(labels)} pictures scores that are no numbers; fit it again with a lower lr."
        )
    predictions = logits.argmax(dim=-1).numpy()
    accuracy = 100 * float(np.mean(predictions == labels))
    nll = float(torch.nn.functional.cross_entropy(logits, torch.as_tensor(labels)))
    confidence = logits.softmax(dim=-1).amax(dim=-1).numpy()
    return Evaluation(accuracy, len(labels), predictions, labels, nll, _reliability(confidence, predictions == labels))


def _reliability(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return np.stack([np.bincount(bins, weights, BINS) for weights in (None, confidence, right)], axis=1)


def _inputs(model: Method, images, size: int) -> Iterator[Tensor]:
    from fewshot.data.features import image_features
    from fewshot.data.views import View, load_batch

    clip, view = model.clip, View()
    if model.needs == "features":
        for part in image_features(clip, images, view, batch_size=size).split(size):
            yield part.to(clip.device)
        return
    rows = [range(i, min(i + size, len(images))) for i in range(0, len(images), size)]
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(load_batch, images, rows[0], view, clip)
        for following in [*rows[1:], None]:
            x = coming.result()
            if following is not None:
                coming = pool.submit(load_batch, images, following, view, clip)
            yield x.to(clip.device)
