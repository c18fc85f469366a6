"""Pictures and the sentences that describe them: what a converter learns from.

Which pairs these are decides what a few-shot result means. `fewshot_class`, the default, has the support pictures and
sentences of their classes and nothing else; everything else has seen more than the shots say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from fewshot.clip import Clip, unit
from fewshot.errors import FewshotError
from fewshot.paths import path_of
from fewshot.texts import domain_of, sentences

# name -> what the converter sees
PAIRS = {
    "fewshot_class": "the support pictures, each with the sentences of its class",
    "fewshot_captions": "the support pictures, each with captions of its own, written by people",
    "train_class": "ALL training pictures, each with the sentences of its class",
    "train_captions": "ALL training pictures, each with captions of its own, written by people",
    "disjoint_classes": "ALL training pictures of the first half of the classes, with the sentences of these",
    "cross_dataset": "the support pictures of another data set, with the sentences of its classes",
    "jsonl": "the pictures and texts of a file",
}
KEYS = ("pooled", "tokens", "tokens_projected", "chunks", "sentences")


class Pairs(NamedTuple):
    """N pictures; picture i goes with any text of lines[group[i]]; `by_class`: the texts describe classes."""

    images: object  # an Images
    labels: np.ndarray  # [N]
    lines: list[list[str]]
    group: np.ndarray  # [N]
    by_class: bool


def make_pairs(kind: str, method, support, lines: list[list[str]]) -> Pairs:
    """The pairs of that kind for a method (its data set, classes, shots, seed and Config); `lines` are its sentences."""
    c, names = method.config, method.classnames
    if kind == "cross_dataset":
        from fewshot.data import load_dataset

        task = load_dataset(_needs(c.pairs_from, kind, "the name of a data set")).task(method.shots, method.seed)
        task = task.without_test()
        more = sentences(task.dataset, task.classnames, "", c.name_policy, domain_of(task.template))
        return Pairs(task.train, task.train.labels, more, task.train.labels, True)
    if kind == "jsonl":
        return _from_jsonl(path_of(_needs(c.pairs_from, kind, "a .jsonl file")))
    images = support if kind.startswith("fewshot") else training_pictures(method.dataset, names)
    if kind == "disjoint_classes":
        images = images.subset(images.labels < (len(names) + 1) // 2)
    if not kind.endswith("captions"):
        return Pairs(images, images.labels, lines, images.labels, True)
    source = _needs(c.pairs_from, kind, "a folder of caption files or a .jsonl file")
    own = captions(path_of(source), images.ids)
    return Pairs(images, images.labels, own, np.arange(len(images)), False)


def training_pictures(dataset: str, classnames: Sequence[str]):
    """All training pictures of these classes, with their labels; validation and test pictures are not among them."""
    from fewshot.data import load_dataset

    whole = load_dataset(dataset)
    train, names = whole.train, whole.classnames
    del whole
    new = np.array([classnames.index(name) if name in classnames else -1 for name in names])[train.labels]
    kept = train.subset(new >= 0)
    return kept.relabel(new[new >= 0])


def captions(path: Path, ids: Sequence[str]) -> list[list[str]]:
    """The captions of each picture: lines {"image": id, "text": ..} of a file, or FOLDER/CLASS/PICTURE.txt of CUB's."""
    found: dict[str, list[str]] = {}
    if path.is_dir():
        for name in ids:
            file = path / Path(name).parent.name / f"{Path(name).stem}.txt"
            if file.is_file():
                found[name] = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        for line in _json_lines(path):
            found.setdefault(str(line["image"]), []).append(line["text"])
    for name in ids:
        if not found.get(name):
            raise FewshotError(f"{path} has no caption for the picture {name!r}; every picture of the pairs needs one.")
    return [found[name] for name in ids]


def _from_jsonl(path: Path) -> Pairs:
    from fewshot.data.images import ImageFiles

    texts: dict[str, list[str]] = {}
    labels: dict[str, object] = {}
    for line in _json_lines(path):
        texts.setdefault(str(line["image"]), []).append(line["text"])
        labels.setdefault(str(line["image"]), line.get("label", f"of {line['image']} alone"))
    number = {label: i for i, label in enumerate(dict.fromkeys(labels.values()))}
    each = np.array([number[label] for label in labels.values()], dtype=np.int64)
    return Pairs(ImageFiles(path.parent, list(texts), each), each, list(texts.values()), np.arange(len(texts)), False)


def _json_lines(path: Path) -> list[dict]:
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise FewshotError(f"the pairs {path} cannot be read ({error.strerror}); check pairs_from=.") from error
    except ValueError as error:
        raise FewshotError(f"{path} is not valid JSON line by line; write {{'image': .., 'text': ..}}.") from error
    if not lines or not all(isinstance(line, dict) and {"image", "text"} <= line.keys() for line in lines):
        raise FewshotError(f"{path} needs lines with 'image' and 'text'; write {{'image': .., 'text': ..}}.")
    return lines


