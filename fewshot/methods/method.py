"""What every method is: its tensors, its logits, its loss, and how it is saved, loaded and asked.

A method file adds the idea. A trained method also says how it is trained (`Training` fields in its Config, `epochs`,
`optimizer`, `lr`); `fewshot.fit` runs the loop.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.clip import PRECISIONS, Clip
from fewshot.errors import FewshotError, unknown
from fewshot.paths import path_of

FORMAT = (
    "fewshot-method-1"  # of saved files: the number after the last hyphen rises with a change that older code misreads
)


LATER = {"later": True}  # metadata of a Config field that came after rows had been stored


@dataclass(frozen=True)
class Training:
    """How a method is trained; each method's Config gives the values of its paper."""

    lr: float = 0.002  # peak learning rate
    weight_decay: float = 5e-4
    batch_size: int = 32
    epochs: int | None = None  # passes over the support set; None: the paper's rule
    iterations: int | None = None  # steps; overrides epochs
    scale: tuple[float, float] = (0.08, 1.0)  # share of the area that a random crop takes
    views: int | None = None  # None: a new augmented view per epoch, as the papers; k: epoch e sees view e mod k


@dataclass(frozen=True)
class Names:
    """The part of a task that a saved method needs: no pictures."""

    dataset: str
    classnames: tuple[str, ...]
    template: str
    shots: int | None = None
    seed: int = 1


