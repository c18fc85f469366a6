"""Learned vectors spliced into prompts, where the words around a class name would stand.

A prompt of n placeholders "X X ... X name." is tokenised once; "X" is one token, so the class name starts at position
1 + n and the EOT found in the placeholder text stays valid. The learned vectors then replace embeddings:

    end:    [S | V | name . EOT]          middle: [S | V[:n//2] | name | V[n//2:] | . EOT]
    front:  [S | name | V | . EOT]        end, words left: [S | V | words | name . EOT]

Vectors that all classes share stand in a common prefix, which the text tower runs once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fewshot.clip import Clip
from fewshot.errors import FewshotError, unknown

POSITIONS = ("end", "middle", "front")


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

    def splice(self, context: Tensor) -> Tensor:
        """Input embeddings [.., C, L, w], without positions, of a context [.., 1 or C, n, w]."""
        lead = context.shape[:-3]
        context = context.expand(*lead, len(self.embeddings), -1, -1)
        frozen = self.embeddings.expand(*lead, -1, -1, -1)
        x = torch.cat((frozen[..., :1, :], context, frozen[..., 1 + self.n :, :]), dim=-2)
        return x if self._order is None else x.gather(-2, self._order[..., None].expand(*x.shape))

    def features(
        self, context: Tensor, *, own: bool = False, deep: Mapping[int, Tensor] | None = None, chunk: int = 0
    ) -> Tensor:
        """Text features [.., C, D], not normalised, of a context [.., n, w] shared by the classes.

        With `own` the context is [C, n, w], one per class. Leading axes stand for images with contexts of their own.
        `deep` maps a block index to vectors [n, w], as in TextTower.encode; `chunk` bounds memory, as in TextTower.features.
        """
        if own:
            return self.tower.encode(self.splice(context), self.eot, deep=deep, chunk=chunk)
        if self.position != "end":
            return self.tower.encode(self.splice(context.unsqueeze(-3)), self.eot, self.shared, deep=deep, chunk=chunk)
        # the prefix need not be written once per class
        lead, same = context.shape[:-2], self.embeddings[0, : self.shared]
        same = same.expand(*lead, *same.shape)
        prefix = torch.cat((same[..., :1, :], context, same[..., 1 + self.n :, :]), dim=-2)
        prefix = prefix.reshape(-1, *prefix.shape[-2:])
        rest = self.embeddings[:, self.shared :].expand(len(prefix), -1, -1, -1)
        return self.tower.features(prefix, rest, self.eot, deep=deep, chunk=chunk).view(*lead, len(self.eot), -1)


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
