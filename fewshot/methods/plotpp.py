"""PLOT++ (Chen et al. 2023, and later code): a picture and a class are sets of features, matched by optimal transport.

A class is N text features t_i, one per learned prompt; a picture is M class-token features f_m, one per set of visual
prompts appended to its patches. With all of them at unit norm and sim_mi = <f_m, t_i>, for each picture and class

    T = diag(r) K diag(c),  K = exp(-(1 - sim) / eps),  rows of T sum to 1/M and columns to 1/N  (Sinkhorn, no gradient)
    logits = exp(logit_scale) sum_mi T_mi sim_mi

Stage "vision" trains the visual prompts, with exp(logit_scale) cos(mean f, mean t) added to the logits (the means are
taken before normalising); stage "joint" trains both kinds of prompts on the transport alone, which is also what is
evaluated. Both stages run for each seed, on its own shots; the authors' scripts run the first for seed 1 only and start
every seed from it. Mean cross-entropy. Constants: CHENGY12/PLOT, plot-pp/trainers/plotpp.py, train.py and scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fewshot.clip import unit
from fewshot.data.catalogue import known_as
from fewshot.errors import FewshotError
from fewshot.methods.coop import few_shot_epochs
from fewshot.methods.method import LATER, Method, Training, coop_lr

# What each text prompt starts from, in the authors' words; COMMON for Caltech101, StanfordCars and SUN397, and here for
# any data set without words of its own.
COMMON = ("a photo of a", "this is a photo", "this is picture of", "one picture of a")
TEMPLATES = {
    "imagenet": ("a photo of a", "this is a photo", "this is a", "one picture of a"),
    "dtd": ("a photo of a texture", "this is a photo texture", "this is a picture texture",
            "one picture of a texture"),
    "eurosat": ("a centered satellite photo of", "a centered satellite picture of",
                "this is centered satellite photo of", "one centered satellite photo of a"),
    "fgvc_aircraft": ("a photo of an aircraft", "a picture of an aircraft", "this is aircraft picture of",
             "one picture of an aircraft"),
    "food101": ("a photo of a food", "this is a food photo", "this is food picture of", "one picture of a food"),
    "oxford_flowers": ("a photo of a flower", "one picture of a flower", "this is flower picture of",
                       "one picture of a flower"),
    "oxford_pets": ("a photo of a pet", "one picture of a pet", "this is pet picture of", "one picture of a pet"),
    "ucf101": ("a photo of a person doing", "this is a photo people doing", "this is picture of people doing",
               "one picture of a person doing"),
}  # fmt: skip


@dataclass(frozen=True)
class Config(Training):
    n_prompts_text: int = 4  # N
    n_prompts_vision: int = 4  # M
    n_ctx_vision: int = 2  # vectors in each visual prompt
    n_ctx: int | None = None  # vectors in each text prompt; None: as many as the first template has words
    templates: tuple[str, ...] = ()  # words each text prompt starts from; (): the authors' for the data set
    eps: float = 0.1  # entropy of the transport; thresh changes its meaning with it
    max_iter: int = 100  # Sinkhorn iterations at most; 3 to 6 are usual
    thresh: float = 0.01  # mean change of r, over all pictures and classes of a call, at which the iterations stop
    chunk: int = 0  # classes per chunk in training; 0: as many as the memory budget holds, see TextTower.features
    precision: str = field(default="fp32", metadata=LATER)  # of the encoders' products; "bf16" is for GPUs


class PLOTpp(Method):
    name, title, paper = "plotpp", "PLOT++", "chen2023plot"
    needs = "images"
    drop_last = True
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        c = self.config
        tower, vision = clip.require_text(self.title), clip.require_vision(self.title)
        for name in ("n_prompts_text", "n_prompts_vision", "n_ctx_vision", "n_ctx", "max_iter"):
            value = getattr(c, name)
            if value is not None and value < 1:
                raise FewshotError(f"{name} of {self.name} must be 1 or more, not {value}.")
        if c.eps <= 0:
            raise FewshotError(f"eps of {self.name} must be above 0, not {c.eps:g}.")
        given = (c.templates,) if isinstance(c.templates, str) else c.templates
        self.templates = [t.replace("_", " ") for t in given or paper_templates(self.dataset)][: c.n_prompts_text]
        if len(self.templates) < c.n_prompts_text:
            raise FewshotError(
                f"{self.title} needs a template for each of its {c.n_prompts_text} text prompts and has "
                f"{len(self.templates)}; give as many templates, or lower n_prompts_text."
            )
        self.n = len(self.templates[0].split()) if c.n_ctx is None else c.n_ctx
        # positions 1..n whatever a template's length: the words of a longer one go on in the frozen part, and a shorter
        # one lends its end-of-text token
        with torch.no_grad():
            ctx = tower.embed(clip.tokenize(self.templates)[:, 1 : 1 + self.n])
        self.ctx = nn.Parameter(ctx.clone())  # [N, n, w]
        shape = (c.n_prompts_vision, c.n_ctx_vision, vision.width)
        self.ctx_vision = nn.Parameter(0.02 * torch.randn(shape, generator=self.rng("ctx_vision")).to(clip.device))
        self.pooled = False  # whether the logits have the pooled term
        self.set_classes(task.classnames)

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        tower, names = self.clip.text, [name.replace("_", " ") for name in classnames]
        prompts = [f"{template} {name}." for template in self.templates for name in names]  # prompt-major
        tokens = self.clip.tokenize(prompts)
        eot = tower.eot(tokens)
        if int(eot.min()) <= self.n:
            raise FewshotError(
                f"the prompt {prompts[int(eot.argmin())]!r} ends within the {self.n} learned vectors of {self.title}; "
                "give longer templates or a smaller n_ctx."
            )
        self.tokens = tokens[:, : int(eot.max()) + 1]
        self.constant("eot", eot.view(len(self.templates), -1))  # [N, C]
        self.constant("start", tower.embed(self.tokens[:1, :1]))  # [1, 1, w]
        self.constant("rest", tower.embed(self.tokens[:, 1 + self.n :]))  # [N * C, S, w]
        self.still: Tensor | None = None  # text features while ctx does not train

    def stages(self) -> tuple[str, ...]:
        return ("vision", "joint")

    def begin(self, stage: str) -> None:
        self.pooled = stage == "vision"
        self.ctx.requires_grad_(stage == "joint")
        with torch.no_grad():
            self.still = self.text_features() if self.pooled else None

    def text_features(self) -> Tensor:
        """[N, C, D], not normalised. The start token and the vectors of a prompt are run once for all classes."""
        tower, n = self.clip.text, len(self.ctx)
        prefix = torch.cat((self.start.expand(n, -1, -1), self.ctx), dim=1)
        chunk = self.config.chunk if torch.is_grad_enabled() else 0
        return tower.features(prefix, self.rest.unflatten(0, (n, -1)), self.eot, chunk=chunk)

    def image_features(self, x: Tensor) -> Tensor:
        """[M, B, D], not normalised: the pictures once per visual prompt."""
        # without gradients M runs of B/M pictures take no more memory than one of B
        size = len(x) if torch.is_grad_enabled() else -(-len(x) // len(self.ctx_vision))
        encode = self.clip.vision.encode
        return torch.cat([encode(part, prompts=self.ctx_vision) for part in x.split(size)], dim=1)

    def logits(self, x: Tensor) -> Tensor:
        c, scale = self.config, self.clip.logit_scale
        f, t = self.image_features(x), self.kept("text", self.text_features) if self.still is None else self.still
        logits = transport_logits(f, t, scale, c.eps, c.max_iter, c.thresh)
        return logits + pooled_logits(f, t, scale) if self.pooled else logits

    def epochs(self) -> int:
        """Of each stage: 50 for one shot, 100 for two and four, 200 above; 50 on ImageNet."""
        return few_shot_epochs(self.shots, self.dataset)

    def lr(self, step: int, steps: int, per_epoch: int) -> float:
        return coop_lr(self.config.lr, step // per_epoch, -(-steps // per_epoch))


def paper_templates(dataset: str) -> tuple[str, ...]:
    """The authors' templates of a data set, by its last name."""
    return TEMPLATES.get(known_as(dataset), COMMON)


