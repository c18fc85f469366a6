"""The reference path: what the authors' programs compute in a step, with none of this package's savings.

All of them run CLIP's own blocks on all 77 positions of every class, and on every token of every picture. A method is
the same class on either path; only the towers of its Clip are others here, so both must give the same numbers:

- PlainText: each prompt written out in full, no position cut, no prefix shared, the last block as whole as the others;
- PlainVision: all tokens through the last block;
- PlainBranch: a low-rank matrix is multiplied out, B A [w, w], and q, k and v are three products each way.

The authors' half precision is not imitated: both paths run in the same one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.clip import Block, Clip, TextTower, VisionTower
from fewshot.lora import Branch


def reference(clip: Clip, piece: int = 160) -> Clip:
    """The same weights behind plain towers. Text passes of more than `piece` prompts go in pieces, see PlainText."""
    plain = copy.copy(clip)
    plain.text = PlainText(clip.text.module, piece)
    plain.vision = PlainVision(clip.vision.module)
    return plain


class PlainBlock(Block):
    """A block with CLIP's own activation, x * sigmoid(1.702 x), and each low-rank matrix multiplied out."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.quick = False

    def __call__(self, x: Tensor, *, adapter=None, **settings):
        return super().__call__(x, adapter=PlainBranch(adapter) if isinstance(adapter, Branch) else adapter, **settings)


class PlainBranch:
    """Of a Branch, as loralib has it: M x + b + s (B A) drop(x), one product for each of q, k and v."""

    def __init__(self, branch: Branch) -> None:
        self.branch = branch
        self.scale = branch.scale * (1 - branch.dropout)  # F.dropout divides by it

    def project(self, h: Tensor, attn: nn.Module, parts: str) -> Sequence[Tensor]:
        weights, biases = attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3)
        return [self._linear(h, weights["qkv".index(m)], biases["qkv".index(m)], m) for m in parts]

    def out(self, o: Tensor, attn: nn.Module) -> Tensor:
        return self._linear(o, attn.out_proj.weight, attn.out_proj.bias, "o")

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor, name: str) -> Tensor:
        y = F.linear(x, weight, bias)
        if name not in self.branch.at:
            return y
        i = self.branch.at[name]
        product = self.branch.b[i] @ self.branch.a[i]  # [w, w]
        return y + self.scale * F.linear(F.dropout(x, self.branch.dropout), product)


def run_block(block: PlainBlock, x: Tensor, adapter, mask: Tensor | None = None) -> Tensor:
    """A block as open_clip runs it, or by hand where something is adapted."""
    if adapter is None:
        return block.module(x, attn_mask=mask)
    return block(x, mask=mask, adapter=adapter)