class Method(nn.Module):
    """Base class. A subclass sets the class variables, makes its tensors in `__init__` and defines `logits`.

    `clip` is shared and never edited. Parameters are what trains; persistent buffers are saved with them; what follows
    from the class names (prompts, class weights) is recomputed by `set_classes` and not saved.
    """

    name: ClassVar[str]
    title: ClassVar[str]  # as the paper spells it
    paper: ClassVar[str]  # key in references.bib
    needs: Literal["features", "images"] = "features"  # what `logits` takes
    selection: ClassVar[Literal["fixed", "fewval"]] = "fixed"  # how the headline number chooses hyper-parameters
    trained: ClassVar[bool] = True  # by gradient steps in `fit`
    sees_support: ClassVar[bool] = True  # False: no training picture is looked at
    saves_encoder: ClassVar[bool] = False  # its file holds an image encoder of its own: megabytes, not kilobytes
    head: ClassVar[bool] = False  # gradient steps on features, with the `loss` below: many such runs train as one stack
    drop_last: ClassVar[bool] = False  # drop the incomplete last batch when there is a complete one
    Config: ClassVar[type] = Training

    def __init__(self, clip: Clip, task, config=None, *, seed: int | None = None) -> None:
        super().__init__()
        self.config = self.Config() if config is None else config
        self.clip = clip.cast(getattr(self.config, "precision", "fp32"))
        self.seed = task.seed if seed is None else seed
        self.dataset, self.template, self.shots = task.dataset, task.template, task.shots
        self.classnames: tuple[str, ...] = ()
        self.chosen: dict[str, float] = {}  # hyper-parameters that a selection has chosen
        self.history: list[float] = []  # mean training loss per interval, filled by fit
        self._kept: dict[str, tuple[tuple, Any]] = {}

    def __init_subclass__(cls, **options) -> None:
        """What `logits` is given is looked at first, in every method."""
        super().__init_subclass__(**options)
        if "logits" in vars(cls):
            cls.logits = _checked(cls.logits)

    # what a subclass defines

    def set_classes(self, classnames: Sequence[str]) -> None:
        """Recompute everything that follows from the class names alone."""
        self.classnames = tuple(classnames)
        self._kept.clear()

    def prepare(self, support) -> None:
        """Build caches and closed forms from the support pictures (an Images)."""

    def logits(self, x: Tensor) -> Tensor:
        """[B, D] un-normalised features or [B, 3, S, S] pixels, by `needs`, to class scores [B, C]."""
        raise NotImplementedError

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the logits with labels [B]."""
        return F.cross_entropy(self.logits(x), labels)

    def backward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Fill the gradients and return the detached loss."""
        loss = self.loss(x, labels)
        loss.backward()
        return loss.detach()

    def choose(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        """Set the hyper-parameters that are best on these features [N, D] and labels [N]; nothing by default."""
        return {}

    def adopt(self, chosen: dict[str, float]) -> dict[str, float]:
        """Use hyper-parameters that a selection has chosen, here or before the method was saved."""
        self.chosen = chosen
        return chosen

    def learned(self) -> int:
        """How many numbers are learned: those of the parameters, unless a method learns its buffers."""
        return sum(p.numel() for p in self.parameters())

    # training settings

    def stages(self) -> tuple[str, ...]:
        """The parts of the training in order; each runs the whole loop, with an optimiser and a schedule of its own."""
        return ("",)

    def begin(self, stage: str) -> None:
        """Called before each stage: set which parameters train and what the logits are; nothing by default."""

    def epochs(self) -> int:
        """The paper's number of passes over the support set."""
        raise NotImplementedError

    def iterations(self, per_epoch: int) -> int:
        """Number of steps: from the config, or the paper's rule."""
        if self.config.iterations is not None:
            return self.config.iterations
        return per_epoch * (self.epochs() if self.config.epochs is None else self.config.epochs)

    def optimizer(self) -> torch.optim.Optimizer:
        """SGD as in CoOp: momentum 0.9, no Nesterov."""
        c = self.config
        return torch.optim.SGD(self.parameters(), lr=c.lr, momentum=0.9, weight_decay=c.weight_decay)

    def lr(self, step: int, steps: int, per_epoch: int) -> float:
        """Learning rate of 0-based step `step` of `steps`."""
        return self.config.lr

    # other classes, predictions

    def retarget(self, classnames: Sequence[str]) -> Method:
        """The same learned tensors for other classes, in place.

        Raises FewshotError where what was learned belongs to the classes it was learned on.
        """
        self.set_classes(check_classnames(classnames))
        return self

    def refuse_retarget(self, classnames: Sequence[str], what: str) -> Method:
        """For methods that learn something per class: only the very same classes are possible."""
        if tuple(classnames) == self.classnames:
            return self
        raise FewshotError(
            f"{self.title} cannot change its classes, {what}; fit it on a task that has all the classes you need."
        )

    @torch.no_grad()
    def predict_proba(self, images) -> Tensor:
        """Class probabilities [N, C] on the CPU, softmax of the logits.

        `images`: an Images, PIL images, paths, or preprocessed pixels [N, 3, S, S].
        """
        was_training = self.training
        self.eval()
        try:
            parts = [self.logits(x).float().softmax(dim=-1).cpu() for x in self._inputs(images)]
        finally:
            self.train(was_training)
        return torch.cat(parts) if parts else torch.empty(0, len(self.classnames))

    def predict(self, images) -> list[str]:
        """The class name of each picture; see predict_proba for what `images` may be."""
        return [self.classnames[i] for i in self.predict_proba(images).argmax(dim=-1).tolist()]

    def _inputs(self, images, batch_size: int = 256) -> Iterable[Tensor]:
        from fewshot.data.views import View, load_batch

        if isinstance(images, Tensor):
            self.clip.check_pixels(images)
        else:
            images = as_images(images)
        for start in range(0, len(images), batch_size):
            rows = range(start, min(start + batch_size, len(images)))
            tensor = isinstance(images, Tensor)
            x = images[start : rows.stop] if tensor else load_batch(images, rows, View(), self.clip)
            x = x.to(self.clip.device)
            yield self.clip.encode_image(x) if self.needs == "features" else x

    # small tools for subclasses

    def rng(self, purpose: str) -> torch.Generator:
        """A CPU generator of its own for each purpose, decided by the seed and the name of the purpose."""
        digest = hashlib.sha256(f"{self.seed} {purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

    def constant(self, name: str, value: Tensor) -> None:
        """Keep a tensor that moves with the module and is not saved."""
        self.register_buffer(name, value.detach().to(self.clip.device), persistent=False)

    def kept(self, name: str, compute: Callable[[], Any]) -> Any:
        """compute(), kept while evaluating without gradients until a parameter changes; always computed in training."""
        if self.training or torch.is_grad_enabled():
            return compute()
        state = tuple((p.data_ptr(), p._version) for p in self.parameters())
        if name not in self._kept or self._kept[name][0] != state:
            self._kept[name] = (state, compute())
        return self._kept[name][1]

    def train(self, mode: bool = True) -> Method:
        if mode:
            self._kept.clear()
        return super().train(mode)

    # files

    def save(self, path: str | Path) -> Path:
        """Write the method's own tensors and what is needed to use them again; kilobytes, unless it `saves_encoder`."""
        from safetensors.torch import save_file

        from fewshot.cache import writing

        meta = dict(
            format=FORMAT, method=self.name, config=asdict(self.config), classnames=self.classnames,
            dataset=self.dataset, template=self.template, shots=self.shots, seed=self.seed,
            clip=self.clip.name, clip_fingerprint=self.clip.fingerprint, chosen=self.chosen,
        )  # fmt: skip
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in self.state_dict().items()}
        path = path_of(path)
        with writing(path) as temporary:
            save_file(tensors, temporary, metadata={"fewshot": json.dumps(meta)})
        return path

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take the tensors of a file; their shapes may differ from those made for a task without pictures."""
        own = self.state_dict()
        if own.keys() != tensors.keys():
            odd = min(own.keys() ^ tensors.keys())
            raise FewshotError(f"the file does not hold the tensors of {self.title} ({odd!r}); save it again.")
        for name, value in tensors.items():
            module, _, attribute = name.rpartition(".")
            module = self.get_submodule(module)
            value = value.to(self.clip.device)
            if attribute in module._parameters:
                module._parameters[attribute] = nn.Parameter(value, module._parameters[attribute].requires_grad)
            else:
                module._buffers[attribute] = value


def _checked(logits: Callable[[Method, Tensor], Tensor]) -> Callable[[Method, Tensor], Tensor]:
    @functools.wraps(logits)
    def checked(self: Method, x: Tensor) -> Tensor:
        if self.needs == "images":
            self.clip.check_pixels(x)
        else:
            self.clip.check_features(x)
        return logits(self, x)

    return checked


def load_method(path: str | Path, clip: Clip) -> Method:
    """A saved method on its CLIP, in eval mode.

    Raises FewshotError when the file is missing or no saved method, or was learned on other weights than `clip`'s.
    """
    from safetensors import SafetensorError, safe_open

    path = path_of(path)
    if not path.is_file():
        raise FewshotError(f"the saved method {path} does not exist.")
    try:
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {}).get("fewshot", "null"))
            # cloned: a tensor that lies in the file as it comes is not aligned, and some kernels round by alignment
            tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise FewshotError(f"{path} is damaged or not a method that fewshot saved; save it again.") from error
    kind, _, number = str(meta.get("format") if isinstance(meta, dict) else "").rpartition("-")
    if kind != FORMAT.rpartition("-")[0]:
        raise FewshotError(f"{path} is not a method that fewshot saved; save one with model.save(path).")
    if f"{kind}-{number}" != FORMAT:
        raise FewshotError(f"{path} was saved by a newer fewshot (format {number}); update the package.")
    try:
        model = _rebuilt(path, clip, meta, tensors)
    except FewshotError:
        raise
    except Exception as error:  # the header lacks something, or holds something else
        raise FewshotError(f"{path} does not hold what a saved method holds; save it again.") from error
    return model.eval()


def _rebuilt(path: Path, clip: Clip, meta: dict, tensors: dict[str, Tensor]) -> Method:
    from fewshot.methods import get_method

    if meta["clip_fingerprint"] != clip.fingerprint:
        raise FewshotError(
            f"{path} was learned on {meta['clip']} ({meta['clip_fingerprint']}), not on {clip.name} "
            f"({clip.fingerprint}); load that CLIP."
        )
    cls = get_method(meta["method"])
    names = Names(meta["dataset"], tuple(meta["classnames"]), meta["template"], meta["shots"], meta["seed"])
    model = cls(clip, names, make_config(cls, meta["config"]))
    model.restore(tensors)
    if meta["chosen"]:
        model.adopt(meta["chosen"])
    return model


def make_config(cls: type[Method], given: dict[str, Any]):
    """The method's Config with the given fields. Raises FewshotError for a field it does not have, or a bad value."""
    known = {f.name: f for f in fields(cls.Config)}
    for key, value in given.items():
        if key not in known:
            raise unknown(f"setting of {cls.name}", key, known)
        if isinstance(value, list):  # from JSON or YAML
            given = {**given, key: tuple(value)}
    config = replace(cls.Config(), **given)
    for key in ("epochs", "iterations", "batch_size", "views"):
        value = getattr(config, key, None)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise FewshotError(f"{key} of {cls.name} must be a whole number from 1 on, not {value!r}.")
    if getattr(config, "precision", "fp32") not in PRECISIONS:
        raise unknown(f"precision of {cls.name}", config.precision, PRECISIONS)
    for key in ("lr", "weight_decay"):
        value = getattr(config, key, 0.0)
        if value is None and getattr(cls.Config(), key) is None:  # the method's own rule
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise FewshotError(f"{key} of {cls.name} must be a number from 0 on, not {value!r}.")
    return config




def settings_of(config) -> dict[str, Any]:
    """The fields of a Config by name; one that came LATER is left out at its default, as in the rows from before."""
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    return {f.name: values[f.name] for f in fields(config) if not (f.metadata == LATER and values[f.name] == f.default)}


def check_classnames(classnames: Sequence[str]) -> tuple[str, ...]:
    if isinstance(classnames, str) or not all(isinstance(n, str) and n.strip() for n in classnames):
        raise FewshotError("classnames must be a sequence of names, one string per class and none of them empty.")
    names = tuple(classnames)
    if not names:
        raise FewshotError("there are no classes; give at least one class name.")
    return names


def as_images(images):
    """An Images, or PIL images or paths as one (labels 0)."""
    from PIL import Image

    from fewshot.data.images import ImageFiles, Images

    if isinstance(images, Images):
        return images
    single = isinstance(images, (str, Path, Image.Image)) or not hasattr(images, "__iter__")
    items = [images] if single else list(images)
    if all(isinstance(i, (str, Path)) for i in items):
        paths = [str(path_of(i)) for i in items]
        return ImageFiles(Path(""), paths, np.zeros(len(items), dtype=np.int64), upright=True)
    if all(isinstance(i, Image.Image) for i in items):
        return _Pictures(items)
    raise FewshotError("give pictures as an Images, as PIL images, as paths, or as preprocessed pixels [N, 3, S, S].")


class _Pictures:
    """PIL images, upright, behind the two things that a view needs."""

    threads = False

    def __init__(self, pictures: Sequence) -> None:
        self.pictures, self.ids = pictures, tuple(str(i) for i in range(len(pictures)))

    def __len__(self) -> int:
        return len(self.pictures)

    def pil(self, i: int):
        from fewshot.data.images import rgb

        return rgb(self.pictures[i], f"number {i}", upright=True)


def cosine_lr(peak: float, step: int, steps: int, floor: float = 0.0) -> float:
    """The closed form of CosineAnnealingLR(T_max=steps, eta_min=floor) at 0-based step `step`."""
    return floor + (peak - floor) * (1 + math.cos(math.pi * step / steps)) / 2


def coop_lr(peak: float, epoch: int, epochs: int, warmup: float = 1e-5) -> float:
    """CoOp's schedule: one epoch at a constant `warmup`, then a cosine that starts at its top and is cut off one early.

    lr(0) = 1e-5; lr(j) = peak (1 + cos(pi (j - 1) / T)) / 2 for j = 1..T-1 (KaiyangZhou/Dassl.pytorch).
    """
    return warmup if epoch == 0 else peak * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2