def transport_logits(
    f: Tensor, t: Tensor, scale: float, eps: float = 0.1, max_iter: int = 100, thresh: float = 0.01
) -> Tensor:
    """[B, C] of image sets f [M, B, D] and text sets t [N, C, D], not normalised. The plan counts as a constant."""
    sim = torch.einsum("mbd,ncd->bcmn", unit(f), unit(t)).contiguous()
    plan, _ = sinkhorn(torch.exp(-(1 - sim.detach()) / eps), max_iter, thresh)
    return scale * (plan * sim).sum(dim=(-2, -1))


def pooled_logits(f: Tensor, t: Tensor, scale: float) -> Tensor:
    """[B, C] from the means of both sets, taken before they are normalised."""
    return scale * unit(f.mean(dim=0)) @ unit(t.mean(dim=0)).t()


@torch.no_grad()
def sinkhorn(kernel: Tensor, max_iter: int = 100, thresh: float = 0.01, look: int | None = None) -> tuple[Tensor, int]:
    """Plans T = diag(r) K diag(c) of kernels K [.., M, N] with uniform marginals, and the number of iterations.

    c is set last, so the columns of a plan sum to 1/N exactly and its rows to 1/M nearly. ONE test stops all problems
    of the call: the mean of |r - r before| over all of them. A plan thus depends on what it is solved together with.
    Whether it has stopped is looked up every `look` iterations (None: each, or the tenth on a GPU, which a look makes
    wait); those made too many change nothing.
    """
    m, n = kernel.shape[-2:]
    r, c = kernel.new_ones(*kernel.shape[:-1], 1), kernel.new_ones(*kernel.shape[:-2], n, 1)
    going, count = torch.ones((), dtype=torch.bool, device=kernel.device), torch.zeros((), device=kernel.device)
    look = look or (10 if kernel.is_cuda else 1)
    for i in range(max_iter):
        if i % look == 0 and not going:
            break
        new = 1 / m / (kernel @ c)
        change = (new - r).abs().mean()
        r = torch.where(going, new, r)
        c = torch.where(going, 1 / n / (kernel.mT @ r), c)
        count += going
        going = going & (change >= thresh)
    plan = r * kernel * c.mT
    if bool(plan.isnan().any()):
        raise FewshotError(
            "a transport plan of PLOT++ is not a number: a feature is not finite, or exp(-(1 - cosine) / eps) "
            "vanished; lower lr, or raise eps."
        )
    return plan, int(count)


def plot_logits(tokens: Tensor, t: Tensor, scale: float, *, add_global: bool = False, **settings) -> Tensor:
    """The head of PLOT (v1): [B, C] of the tokens [1 + M, B, D] of a picture, global feature first, and t [N, C, D].

    The M local features are matched with the N prompts; on ImageNet the authors add the logits of the global one.
    """
    logits = transport_logits(tokens[1:], t, scale, **settings)
    return logits + pooled_logits(tokens[:1], t, scale) if add_global else logits
