"""TaskRes (Yu et al. 2023): a learned residual is added to the frozen text classifier.

t'_c = t_c + alpha x_c, logits[i, c] = exp(logit_scale) <f_i/|f_i|, t'_c/|t'_c|>; mean cross-entropy. Only x [C, D] trains,
from zero. t_c is the mean over templates of text features that are not normalised, of names with their underscores.
Constants: geekyutao/TaskRes, trainers/taskres.py, train_regular.sh; the weight decay of Adam: KaiyangZhou/Dassl.pytorch.
base="enhanced" is TaskRes*: t_c = W s_c, with s_c the text encoder's state before its projection and W [D, w] a
fine-tuned projection. How the authors made their W is not published. It comes from a file, or from a recipe of our own:
W alone, from CLIP's, on the same support pictures; see `projection_from`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.clip import unit
from fewshot.data.catalogue import known_as
from fewshot.errors import FewshotError, unknown
from fewshot.methods.method import Method, Training, coop_lr, cosine_lr
from fewshot.methods.zero_shot import ENSEMBLE
from fewshot.paths import path_of

BASES = ("regular", "enhanced")


@dataclass(frozen=True)
class Config(Training):
    alpha: float | None = None  # scale of the residual; None: 0.5, and 1 on OxfordFlowers
    base: str = "regular"  # "regular", or "enhanced" for TaskRes*
    enhanced: str | None = None  # .safetensors file with "weight" [D, w] for the enhanced base; None: our own recipe
    lr: float | None = None  # None: 2e-3, and 2e-4 on ImageNet
    weight_decay: float = 5e-4  # added to the gradient (Adam, not AdamW)
    batch_size: int = 256
    # our recipe for W, chosen on validation pictures of the toy world; lr in units of the root mean square of CLIP's W
    projection_lr: float = 0.01
    projection_epochs: int = 100


class TaskRes(Method):
    name, title, paper = "taskres", "TaskRes", "yu2023taskres"
    drop_last = True
    head = True
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        c = self.config
        if c.base not in BASES:
            raise unknown("base of taskres", c.base, BASES)
        if c.enhanced is not None and c.base != "enhanced":
            raise FewshotError(
                f"{self.name} reads the file enhanced= only for base='enhanced'; say so, or leave it out."
            )
        if c.projection_epochs < 0 or c.projection_lr < 0:
            raise FewshotError(f"projection_lr and projection_epochs of {self.name} must be 0 or more.")
        imagenet = known_as(self.dataset) == "imagenet"
        flowers = known_as(self.dataset) == "oxford_flowers"
        self.alpha = (1.0 if flowers else 0.5) if c.alpha is None else c.alpha
        self.peak_lr = (2e-4 if imagenet else 2e-3) if c.lr is None else c.lr
        self.templates = (*ENSEMBLE, self.template) if imagenet else (self.template,)
        self.enhanced = c.base == "enhanced"
        if self.enhanced:
            self.title = "TaskRes*"
            if not isinstance(clip.require_text(self.title).module.text_projection, Tensor):
                raise FewshotError(f"{self.title} replaces the text projection, and {clip.name} has no such matrix.")
        self.set_classes(task.classnames)
        self.residual = nn.Parameter(torch.zeros_like(self.base))  # [C, D]

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        prompts = [t.replace("{}", name) for name in classnames for t in self.templates]  # underscores stay

        def mean(rows: Tensor) -> Tensor:
            return rows.view(len(classnames), len(self.templates), -1).mean(dim=1)

        with torch.no_grad():
            if self.enhanced:
                tower, tokens = self.clip.text, self.clip.tokenize(prompts)
                self.constant("states", mean(torch.cat([tower.states(part) for part in tokens.split(256)])))  # [C, w]
                base = tower.project(self.states)
            else:
                base = mean(self.clip.encode_text(prompts))
        self.register_buffer("base", base, persistent=self.enhanced)  # [C, D], not normalised

    def retarget(self, classnames: Sequence[str]) -> Method:
        return self.refuse_retarget(classnames, "it learns one residual per class")

    def learned(self) -> int:
        """The residual, and the projection behind an enhanced base, wherever that was learned."""
        return self.residual.numel() + (self.clip.embed_dim * self.clip.text.width if self.enhanced else 0)

    def prepare(self, support) -> None:
        if self.enhanced:
            path = self.config.enhanced
            self.enhance(self.projection_from(support) if path is None else self.read_projection(path))

    @torch.no_grad()
    def enhance(self, weight: Tensor) -> None:
        """Base features under the text projection weight [D, w]."""
        self.base.copy_(self.states @ weight.to(self.states).t())

    def projection_from(self, support) -> Tensor:
        """[D, w]: CLIP's text projection after Adam steps on the cross-entropy of the support pictures, seen once each.

        A recipe of this package; the authors' is not published. The states before the projection are constant, so that
        a step costs two small matrix products. lr falls as a cosine to zero; no weight decay.
        """
        from fewshot.data.features import image_features

        c, clip, order = self.config, self.clip, self.rng("projection")
        f = unit(image_features(clip, support, progress=False).to(clip.device))
        labels = torch.as_tensor(support.labels).to(clip.device)
        weight = nn.Parameter(clip.text.module.text_projection.detach().t().clone())
        peak = c.projection_lr * float(weight.detach().square().mean().sqrt())
        optimizer = torch.optim.Adam([weight], lr=peak)
        for epoch in range(c.projection_epochs):
            optimizer.param_groups[0]["lr"] = cosine_lr(peak, epoch, c.projection_epochs)
            for rows in torch.randperm(len(f), generator=order).to(f.device).split(c.batch_size):
                logits = clip.logit_scale * f[rows] @ unit(self.states @ weight.t()).t()
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(logits, labels[rows]).backward()
                optimizer.step()
        return weight.detach()

    def read_projection(self, path: str) -> Tensor:
        """The matrix of a file. Raises FewshotError when it is missing, damaged, or not [D, w]."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        shape = [self.clip.embed_dim, self.clip.text.width]
        if not path_of(path).is_file():
            raise FewshotError(f"the projection {path} of {self.title} does not exist; check enhanced=.")
        try:
            tensors = load_file(path_of(path))
        except (SafetensorError, OSError) as error:
            raise FewshotError(f"{path} is damaged or no .safetensors file; {self.title} needs one.") from error
        weight = tensors.get("weight")
        if weight is None or list(weight.shape) != shape:
            found = "no such tensor" if weight is None else f"it is {list(weight.shape)}"
            raise FewshotError(f"{self.title} needs a tensor 'weight' {shape} in {path}, but {found} there.")
        return weight

    def logits(self, x: Tensor) -> Tensor:
        t = self.kept("text", lambda: unit(self.base + self.alpha * self.residual))
        return self.clip.logit_scale * unit(x) @ t.t()

    def epochs(self) -> int:
        """100 up to four shots, 200 above."""
        return 100 if self.shots is not None and self.shots <= 4 else 200

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.peak_lr, weight_decay=self.config.weight_decay, fused=True)

    def lr(self, step: int, steps: int, per_epoch: int) -> float:
        return coop_lr(self.peak_lr, step // per_epoch, -(-steps // per_epoch))