class PlainText(TextTower):
    """Every class in full: 77 positions, all blocks whole.

    The activations of a thousand classes take tens of gigabytes. So more than `piece` prompts go one piece after the
    other, each forward and backward at once. For that the gradient of the features has to be known beforehand: it is
    noted in a first step, outside the clock, and given from then on. Nothing is computed twice inside the clock.
    With `cut` the positions behind the longest prompt are left out: the first of the savings, for the ablation.
    """

    def __init__(self, module: nn.Module, piece: int, cut: bool = False) -> None:
        super().__init__(module)
        self.blocks = [PlainBlock(b.module) for b in self.blocks]
        self.piece, self.cut = piece, cut
        self.budget = float("inf")  # no pieces but those here
        self.given: dict[int, list[Tensor]] = {}  # number of a piece -> gradients, one per backward pass
        self.count = 0  # pieces of the present step so far

    def run(self, prefix, suffix: Tensor, eot: Tensor, *, deep=None, adapters=None) -> Tensor:
        """Features [G*K, D], as TextTower.run gives them."""
        n = len(suffix)
        x, ends = joined(prefix, suffix), eot.repeat(n // len(eot))
        if not self.cut:
            padding = self.embed(x.new_zeros(n, self.module.context_length - x.shape[1], dtype=torch.long))
            x = torch.cat((x, padding), dim=1)
        if n <= self.piece or deep or adapters is not None:
            return self.whole(x, ends, deep, adapters)
        pieces = list(enumerate(zip(x.split(self.piece), ends.split(self.piece), strict=True), start=self.count))
        self.count += len(pieces)
        return torch.cat([Piece.apply(self, i, *each) for i, each in pieces])

    def whole(self, x: Tensor, ends: Tensor, deep=None, adapters=None) -> Tensor:
        """Features [N, D] of embeddings [N, L, w]."""
        length = x.shape[1]
        mask = self.module.attn_mask[:length, :length].to(x.dtype)
        x = x + self.module.positional_embedding[:length]
        for i, block in enumerate(self.blocks):
            if deep and i in deep:
                new = deep[i].expand(len(x), *deep[i].shape[-2:])
                x = torch.cat((x[:, :1], new, x[:, 1 + new.shape[1] :]), dim=1)
            x = run_block(block, x, adapters[i] if adapters is not None else None, mask)
        x = self.module.ln_final(x)
        return self.project(x[torch.arange(len(x), device=x.device), ends])


def joined(prefix: Tensor | None, suffix: Tensor) -> Tensor:
    """[G*K, P + S, w]: every suffix [G*K, S, w] behind its own copy of its prefix [G, P, w]."""
    if prefix is None:
        return suffix
    return torch.cat((prefix.repeat_interleave(len(suffix) // len(prefix), dim=0), suffix), dim=1)


class Unshared(TextTower):
    """This package's tower without the shared prefix, for the ablation."""

    def run(self, prefix, suffix: Tensor, eot: Tensor, **settings) -> Tensor:
        return super().run(None, joined(prefix, suffix), eot, **settings)


class Piece(torch.autograd.Function):
    """Features of one piece. Without a given gradient it is noted; with it, forward and backward happen at once."""

    @staticmethod
    def forward(ctx, tower: PlainText, number: int, x: Tensor, ends: Tensor) -> Tensor:
        ctx.tower, ctx.number, ctx.shape = tower, number, x.shape
        given = tower.given.get(number)
        if given is None or not ctx.needs_input_grad[2]:
            ctx.ready = None
            return tower.whole(x, ends)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            out = tower.whole(x, ends)
            last = len(given) - 1
            ctx.ready = [torch.autograd.grad(out, x, g, retain_graph=i < last)[0] for i, g in enumerate(given)]
        return out.detach()

    @staticmethod
    def backward(ctx, grad: Tensor):
        if ctx.ready is None:
            ctx.tower.given.setdefault(ctx.number, []).append(grad.clone())
            return None, None, grad.new_zeros(ctx.shape), None
        given = ctx.tower.given[ctx.number][len(ctx.tower.given[ctx.number]) - len(ctx.ready)]
        if float((grad - given).abs().max()) > 1e-3 * float(given.abs().max()):
            raise RuntimeError("the gradient of the features is not the one that was given; note it again")
        return None, None, ctx.ready.pop(0), None


class PlainVision(VisionTower):
    """Every token of every picture through every block."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.blocks = [PlainBlock(b.module) for b in self.blocks]

    def encode(self, pixels: Tensor, *, adapters=None, prompts: Tensor | None = None, deep=None) -> Tensor:
        """Features [B, D], or [M, B, D] with M sets of prompts, as VisionTower.encode gives them."""
        x = self.embed(pixels)
        sets, count = () if prompts is None else prompts.shape[:-2], len(x)
        if prompts is not None:
            new = prompts.unsqueeze(-3).expand(*sets, count, -1, -1)
            x = torch.cat((x.expand(*sets, -1, -1, -1), new), dim=-2).flatten(0, -3)
        x = self.module.ln_pre(x)
        for i, block in enumerate(self.blocks):
            if deep and i in deep:
                new = deep[i].expand(len(x), *deep[i].shape[-2:])
                x = torch.cat((x[:, : -new.shape[1]], new), dim=1)
            x = run_block(block, x, adapters[i] if adapters is not None else None)
        x = self.module.ln_post(x[:, 0]).view(*sets, count, -1)
        return x if self.module.proj is None else x @ self.module.proj
