"""Looking at pictures and at what a model says about them: figures and small tables for notebooks."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from fewshot.errors import FewshotError
from fewshot.paths import path_of
from fewshot.report import Table, literal, use_style

SMALL = 32  # pixels; a picture with a shorter side has less to show than any CLIP looks at


def grid(images, indices: Sequence[int] | None = None, titles: Sequence[str] | None = None, columns: int = 8):
    """Pictures of an Images side by side, each scaled to its frame, as one JPEG (as SVG, photographs take megabytes)."""
    import matplotlib.pyplot as plt
    from IPython.display import Image

    use_style()
    indices = list(range(len(images)) if indices is None else indices)
    if not indices:
        raise FewshotError("there is no picture to show.")
    columns = min(columns, len(indices))
    lines = -(-len(indices) // columns)
    words = max((str(title).count("\n") + 1 for title in titles), default=0) if titles is not None else 0
    size = (1.25 * columns, (1.25 + 0.17 * words) * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False)
    gap = 0.05 + 0.17 * words / 1.25  # constrained layout would take seconds here
    figure.subplots_adjust(0.005, 0.005, 0.995, 1 - 0.17 * words / size[1] - 0.005, wspace=0.05, hspace=gap)
    for axis in axes.flat:
        axis.axis("off")
    for place, (axis, i) in enumerate(zip(axes.flat, indices)):
        picture = images.pil(int(i))
        picture.thumbnail((160, 160))
        axis.imshow(np.asarray(picture), interpolation="nearest" if max(picture.size) < 100 else None)
        if titles is not None:
            axis.set_title(literal(titles[place]), fontsize="x-small", pad=2)
    plt.close(figure)
    data = io.BytesIO()
    figure.savefig(data, format="jpeg", dpi=110, pil_kwargs={"quality": 80})
    return Image(data.getvalue(), format="jpeg", width=round(96 * size[0]))


def one_per_class(images, count: int = 1, seed: int = 0) -> list[int]:
    """Positions of up to `count` pictures of each class, drawn at random, class by class."""
    random = np.random.default_rng(seed)
    positions = []
    for label in np.unique(images.labels):
        own = np.flatnonzero(images.labels == label)
        positions += sorted(random.permutation(own)[:count].tolist())
    return positions


def answer(picture, chances, classnames: Sequence[str], top: int = 5):
    """One PIL picture beside the bars of its `top` likeliest classes; `chances` [C] sum to 1. Returns the Figure."""
    import matplotlib.pyplot as plt

    use_style()
    chances = np.asarray(chances)
    best = np.argsort(-chances, kind="stable")[:top][::-1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.3), width_ratios=(1, 2), layout="constrained")
    left.imshow(np.asarray(picture))
    left.axis("off")
    right.barh([literal(classnames[i].replace("_", " ")) for i in best], 100 * chances[best], color="#0072B2")
    right.set_xlim(0, 100)
    right.set_xlabel("probability in percent")
    right.grid(axis="y", visible=False)
    plt.close(figure)
    return figure


def survey(folder: str | os.PathLike) -> pd.DataFrame:
    """Every picture file below `folder`, read completely: file, class (its folder), part, width, height, mode, remark.

    `part` is the first folder of a path with more than two folders below `folder` (train, test ...), else "". A remark names
    what is odd: unreadable, very small, or the same bytes as another file. Raises FewshotError for a folder without pictures.
    """
    from fewshot.data.folders import EXTENSIONS

    root = path_of(folder)
    if not root.is_dir():
        raise FewshotError(f"the folder {root} does not exist (looked in {Path.cwd()}).")
    files = sorted(
        p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".") and p.is_file()
    )
    if not files:
        raise FewshotError(f"{root} holds no picture ({', '.join(EXTENSIONS)}).")
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(_read, files))
    frame = pd.DataFrame(read, columns=["width", "height", "mode", "bytes", "remark"])
    inside = [p.relative_to(root) for p in files]
    frame.insert(0, "file", [p.as_posix() for p in inside])
    frame.insert(1, "class", [p.parent.name or "(no class folder)" for p in inside])
    frame.insert(2, "part", [p.parts[0] if len(p.parts) > 2 else "" for p in inside])
    twin = frame.groupby("bytes")["file"].transform("first")
    same = (twin != frame["file"]) & (frame["remark"] == "")
    frame.loc[same, "remark"] = "the same file as " + twin[same]
    return frame.drop(columns="bytes")


def _read(path: Path) -> tuple:
    from PIL import Image

    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    try:
        with Image.open(path) as picture:
            picture.load()
            width, height = picture.size
            small = f"only {width} x {height} pixels" if min(width, height) < SMALL else ""
            return width, height, picture.mode, digest, small
    except Exception as error:  # PIL raises many kinds for broken files
        reason = "empty file" if not content else str(error).replace(f" {str(path)!r}", "").strip().splitlines()[0]
        return None, None, None, digest, f"unreadable: {reason}"


def sample_folder(dataset, folder: str | os.PathLike, per_class: int = 30) -> Path:
    """Write pictures of a Dataset as folder/class/number.png, once; for trying out what works on folders."""
    from fewshot.cache import atomic_write

    folder = Path(folder)
    for label, name in enumerate(dataset.classnames):
        for number, i in enumerate(np.flatnonzero(dataset.train.labels == label)[:per_class]):
            path = folder / name / f"{number:02d}.png"
            if not path.exists():
                with atomic_write(path) as partial:
                    dataset.train.pil(int(i)).save(partial)
    return folder


def interval(right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share of `right` out of `n`, in percent."""
    from scipy.stats import binomtest

    low, high = binomtest(int(right), int(n)).proportion_ci(confidence, method="wilson")
    return 100 * low, 100 * high


