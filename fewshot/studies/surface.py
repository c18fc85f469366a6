"""One fitted Tip-Adapter looked at closely: accuracy over all pairs of beta and alpha, and with a smaller cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from fewshot.clip import unit
from fewshot.curves import WIDTH
from fewshot.errors import FewshotError
from fewshot.evaluation import evaluate
from fewshot.methods.tip_adapter import TipAdapter
from fewshot.report import Table, _cell, _signed, literal, use_style

LOOKS = {  # of the marked pairs: marker, colour, size
    "initial (the authors')": ("X", "#E69F00", 9),
    "best on validation": ("o", "#FFFFFF", 9),
    "best on the test": ("*", "#D81B60", 14),
}
SPAN = 10  # points of accuracy that the colours of a heat map tell apart
DROPPED, MERGED = "the others left out", "groups averaged"


@torch.no_grad()
def surface(model: TipAdapter, images) -> pd.DataFrame:
    """Accuracy in percent on an Images for every pair of the search: a table beta (lines) x alpha (columns).

    Works for Tip-Adapter and Tip-Adapter-F; the model stays as it is.
    """
    f, labels = _features(model, images)
    accuracies, betas, alphas = model.search(f, labels)
    return pd.DataFrame(accuracies.numpy(), pd.Index(betas, name="beta"), pd.Index(alphas, name="alpha"))


def best_pair(table: pd.DataFrame) -> tuple[float, float]:
    """(beta, alpha) of the highest accuracy; the first of equals, as in the search: smaller beta, then smaller alpha."""
    place = int(table.to_numpy().argmax())
    return float(table.index[place // table.shape[1]]), float(table.columns[place % table.shape[1]])


@torch.no_grad()
def pair_accuracy(model: TipAdapter, images, beta: float, alpha: float) -> float:
    """Accuracy in percent with one pair, which need not be of the search; the model stays as it is."""
    f, labels = _features(model, images)
    logits = 100.0 * f @ model.weights.t() + alpha * model.cache_logits(model.affinity(f), beta)
    return 100 * float((logits.argmax(dim=-1) == labels).double().mean())


def pairs(model: TipAdapter, val, test) -> pd.DataFrame:
    """Three pairs on both sets of pictures: index pair, columns beta, alpha, validation, test, top (pairs as good on validation).

    The initial pair is the model's own, so it must have been fitted with fixed settings. `top` is the share of all pairs
    of the search, in percent, that are at least as good on validation.
    """
    on_val, on_test = surface(model, val), surface(model, test)
    found = zip(LOOKS, ((model.beta, model.alpha), best_pair(on_val), best_pair(on_test)), strict=True)
    lines = {}
    for name, (beta, alpha) in found:
        v, t = (pair_accuracy(model, images, beta, alpha) for images in (val, test))
        top = 100 * float((on_val.to_numpy() >= v - 1e-9).mean())
        lines[name] = {"beta": beta, "alpha": alpha, "validation": v, "test": t, "top": top}
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("pair")


def pair_table(found: pd.DataFrame, what: str) -> Table:
    """`pairs` to read; `what` begins the caption."""
    best = found["test"].iloc[-1]
    table = Table(
        {
            "beta": [f"{b:.2f}" for b in found["beta"]],
            "alpha": [f"{a:.2f}" for a in found["alpha"]],
            "accuracy on validation": [f"{v:.1f}" for v in found["validation"]],
            "accuracy on test": [f"{v:.1f}" for v in found["test"]],
            "below the best on test": [_signed(v - best) for v in found["test"]],
            "pairs at least as good on validation": [f"{v:.1f} %" for v in found["top"]],
        },
        index=found.index,
    )
    table.caption = f"{what}: one fitted model, three pairs of settings; accuracy in percent. Measured by this page."
    return table


def distance(found: pd.DataFrame, on_val: pd.DataFrame, on_test: pd.DataFrame) -> str:
    """How far the pair chosen on validation is from the best on test, and whether the range ends there, in sentences.

    `found` as `pairs` returns it, the others as `surface` does.
    """
    chosen, best = found.loc["best on validation"], found.loc["best on the test"]
    said = [
        f"Chosen on validation: beta {chosen['beta']:.2f}, alpha {chosen['alpha']:.2f}. Best on the test: beta "
        f"{best['beta']:.2f}, alpha {best['alpha']:.2f}. In steps of the search they are {_steps(on_val.index, chosen, best)}"
        f" (beta) and {_steps(on_val.columns, chosen, best)} (alpha) apart.",
        f"On the test the chosen pair is {best['test'] - chosen['test']:.1f} points below the best.",
        f"Of {on_val.size} pairs {_ties(on_val)} are as good on validation as the chosen one, which is the first of them; "
        f"on the test {_ties(on_test)} as good as the best.",
    ]
    edge = [name for name, axis in (("beta", on_val.index), ("alpha", on_val.columns)) if chosen[name] == axis[-1]]
    if edge:
        said.append(
            f"The chosen {' and '.join(edge)} is the last that is tried: a wider range might hold a better pair."
        )
    return "\n".join(said)


def _ties(table: pd.DataFrame) -> int:
    return int((table.to_numpy() >= table.to_numpy().max() - 1e-9).sum())


def _steps(axis: pd.Index, one: pd.Series, other: pd.Series) -> str:
    places = [int(abs(axis.to_numpy() - pair[axis.name]).argmin()) for pair in (one, other)]
    return f"{abs(places[0] - places[1])} of {len(axis) - 1}"


def heat_maps(on_val: pd.DataFrame, on_test: pd.DataFrame, found: pd.DataFrame, title: str = ""):
    """`surface` on validation and on test with the three pairs of `pairs`. Returns the matplotlib Figure (closed).

    Each panel has its own scale: the SPAN points below its maximum; what is lower has the darkest colour.
    """
    import matplotlib.pyplot as plt

    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.9), sharey=True, layout="constrained")
    for axis, (name, table) in zip(axes, {"validation": on_val, "test": on_test}.items(), strict=True):
        high = float(table.to_numpy().max())
        mesh = axis.pcolormesh(
            table.columns,
            table.index,
            table,
            cmap="cividis",
            vmin=high - SPAN,
            vmax=high,
            shading="nearest",
            rasterized=True,
        )
        for pair, (marker, colour, size) in LOOKS.items():
            at = found.loc[pair, "alpha"], found.loc[pair, "beta"]
            axis.plot(
                *at, marker=marker, color=colour, markersize=size, markeredgecolor="black", markeredgewidth=1,
                linestyle="", label=pair, clip_on=False, zorder=3,
            )  # fmt: skip
        axis.set(title=name, xlabel="alpha: weight of the cache")
        axis.grid(visible=False)
        bar = figure.colorbar(mesh, ax=axis, orientation="horizontal", extend="min", shrink=0.9)
        bar.set_label("accuracy in percent", fontsize="small")
    axes[0].set_ylabel("beta: sharpness")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(literal(title), fontsize="small", color="#444444")
    plt.close(figure)
    return figure


# a smaller cache


def smaller(model: TipAdapter, size: int, how: str, draw: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys [C size, D] and labels of a cache with `size` keys per class, made of a model's larger one.

    DROPPED keeps `size` keys of a class, drawn at random; MERGED deals all of them into `size` groups and takes the unit-norm
    mean of each. Raises FewshotError for a class with fewer keys.
    """
    rng = np.random.default_rng(draw)
    keys, labels = [], []
    for label in torch.unique(model.labels):
        own = torch.nonzero(model.labels == label).flatten().cpu().numpy()
        if not 1 <= size <= len(own):
            raise FewshotError(f"a class has {len(own)} keys in the cache; ask for 1 to {len(own)}, not {size}.")
        groups = np.array_split(rng.permutation(own), size)
        if how == DROPPED:
            groups = [group[:1] for group in groups]
        keys += [unit(model.keys[torch.as_tensor(group)].mean(dim=0)) for group in groups]
        labels += [label] * size
    return torch.stack(keys), torch.stack(labels)


