"""The query branch of BLIP-2's Q-Former (Li et al. 2023): learned vectors that read a sequence by cross-attention.

Post-norm blocks, LN after each sum: x = LN(SA(x) + x); in every `cross_every`-th layer, the first included,
x = LN(CA(x, kv) + x); x = LN(W2 gelu(W1 x) + x). Written from salesforce/LAVIS (lavis/models/blip2_models/Qformer.py).
With one key the softmax is 1: each query receives the same vector, and the gradient of cross-attention's query and key
projections is exactly zero. The block is then a residual network that is told what the one vector is.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.errors import FewshotError

EPS = 1e-12  # of BERT's layer norms; that of the keys and values has torch's own, 1e-5


class Attention(nn.Module):
    """LN(O softmax(Q x (K y)^T / sqrt(h / heads)) V y + x), with y = x unless given."""

    def __init__(self, width: int, heads: int, source: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q, self.o = nn.Linear(width, width), nn.Linear(width, width)
        self.k, self.v = nn.Linear(source, width), nn.Linear(source, width)
        self.ln = nn.LayerNorm(width, EPS)

    def forward(self, x: Tensor, y: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """x [B, Q, h], y [B, L, w], mask [B, L] (True: may be read) -> [B, Q, h]."""
        y = x if y is None else y
        q, k, v = (self.split(part) for part in (self.q(x), self.k(y), self.v(y)))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # written out: fused kernels round the zero gradient
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
        share = F.dropout(scores.softmax(dim=-1), self.dropout, self.training)
        o = self.o((share @ v).transpose(1, 2).flatten(2))
        return self.ln(F.dropout(o, self.dropout, self.training) + x)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """LN(W2 gelu(W1 x) + x), the exact gelu."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2, self.dropout = nn.Linear(width, inner), nn.Linear(inner, width), dropout
        self.ln = nn.LayerNorm(width, EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln(F.dropout(self.fc2(F.gelu(self.fc1(x))), self.dropout, self.training) + x)


class QFormer(nn.Module):
    """Sequences [B, L, source] to Q query states [B, Q, h], and these to features [B, Q, out].

    Weights are drawn from N(0, 0.02^2), biases are 0. `pieces` > 0: a learned position for each of that many keys.
    """

    def __init__(
        self, source: int, out: int, *, hidden: int = 256, layers: int = 4, heads: int = 4, ffn: int = 1024,
        queries: int = 8, cross_every: int = 2, dropout: float = 0.1, pieces: int = 0,
        rng: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dropout = dropout
        self.query_tokens = nn.Parameter(torch.empty(1, queries, hidden))
        self.positions = nn.Parameter(torch.empty(1, pieces, source)) if pieces else None
        self.ln_in, self.ln_kv = nn.LayerNorm(hidden, EPS), nn.LayerNorm(source)
        self.layers = nn.ModuleList()
        for i in range(layers):
            parts = {"self": Attention(hidden, heads, hidden, dropout), "ffn": FeedForward(hidden, ffn, dropout)}
            if i % cross_every == 0:
                parts["cross"] = Attention(hidden, heads, source, dropout)
            self.layers.append(nn.ModuleDict(parts))
        self.proj = nn.Linear(hidden, out)
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif not (p.dim() == 1 or p.is_meta):
                nn.init.normal_(p, std=0.02, generator=rng)

    def states(self, kv: Tensor, mask: Tensor | None = None) -> Tensor:
        """The last hidden states of the queries [B, Q, h]."""
        if self.positions is not None:
            kv = kv + self.positions
        kv = self.ln_kv(kv)
        x = self.ln_in(self.query_tokens.expand(len(kv), -1, -1))
        x = F.dropout(x, self.dropout, self.training)
        for layer in self.layers:
            x = layer["self"](x)
            if "cross" in layer:
                x = layer["cross"](x, kv, mask)
            x = layer["ffn"](x)
        return x

    def forward(self, kv: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, L, source] to one feature of each query, [B, Q, out]; not normalised."""
        return self.proj(self.states(kv, mask))


# ours, in a layer -> BERT's. Cross-attention does not exist in BERT, nor do queries, keys' norm and the last projection.
IN_BERT = {
    "self.q": "attention.self.query", "self.k": "attention.self.key", "self.v": "attention.self.value",
    "self.o": "attention.output.dense", "self.ln": "attention.output.LayerNorm",
    "ffn.fc1": "intermediate.dense", "ffn.fc2": "output.dense", "ffn.ln": "output.LayerNorm",
}  # fmt: skip


@torch.no_grad()
def start_from_bert(model: QFormer, path: str | os.PathLike) -> None:
    """Self-attention, feed-forward layers and their norms from BERT's weights in a safetensors file, as BLIP-2 does.

    A Q-Former with fewer layers takes the first ones. Raises FewshotError where there is no such file, a tensor is missing,
    or a size differs.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path).expanduser()
    wanted = {"ln_in": "embeddings.LayerNorm"}
    for i in range(len(model.layers)):
        wanted |= {f"layers.{i}.{ours}": f"encoder.layer.{i}.{theirs}" for ours, theirs in IN_BERT.items()}
    if not path.is_file():
        raise FewshotError(f"bert={str(path)!r}: there is no such file; give model.safetensors of bert-base-uncased.")
    try:
        with safe_open(path, "pt") as file:
            there = {name.removeprefix("bert."): name for name in file.keys()}  # noqa: SIM118 (no mapping)
            parameters = dict(model.named_parameters())
            for ours, theirs in wanted.items():
                for part, older in (("weight", "gamma"), ("bias", "beta")):  # of norms, in files from before
                    name = there.get(f"{theirs}.{part}") or there.get(f"{theirs}.{older}")
                    if name is None:
                        raise FewshotError(f"{path.name} has no {theirs}.{part}; give the weights of bert-base-uncased.")
                    mine, given = parameters[f"{ours}.{part}"], file.get_tensor(name)
                    if mine.shape != given.shape:
                        raise FewshotError(
                            f"{theirs}.{part} of {path.name} is {list(given.shape)}, and the Q-Former's {list(mine.shape)}; "
                            "take BERT's sizes (bert-base: hidden=768, heads=12, ffn=3072, up to 12 layers)."
                        )
                    mine.copy_(given)
    except (SafetensorError, OSError) as error:
        raise FewshotError(f"{path} is no safetensors file; convert the weights, pickled ones are not read.") from error