def accuracy_table(results: dict, seconds: dict | None = None) -> Table:
    """Method name -> Evaluation on the same pictures, as lines: right, accuracy, Wilson's interval, mean over the classes."""
    from fewshot.report import TITLES

    lines = {}
    for name, result in results.items():
        hits = result.predictions == result.labels
        low, high = interval(hits.sum(), result.n)
        by_class = np.mean([hits[result.labels == c].mean() for c in np.unique(result.labels)])
        lines[TITLES.get(name, name)] = {
            "right": f"{hits.sum()} of {result.n}",
            "accuracy": f"{result.accuracy:.1f}",
            "95 % interval": f"{low:.1f} – {high:.1f}",
            "mean over classes": f"{100 * by_class:.1f}",
        } | ({"seconds": f"{seconds[name]:.1f}"} if seconds else {})
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "method"
    table.caption = "Accuracy in percent on the test pictures; Wilson's interval for pictures drawn at random."
    return table


def confusions(result, classnames: Sequence[str], most: int = 10) -> pd.DataFrame:
    """The pairs of classes that are confused most: true class, predicted as, pictures, share of the true class in percent."""
    pairs = pd.DataFrame({"true": result.labels, "predicted": result.predictions})
    sizes = pairs["true"].value_counts()
    wrong = pairs[pairs["true"] != pairs["predicted"]].value_counts().reset_index(name="pictures")
    wrong = wrong.sort_values(["pictures", "true", "predicted"], ascending=[False, True, True]).head(most)
    share = [f"{100 * n / sizes[t]:.0f}" for t, n in zip(wrong["true"], wrong["pictures"])]
    names = {c: [classnames[i] for i in wrong[c]] for c in ("true", "predicted")}
    return pd.DataFrame(
        {"true class": names["true"], "predicted as": names["predicted"], "pictures": wrong["pictures"].to_numpy()}
        | {"percent of the class": share}
    )


def confusion_matrix(result, classnames: Sequence[str], most: int = 12):
    """The classes with the most mistakes against each other, as counts: lines are true, columns predicted. Returns the Figure."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    use_style()
    counts = np.zeros((len(classnames), len(classnames)), dtype=int)
    np.add.at(counts, (result.labels, result.predictions), 1)
    errors = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    chosen = sorted(np.argsort(-errors, kind="stable")[:most])
    names = [literal(classnames[i].replace("_", " ")) for i in chosen]
    side = 1.8 + 0.38 * len(chosen)
    figure, axis = plt.subplots(figsize=(side, side - 0.4), layout="constrained")
    sns.heatmap(counts[np.ix_(chosen, chosen)], annot=True, fmt="d", cmap="Blues", cbar=False, square=True,
                xticklabels=names, yticklabels=names, ax=axis)  # fmt: skip
    axis.set_xlabel("predicted")
    axis.set_ylabel("true class")
    plt.close(figure)
    return figure


def worst_mistakes(result, chances, most: int = 8) -> list[int]:
    """Positions of wrongly classified pictures, the most confident first; `chances` [N, C] as from predict_proba."""
    sure = np.asarray(chances).max(axis=1)
    wrong = np.flatnonzero(result.predictions != result.labels)
    return wrong[np.argsort(-sure[wrong], kind="stable")][:most].tolist()


def as_png(figure, dpi: int = 120):
    """The figure as a PNG for a notebook to show: many pictures weigh megabytes in an SVG. Closes the figure."""
    import io

    import matplotlib.pyplot as plt
    from IPython.display import Image

    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return Image(content.getvalue(), width=int(figure.get_figwidth() * 72))
