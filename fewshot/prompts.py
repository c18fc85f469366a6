"""Learned vectors spliced into prompts, where the words around a class name would stand.

A prompt of n placeholders "X X ... X name." is tokenised once; "X" is one token, so the class name starts at position
1 + n and the EOT found in the placeholder text stays valid. The learned vectors then replace embeddings:

    end:    [S | V | name . EOT]          middle: [S | V[:n//2] | name | V[n//2:] | . EOT]
    front:  [S | name | V | . EOT]        end, words left: [S | V | words | name . EOT]

Vectors that all classes share stand in a common prefix, which the text tower runs once. Classes whose prompts end early
need not wait for the longest: they go through the tower in groups of about equal length.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from math import prod

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fewshot.clip import Clip
from fewshot.errors import FewshotError, unknown

POSITIONS = ("end", "middle", "front")
# what one more pass through the tower costs, in token positions: measured on a CPU with the toy CLIP, and guessed for
# accelerators, which wait for their kernels to be launched
CALL, CALL_ELSEWHERE = {"cpu": 64}, 1024


class Prompts:
    """The frozen part of the prompts of C classes, cut at the longest EOT (L positions).

    tokens [C, L] ids of the placeholder text; eot [C]; embeddings [C, L, w].
    """

    def __init__(
        self, clip: Clip, classnames: Sequence[str], words: str | int, position: str = "end", what: str = "",
        n: int | None = None,
    ) -> None:  # fmt: skip
        """`words` is the text that the learned vectors replace, or a number n of placeholders; `what` names the method.

        With `n` and position "end", the vectors replace the first n words only and the others stay as frozen text.
        """
        if position not in POSITIONS:
            raise unknown("class token position", position, POSITIONS)
        tower = clip.require_text(what or "prompt learning")
        words = clean(words) if isinstance(words, str) else " ".join(["X"] * words)
        count = len(words.split(" "))
        self.n = count if n is None else n
        self.tower, self.position = tower, position
        names = [name.replace("_", " ") for name in classnames]
        tokens = clip.tokenize([f"{words} {name}." for name in names])
        self.eot = tower.eot(tokens)
        length = int(self.eot.max()) + 1
        self.tokens = tokens[:, :length]
        with torch.no_grad():
            self.embeddings = tower.embed(self.tokens)
        # tokens of the bare name, without the full stop that follows it in the prompt
        self.name_lengths = (tower.eot(clip.tokenize(names)) - 1).tolist() if position != "end" else []
        self.before = {"end": self.n, "middle": self.n // 2, "front": 0}[position]  # learned vectors before the name
        ahead = count if position == "end" else self.before
        self.shared = 1 + ahead if ahead else 0  # first positions that all classes have in common
        self._order = self._order_of_positions() if position != "end" else None
        ends = self.eot.tolist()
        self._ends = sorted(ends)
        self._by_end = torch.tensor(sorted(range(len(ends)), key=ends.__getitem__), device=self.eot.device)
        self._back = self._by_end.argsort()
        self._cuts: dict[tuple[int, int], list[int]] = {}
        self._most = 0  # classes at a time that the memory has turned out to hold; 0: all, until it does not

    def _order_of_positions(self) -> Tensor:
        """[C, L]: which of [S, V_1..V_n, rest_0..] stands at each position."""
        length = self.tokens.shape[1]
        vectors = list(range(1, 1 + self.n))
        rest = list(range(1 + self.n, length))
        rows = []
        for size in self.name_lengths:
            h = self.before
            rows.append([0, *vectors[:h], *rest[:size], *vectors[h:], *rest[size:]])
        return torch.tensor(rows, device=self.tokens.device)

    def splice(self, context: Tensor, rows: Tensor | slice = slice(None), length: int | None = None) -> Tensor:
        """Input embeddings [.., K, L, w], without positions, of a context [.., 1 or K, n, w].

        `rows` are the K classes (all of them, if not given) and `length` is L (that of the longest prompt).
        """
        frozen = self.embeddings[rows, :length]
        lead = context.shape[:-3]
        context = context.expand(*lead, len(frozen), -1, -1)
        frozen = frozen.expand(*lead, -1, -1, -1)
        x = torch.cat((frozen[..., :1, :], context, frozen[..., 1 + self.n :, :]), dim=-2)
        if self._order is None:
            return x
        index = self._order[rows, :length, None].expand(*x.shape)
        return x.gather(-2, index)

    def features(
        self, context: Tensor, *, own: bool = False, deep: Mapping[int, Tensor] | None = None, chunk: int = 0
    ) -> Tensor:
        """Text features [.., C, D], not normalised, of a context [.., n, w] shared by the classes.

        With `own` the context is [C, n, w], one per class. Leading axes stand for images with contexts of their own.
        `deep` maps a block index to vectors [n, w], as in TextTower.encode. `chunk` > 0 bounds memory: at most so many
        classes at a time, whose activations are computed again in the backward pass; where the memory holds fewer, so many.
        """
        while True:
            most = min(filter(None, (chunk, self._most)), default=0)
            try:
                return self._features(context, own, deep, most)
            except torch.OutOfMemoryError as error:
                self._most = self._smaller(most, error)
            # out here, where the exception no longer holds on to the tensors of the attempt
            if context.is_cuda:
                torch.cuda.empty_cache()

    def _smaller(self, most: int, error: Exception) -> int:
        """Half as many classes at a time as did not fit; says so once. FewshotError when it was a single one."""
        if most == 1 or len(self.eot) == 1:
            raise FewshotError(
                "the prompt of a single class does not fit into the memory; lower batch_size, or use another device."
            ) from error
        most = -(-(most or len(self.eot)) // 2)
        if not self._most:
            warnings.warn(
                f"the prompts of {len(self.eot)} classes do not fit into the memory together; they go in smaller groups from "
                "here on, which takes longer and gives the same.",
                stacklevel=4,
            )
        return most

    def _features(self, context: Tensor, own: bool, deep: Mapping[int, Tensor] | None, chunk: int) -> Tensor:
        lead = context.shape[: -3 if own else -2]
        pieces = self._pieces(prod(lead), 0 if own else self.shared, chunk)
        if len(pieces) == 1:
            return self._run(context, slice(None), pieces[0][1], own, deep)
        again = 0 < chunk < len(self.eot) and torch.is_grad_enabled()
        parts = [
            checkpoint(self._run, context, *piece, own, deep, use_reentrant=False)
            if again
            else self._run(context, *piece, own, deep)
            for piece in pieces
        ]
        return torch.cat(parts, dim=-2)[..., self._back, :]

    def _run(self, context: Tensor, rows: Tensor | slice, length: int, own: bool, deep) -> Tensor:
        """Features of the classes `rows`, whose prompts fit in `length` positions."""
        eot = self.eot[rows]
        if own:
            return self.tower.encode(self.splice(context[rows], rows, length), eot, deep=deep)
        if self.position != "end":
            x = self.splice(context.unsqueeze(-3), rows, length)
            return self.tower.encode(x, eot, self.shared, deep=deep)
        # the prefix need not be written once per class
        lead, same = context.shape[:-2], self.embeddings[0, : self.shared]
        same = same.expand(*lead, *same.shape)
        prefix = torch.cat((same[..., :1, :], context, same[..., 1 + self.n :, :]), dim=-2)
        prefix = prefix.reshape(-1, *prefix.shape[-2:])
        rest = self.embeddings[rows, self.shared : length].expand(len(prefix), -1, -1, -1).flatten(0, 1)
        return self.tower.run(prefix, rest, eot, deep=deep).view(*lead, len(eot), -1)

    def _pieces(self, copies: int, shared: int, chunk: int) -> list[tuple[Tensor, int]]:
        """Classes that go through the tower together, [(rows, length)]; the shortest prompts come first.

        A piece costs one call and, for each of the `copies` (images), the shared positions once and the positions of
        its longest prompt for each class; the cuts are those with the least sum.
        """
        if (copies, shared) not in self._cuts:
            call = CALL.get(self.eot.device.type, CALL_ELSEWHERE)
            best = {0: (0, [0])}  # of the first so many classes: cost and cuts
            for _, same in groupby(range(len(self._ends)), key=self._ends.__getitem__):
                stop = list(same)[-1] + 1
                own = self._ends[stop - 1] + 1 - shared
                best[stop] = min(
                    (cost + call + copies * (shared + own * (stop - i)), [*cuts, stop])
                    for i, (cost, cuts) in best.items()
                )
            self._cuts[copies, shared] = best[len(self._ends)][1]
        cuts = self._cuts[copies, shared]
        if chunk > 0:
            cuts = [*(i for a, b in pairwise(cuts) for i in range(a, b, chunk)), cuts[-1]]
        return [(self._by_end[a:b], self._ends[b - 1] + 1) for a, b in pairwise(cuts)]


def clean(words: str) -> str:
    """Initialisation words as CoOp reads them: underscores are spaces. Raises FewshotError when nothing is left."""
    words = words.replace("_", " ").strip()
    if not words:
        raise FewshotError("the words to initialise a context from are empty; give some, or leave ctx_init out.")
    return words


def word_context(clip: Clip, words: str, what: str = "") -> Tensor:
    """Token embeddings [n, w] of n words separated by single spaces: positions 1..n of the words tokenised alone.

    As in CoOp, n counts words; raises FewshotError when a word is more than one token, which CoOp would cut silently.
    """
    tower = clip.require_text(what or "prompt learning")
    words = clean(words)
    n = len(words.split(" "))
    tokens = clip.tokenize([words])
    if int(tower.eot(tokens)[0]) - 1 != n:
        raise FewshotError(f"every word of the context {words!r} must be a single token; choose simpler words.")
    with torch.no_grad():
        return tower.embed(tokens)[0, 1 : 1 + n].clone()
