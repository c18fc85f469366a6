"""Low-rank branches on the attention of one encoder, applied from outside while that encoder runs.

M x + b becomes M x + b + s drop(x) A^T B^T for the chosen matrices M of q, k, v, o; s = alpha / sqrt(r), dropout on the
input of the branch only and drawn for each matrix by itself (MaxZanella/CLIP-LoRA). Nothing is installed in the model:
`adapters()` gives one object per block, to be handed to the encoder for one call, so many LoRAs can share one CLIP.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.clip import Block, project
from fewshot.errors import FewshotError, unknown
from fewshot.packing import Ragged

MATRICES = "qkvo"


class LowRank(nn.Module):
    """A [layers, matrices, r, w] and B [layers, matrices, w, r] of the adapted layers of one encoder.

    One tensor for all layers: an optimizer step is then two kernels instead of two per matrix.
    """

    def __init__(
        self, blocks: Sequence[Block], layers: Sequence[int], matrices: Sequence[str], r: int, alpha: float,
        dropout: float, generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        for name in matrices:
            if name not in MATRICES or len(name) != 1:
                raise unknown("attention matrix", name, MATRICES)
        if not matrices or len(set(matrices)) != len(matrices):
            raise FewshotError("name each matrix to adapt once, among q, k, v and o.")
        if r < 1 or not 0 <= dropout < 1:
            raise FewshotError(f"the rank must be 1 or more and dropout in [0, 1), not {r} and {dropout}.")
        self.blocks, self.layers, self.r = blocks, list(layers), r
        self.matrices = "".join(m for m in MATRICES if m in matrices)
        self.scale, self.dropout = alpha / r**0.5, dropout
        weight = blocks[0].attn.in_proj_weight
        width = weight.shape[1]
        shape = (len(self.layers), len(self.matrices))
        # kaiming_uniform with a = sqrt 5 and fan-in w, and zeros: the branch starts at nothing
        a = (2 * torch.rand(*shape, r, width, generator=generator) - 1) / width**0.5
        self.A = nn.Parameter(a.to(weight.device))
        self.B = nn.Parameter(torch.zeros(*shape, width, r, device=weight.device))

    def adapters(self) -> list[Branch | None]:
        """Branches for every block of the encoder, None where nothing is adapted."""
        dropout = self.dropout if self.training else 0.0
        made: list[Branch | None] = [None] * len(self.blocks)
        for layer, a, b in zip(self.layers, self.A.unbind(0), self.B.unbind(0), strict=True):
            made[layer] = Branch(self.matrices, a, b, self.scale, dropout)
        return made

    @torch.no_grad()
    def merged(self) -> list[Merged | None]:
        """The same as whole matrices M + s B A, new tensors beside the model's own: inference costs nothing extra."""
        made: list[Merged | None] = [None] * len(self.blocks)
        for layer, a, b in zip(self.layers, self.A, self.B, strict=True):
            made[layer] = Merged(self.blocks[layer].attn, self.matrices, self.scale * b @ a)
        return made


class Branch:
    """The low-rank branch of one layer, a [m, r, w] and b [m, w, r], for training: gradients reach a and b."""

    def __init__(self, matrices: str, a: Tensor, b: Tensor, scale: float, dropout: float) -> None:
        self.at = {name: i for i, name in enumerate(matrices)}
        self.a, self.b, self.dropout = a, b, dropout
        self.scale = scale / (1 - dropout)
        self.ragged: Ragged | None = None

    def over(self, ragged: Ragged) -> Branch:
        """The same for rows that lie end to end. Masks are drawn as for rows of one length, so that packing changes none."""
        made = copy.copy(self)
        made.ragged = ragged
        return made

    def project(self, h: Tensor, attn: nn.Module, parts: str) -> Sequence[Tensor]:
        base = list(project(h, attn.in_proj_weight, attn.in_proj_bias, parts))
        self._add(base, h, parts)
        return base

    def out(self, o: Tensor, attn: nn.Module) -> Tensor:
        base = [F.linear(o, attn.out_proj.weight, attn.out_proj.bias)]
        self._add(base, o, "o")
        return base[0]

    def _add(self, base: list[Tensor], x: Tensor, parts: str) -> None:
        """base[i] += s drop(x) A^T B^T for every adapted matrix among `parts`."""
        chosen = [(i, self.at[name]) for i, name in enumerate(parts) if name in self.at]
        if not chosen:
            return
        flat = x.reshape(-1, x.shape[-1])
        first, last = chosen[0][1], chosen[-1][1] + 1  # adapted matrices lie side by side
        if self.dropout:
            kept = self._masks(last - first, flat)
            inner = [(flat * mask) @ a.t() for mask, a in zip(kept, self.a[first:last].unbind(0), strict=True)]
        else:
            inner = (flat @ self.a[first:last].reshape(-1, flat.shape[1]).t()).chunk(last - first, dim=1)
        for (i, m), u in zip(chosen, inner, strict=True):
            y = base[i]
            y = torch.addmm(y.reshape(-1, y.shape[-1]), u, self.b[m].t(), alpha=self.scale)
            base[i] = y.view(base[i].shape)

    def _masks(self, n: int, flat: Tensor) -> Tensor:
        """[n, *flat.shape]"""
        ragged = self.ragged
        if ragged is None or len(flat) != len(ragged.at):  # in the last block q and o have a row per prompt
            return keep(n, flat, self.dropout)
        shape = (prod(ragged.shape), flat.shape[1])
        return keep(n, flat.new_empty(()).expand(shape), self.dropout).index_select(1, ragged.at)


def keep(n: int, x: Tensor, dropout: float) -> Tensor:
    """n independent masks [n, *x.shape] of ones, with probability 1 - dropout, and zeros.

    A probability in 256ths (0.25 is one) is decided by one random byte per element, eight to a draw: exact, and on a
    CPU several times faster than a draw and a comparison per element.
    """
    threshold = dropout * 256
    if threshold != int(threshold) or x.device.type != "cpu":
        return (torch.rand(n, *x.shape, device=x.device) >= dropout).to(x.dtype)
    count = n * x.numel()
    draws = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)
    byte = draws.view(torch.int8)[:count].view(n, *x.shape).to(x.dtype)  # -128..127; kept from threshold - 128 on
    return byte.add_(129 - int(threshold)).clamp_(0, 1)


class Merged:
    """Attention weights with the low-rank product inside, for evaluation."""

    def __init__(self, attn: nn.Module, matrices: str, product: Tensor) -> None:
        weight = attn.in_proj_weight.detach().clone()
        width = weight.shape[1]
        self.weight, self.out_weight = weight, attn.out_proj.weight
        for name, delta in zip(matrices, product, strict=True):
            if name == "o":
                self.out_weight = attn.out_proj.weight.detach() + delta
            else:
                i = "qkv".index(name)
                weight[i * width : (i + 1) * width] += delta

    def over(self, ragged: Ragged) -> Merged:
        return self

    def project(self, h: Tensor, attn: nn.Module, parts: str) -> Sequence[Tensor]:
        return project(h, self.weight, attn.in_proj_bias, parts)

    def out(self, o: Tensor, attn: nn.Module) -> Tensor:
        return F.linear(o, self.out_weight, attn.out_proj.bias)