@torch.no_grad()
def smaller_caches(model: TipAdapter, val, test, sizes: Sequence[int], draws: int = 3) -> pd.DataFrame:
    """Test accuracy with fewer keys per class: columns how, size, draw, accuracy; beta and alpha searched on `val` each time.

    With all keys there is nothing to draw, and one line. For the training-free method; the model ends as it was.
    """
    full, lines = (model.keys, model.labels), []
    most = int(torch.bincount(model.labels).max())
    (f, labels), original = _features(model, val), (model.beta, model.alpha, model.chosen)
    try:
        for how in (DROPPED, MERGED):
            for size in sizes:
                for draw in range(1 if size == most else draws):
                    model.keys, model.labels = full
                    model.keys, model.labels = smaller(model, size, how, draw)
                    model.choose(f, labels)
                    lines.append((how, size, draw, float(evaluate(model, test).accuracy)))
    finally:
        model.keys, model.labels = full
        model.beta, model.alpha, model.chosen = original
    return pd.DataFrame(lines, columns=["how", "size", "draw", "accuracy"])


def cache_table(found: pd.DataFrame, shots: Mapping[int, float], what: str) -> Table:
    """`smaller_caches` by size, beside as many shots (accuracy by number of shots, from rows). `what` begins the caption."""
    lines = {}
    for size in sorted(found["size"].unique()):
        line = {}
        for how in (DROPPED, MERGED):
            a = found[(found["size"] == size) & (found["how"] == how)]["accuracy"]
            line[how] = _cell(a.mean(), a.std(ddof=0), len(a)) if len(a) else "–"
        line["as many shots (mean of the seeds)"] = f"{shots[size]:.1f}" if size in shots else "not run"
        lines[str(size)] = line
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "keys per class"
    table.caption = (
        f"{what}: accuracy in percent, mean ± population standard deviation over draws of the keys (number of draws); "
        "the settings searched anew on the same validation pictures. Measured by this page, but for the last column."
    )
    return table


def _features(model: TipAdapter, images) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit features [N, D] and labels [N] on the model's device."""
    from fewshot.data.features import image_features

    features = unit(image_features(model.clip, images, progress=False).to(model.clip.device))
    return features, torch.as_tensor(images.labels).to(features.device)
