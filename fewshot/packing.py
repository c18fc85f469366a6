"""Prompts of different lengths, end to end: no position behind an end-of-text token (EOT) is computed.

Norms, projections and MLPs take a position at a time and do not care where it stands, so the prompts of a pass lie in one
table [T, w] without padding. Attention alone lays them side by side. What follows from where the prompts end is made once
and kept: to find it out in every step would make the step wait for the device.
"""

from __future__ import annotations

import warnings
import weakref

import torch
from torch import Tensor

from fewshot.errors import FewshotError


class Ragged:
    """N rows of different lengths laid end to end, [T, w] in place of [N, S, w]: padding is not computed.

    Attention alone needs them side by side, for which `spread` fills a row up with its last position. No query that is kept
    sees what is filled in, so the gradient there is zero.
    """

    def __init__(self, lengths: Tensor, longest: int) -> None:
        inside = (torch.arange(longest, device=lengths.device) < lengths[:, None]).flatten()  # [N S]
        self.shape = (len(lengths), longest)
        self.inside = inside.unsqueeze(1)  # [N S, 1]
        self.at = inside.nonzero().flatten()  # [T]: the places of the positions among N S
        self.source = inside.cumsum(0) - 1  # [N S]: the positions at the places
        self.last = lengths.cumsum(0) - 1  # [N]: the last position of each row

    def pack(self, x: Tensor) -> Tensor:
        """[N, S, w] -> [T, w]."""
        return _Pack.apply(x, self)

    def spread(self, x: Tensor) -> Tensor:
        """[T, w] -> [N, S, w]."""
        return _Spread.apply(x, self)


class _Pack(torch.autograd.Function):
    """A selection whose gradient is a selection too; torch's own adds row by row, which is slow."""

    @staticmethod
    def forward(ctx, x: Tensor, ragged: Ragged) -> Tensor:
        ctx.ragged = ragged
        return x.flatten(0, 1).index_select(0, ragged.at)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, None]:
        ragged = ctx.ragged
        return (g.index_select(0, ragged.source) * ragged.inside).view(*ragged.shape, -1), None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, ragged: Ragged) -> Tensor:
        ctx.ragged = ragged
        return x.index_select(0, ragged.source).view(*ragged.shape, -1)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, None]:
        return g.flatten(0, 1).index_select(0, ctx.ragged.at), None


class Known:
    """What follows from where a set of prompts ends, eot [K] or [G, K]; made once, as parts of it wait for the device."""

    def __init__(self, eot: Tensor) -> None:
        self.eot = weakref.ref(eot)
        self.mean = float(eot.float().mean()) + 1  # positions of a prompt
        self.most = 0  # prompts at a time that the memory has turned out to hold; 0: all, until it does not
        self.parts: dict = {}
        self.layouts: dict = {}

    def part(self, a: int, b: int) -> Tensor:
        """eot of the prompts a..b-1, flat."""
        eot = self.eot()
        if eot.dim() == 1 and b - a == len(eot):
            return eot
        if (a, b) not in self.parts:
            self.parts[a, b] = eot[..., a:b].flatten().clone()
        return self.parts[a, b]

    def layout(self, p: int, n: int, s: int, dtype: torch.dtype, pack: bool) -> tuple[Tensor, Tensor, Ragged | None]:
        """Of n suffixes of s positions behind p: additive mask [n, 1, 1, s] of the EOT row, its place, and how to pack."""
        key = (p, n, s, dtype, pack)
        if key not in self.layouts:
            with torch.inference_mode(False):  # made for evaluation, it serves training too
                eot = self.eot()
                ends = eot.repeat(n // len(eot)) - p
                after = torch.arange(s, device=eot.device) > ends[:, None]
                seen = torch.zeros(n, 1, 1, s, device=eot.device, dtype=dtype)
                seen.masked_fill_(after[:, None, None], -torch.inf)
                ragged = Ragged(ends + 1, s) if pack and bool(after.any()) else None
                row = ends + s * torch.arange(n, device=eot.device) if ragged is None else ragged.last
                self.layouts[key] = (seen, row, ragged)
        return self.layouts[key]

    def shrink(self, tried: int, error: Exception) -> None:
        """Half as many prompts at a time as did not fit; says so once. FewshotError when it was a single one."""
        if tried == 1:
            raise FewshotError(
                "the prompt of a single class does not fit into the memory; lower batch_size, or use another device."
            ) from error
        if not self.most:
            warnings.warn(
                f"the prompts of {self.eot().shape[-1]} classes do not fit into the memory together; they go in smaller "
                "groups from here on, which takes longer and gives the same.",
                stacklevel=5,
            )
        self.most = -(-tried // 2)
