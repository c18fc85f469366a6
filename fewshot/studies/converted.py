"""A fitted converter: what it has seen, and where it puts the sentences."""

from __future__ import annotations

import numpy as np

from fewshot.clip import unit
from fewshot.curves import WIDTH
from fewshot.report import use_style


def seen(model, task, dataset) -> dict[str, int]:
    """How many pictures the converter of a fitted model learned from, and of which part of the data set they are.

    `extra`: training pictures that are not among the shots, whose labels nobody has asked for.
    """
    saw, support = set(model.saw), set(task.train.ids)
    return {
        "converter saw": len(saw),
        "of the support": len(saw & support),
        "test pictures": len(saw & set(dataset.test.ids)),
        "validation pictures": len(saw & set(dataset.val.ids)),
        "extra training pictures": len(saw & (set(dataset.train.ids) - support)),
    }


def closeness(model, images) -> dict[str, float]:
    """Mean cosine of the first sentence of each class, converted, to pictures of its class and to the others."""
    from fewshot.data.features import image_features

    features = model.features(image_features(model.clip, images, progress=False).to(model.clip.device))
    made, labels = model.converted(1)
    cos = (made @ features.t()).cpu().numpy()
    own = labels.cpu().numpy()[:, None] == np.asarray(images.labels)
    return {"own class": float(cos[own].mean()), "other classes": float(cos[~own].mean())}


def gap_figure(model, images, texts: int = 5, title: str = ""):
    """Pictures, sentences and converted sentences on the two main axes of all of them; each in the colour of its class."""
    import matplotlib.pyplot as plt
    import torch

    from fewshot.data.features import image_features

    pictures = unit(image_features(model.clip, images, progress=False)).cpu()
    sentences, converted = model.texts(texts), model.converted(texts)
    parts = {
        "pictures": (pictures, np.asarray(images.labels), "o"),
        "sentences": (sentences[0].cpu(), sentences[1].cpu().numpy(), "x"),
        "converted": (converted[0].cpu(), converted[1].cpu().numpy(), "^"),
    }
    points, shares = project(torch.cat([x for x, _, _ in parts.values()]))
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 4.2), layout="constrained")
    start = 0
    for name, (x, labels, marker) in parts.items():
        some = points[start : start + len(x)]
        axis.scatter(some[:, 0], some[:, 1], c=labels, cmap="tab20", marker=marker, s=18, linewidths=0.9, label=name)
        start += len(x)
    axis.set(xlabel=f"first axis ({shares[0]:.0%} of the variance)", ylabel=f"second axis ({shares[1]:.0%})")
    axis.legend()
    axis.set_title(title or f"{model.dataset}, {model.config.converter}")
    plt.close(figure)
    return figure


def project(x) -> tuple[np.ndarray, np.ndarray]:
    """The two principal components of rows [n, D], and their shares of the variance."""
    x = np.asarray(x, float)
    u, s, vt = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    signs = np.sign(vt[np.arange(2), np.abs(vt[:2]).argmax(axis=1)])  # a direction has no sign of its own
    return u[:, :2] * s[:2] * signs, s[:2] ** 2 / (s**2).sum()