def _needs(value: str, kind: str, what: str) -> str:
    if not value:
        raise FewshotError(f"pairs={kind!r} needs pairs_from=, {what}.")
    return value


_ENCODED: WeakKeyDictionary = WeakKeyDictionary()  # of each CLIP: the last lists of sentences and their features
LISTS = 4


def encoded(clip: Clip, lines: tuple[str, ...]) -> Tensor:
    """Unit features [n, D] of sentences; those of the last few lists are kept, since the runs of a grid share them."""
    kept = _ENCODED.setdefault(clip, {})
    if lines not in kept:
        kept[lines] = unit(clip.encode_text(clip.tokenize(list(lines))))
        if len(kept) > LISTS:
            del kept[next(iter(kept))]
    return kept[lines]


class Bank:
    """Sentences in groups (classes, or pictures), encoded once: unit features [n, D] and what a converter reads of them.

    `kind`: "pooled", the feature as one key; "chunks", cut in pieces; "tokens", the text encoder's states at all
    positions; "tokens_projected", those after the text projection; "sentences", all features of the group as a set.
    """

    @torch.no_grad()
    def __init__(self, clip: Clip, lines: Sequence[Sequence[str]], kind: str = "pooled", pieces: int = 8) -> None:
        self.kind, self.pieces = kind, pieces
        flat = [line for some in lines for line in some]
        self.features = encoded(clip, tuple(flat))
        counts = torch.tensor([len(some) for some in lines])
        self.group = torch.repeat_interleave(torch.arange(len(lines)), counts)  # [n]
        first = counts.cumsum(0) - counts
        rows = first[:, None] + torch.arange(int(counts.max()))
        self.members = rows.masked_fill(torch.arange(rows.shape[1]) >= counts[:, None], -1)  # [G, M], -1: none
        if kind.startswith("tokens"):
            tower, tokens = clip.require_text(f"kv={kind!r}"), clip.tokenize(flat)
            eot = tower.eot(tokens)
            tokens = tokens[:, : int(eot.max()) + 1]
            parts = [self._sequence(tower, part, tokens.shape[1]) for part in tokens.split(256)]
            self.sequence, self.mask = (torch.cat(some) for some in zip(*parts))

    def _sequence(self, tower, tokens: Tensor, length: int) -> tuple[Tensor, Tensor]:
        x, mask = tower.sequence(tokens)
        x = tower.project(x) if self.kind == "tokens_projected" else x
        missing = length - x.shape[1]
        return torch.nn.functional.pad(x, (0, 0, 0, missing)), torch.nn.functional.pad(mask, (0, missing))

    def width(self, clip: Clip) -> int:
        """The width of a key."""
        if self.kind == "tokens":
            return clip.text.width
        return clip.embed_dim // (self.pieces if self.kind == "chunks" else 1)

    def keys(self, rows: Tensor, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """Keys and values [B, L, w] of texts and their mask [B, L]; with rng a set is a random part of its group."""
        at = rows.to(self.features.device)
        if self.kind.startswith("tokens"):
            return self.sequence[at], self.mask[at]
        if self.kind == "sentences":
            members = self.members[self.group[rows]]
            if rng is not None:
                members = _some(members, rng)
            return self.set(members)
        t = self.features[at]
        return (t.unflatten(1, (self.pieces, -1)) if self.kind == "chunks" else t[:, None]), None

    def set(self, members: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [B, M, D] and mask of the texts with these rows [B, M] (-1: none)."""
        members = members.to(self.features.device)
        return self.features[members.clamp(min=0)], members >= 0


def _some(members: Tensor, rng: torch.Generator) -> Tensor:
    """A random number, one or more, of random members of each row."""
    count = (members >= 0).sum(dim=1)
    size = 1 + (torch.rand(len(members), generator=rng) * count).long()
    place = torch.rand(members.shape, generator=rng).masked_fill(members < 0, 2.0).argsort(dim=1).argsort(dim=1)
    return members.masked_fill(place >= size[:, None], -1)


def nearest(captions: Tensor, images: Tensor, texts: Tensor, top: int) -> Tensor:
    """Of the texts [N, M] of each picture the `top` that are nearest to it, [N, top] (-1: none)."""
    at = captions.clamp(min=0).to(texts.device)
    cos = (texts[at] @ images[:, :, None]).squeeze(-1).cpu().masked_fill(captions < 0, -2.0)
    best = cos.topk(min(top, captions.shape[1]), dim=1).indices
    return captions.gather(1, best)
