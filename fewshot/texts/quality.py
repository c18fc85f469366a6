"""What a file of sentences is worth: `report(path)` measures it, `faults(report)` names what should not be.

Counts and lengths, repeated and nearly repeated sentences, how many speak of what can be seen, how many name their class
or another one, characters and marks that CLIP never met, and whether the file is the one its meta file speaks of.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fewshot.errors import FewshotError
from fewshot.texts.clean import LIST_MARK, POSITIONS
from fewshot.texts.vocabulary import visual_words, words

NEAR = 0.8  # shared words over all words of two sentences, the class names left out
# names of classes that are also colours or shapes: an orange beak is no orange
AMBIGUOUS = {(word,) for word in "orange lemon lime peach plum cherry apricot star heart ring cross moon".split()}


@dataclass(frozen=True)
class Report:
    """The measurements; lists hold (class, sentence) or, for pairs, both."""

    name: str
    classes: int
    sentences: int
    fewest: int  # sentences of a class
    most: int
    words: float  # mean per sentence
    shortest: int  # words
    longest: int
    tokens: int  # of the longest sentence, for CLIP, with the two special ones
    repeated: list  # within a class
    shared: list  # across classes
    near: list  # across classes, names left out
    visual: float  # share of sentences with at least two words of what can be seen
    named: float  # share of sentences that name their class
    others: list  # sentences that name another class
    marked: list  # with a list mark in front
    foreign: list  # with characters beyond ASCII
    open_ended: list  # without a full stop
    genuine: bool | None  # the SHA-256 of the meta file; None without one


def report(path: Path) -> Report:
    """Measure a file. Raises FewshotError for a file that is no table of sentences."""
    path = Path(path)
    table = _read(path)
    pairs = [(name, line) for name, lines in table.items() for line in lines]
    own = Names(table, _spellings(path))
    found = [own.found(line) for _, line in pairs]
    lengths = [len(words(line)) for _, line in pairs]
    plain = [" ".join(words(line)) for _, line in pairs]
    first: dict[str, int] = {}
    repeated, shared = [], []
    for i, text in enumerate(plain):
        if (j := first.setdefault(text, i)) != i:
            (repeated if pairs[i][0] == pairs[j][0] else shared).append((*pairs[j], *pairs[i]))
    bare = [own.without(line) for _, line in pairs]
    return Report(
        name=path.stem,
        classes=len(table),
        sentences=len(pairs),
        fewest=min(map(len, table.values())),
        most=max(map(len, table.values())),
        words=sum(lengths) / len(pairs),
        shortest=min(lengths),
        longest=max(lengths),
        tokens=max(tokens(line) for _, line in pairs),
        repeated=repeated,
        shared=shared,
        near=[(*pairs[i], *pairs[j]) for i, j in near_pairs(bare, [name for name, _ in pairs])],
        visual=sum(len(visual_words(line)) >= 2 for _, line in pairs) / len(pairs),
        named=sum(name in names for (name, _), names in zip(pairs, found)) / len(pairs),
        others=[(name, line) for (name, line), names in zip(pairs, found) if names - {name}],
        marked=[pair for pair in pairs if LIST_MARK.match(pair[1])],
        foreign=[pair for pair in pairs if not pair[1].isascii()],
        open_ended=[pair for pair in pairs if not pair[1].endswith(".")],
        genuine=_genuine(path),
    )


def faults(measured: Report) -> list[str]:
    """One line for each thing that is wrong, with an example; empty for a sound file."""
    kinds = {
        "are repeated within a class": measured.repeated,
        "stand under two classes": measured.shared,
        "nearly stand under two classes": measured.near,
        "name another class": measured.others,
        "start with a list mark": measured.marked,
        "have characters beyond ASCII": measured.foreign,
        "lack a full stop": measured.open_ended,
    }
    lines = [f"{len(found)} sentences {what}, such as {found[0]}" for what, found in kinds.items() if found]
    if measured.fewest != measured.most:
        lines.append(f"classes have from {measured.fewest} to {measured.most} sentences")
    if measured.tokens > POSITIONS:
        lines.append(f"a sentence has {measured.tokens} tokens, and CLIP reads {POSITIONS}")
    if measured.genuine is False:
        lines.append("the meta file belongs to another version (its sha256 differs)")
    return lines


def table(reports: list[Report]) -> str:
    """The measurements as a Markdown table, a column per file."""
    rows = {
        "Classes": lambda r: f"{r.classes}",
        "Sentences per class": lambda r: f"{r.fewest}" if r.fewest == r.most else f"{r.fewest}–{r.most}",
        "Sentences": lambda r: f"{r.sentences:,}",
        "Words per sentence, mean": lambda r: f"{r.words:.1f}",
        "Words per sentence, range": lambda r: f"{r.shortest}–{r.longest}",
        f"CLIP tokens of the longest (of {POSITIONS})": lambda r: f"{r.tokens}",
        "Repeated within a class": lambda r: f"{len(r.repeated)}",
        "The same under two classes": lambda r: f"{len(r.shared)}",
        "Nearly the same under two classes": lambda r: f"{len(r.near)}",
        "Two or more words of what can be seen": lambda r: f"{100 * r.visual:.0f} %",
        "Name their class": lambda r: f"{100 * r.named:.0f} %",
        "Name another class": lambda r: f"{len(r.others)}",
        "List marks": lambda r: f"{len(r.marked)}",
        "Characters beyond ASCII": lambda r: f"{len(r.foreign)}",
        "Without a full stop": lambda r: f"{len(r.open_ended)}",
    }
    lines = [["", *(f"`{r.name}`" for r in reports)], ["---", *("--:" for _ in reports)]]
    lines += [[title, *map(show, reports)] for title, show in rows.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def tokens(sentence: str) -> int:
    """How many positions of CLIP's text tower a sentence takes, the start and the end token included."""
    return len(_tokenizer().encode(sentence)) + 2


@cache
def _tokenizer():
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def near_pairs(sets: list[set[str]], classes: list[str], least: float = NEAR) -> list[tuple[int, int]]:
    """Pairs of word sets of different classes whose Jaccard index exceeds `least`.

    The words that two sets share are counted for all pairs at once, as a product of sparse matrices, some rows at a time.
    """
    import numpy as np
    from scipy.sparse import csr_matrix

    number = {word: i for i, word in enumerate(sorted(set().union(*sets)))}
    columns = [number[word] for one in sets for word in one]
    starts = np.cumsum([0, *map(len, sets)])
    matrix = csr_matrix((np.ones(len(columns), np.int32), columns, starts), (len(sets), max(len(number), 1)))
    sizes, other, found = np.array([len(one) for one in sets]), matrix.T.tocsc(), []
    for start in range(0, len(sets), 500):
        both = (matrix[start : start + 500] @ other).toarray()
        either = sizes[start : start + 500, None] + sizes[None] - both
        rows, others = np.nonzero(both > least * either)
        found += [(i + start, j) for i, j in zip(rows.tolist(), others.tolist()) if i + start < j]
    return [(i, j) for i, j in found if classes[i] != classes[j]]


class Names:
    """Every spelling of every class, looked up word by word, the longest first: "Blue Jay" is not a "Jay"."""

    def __init__(self, table: Iterable[str], spelt: dict[str, list[str]]):
        from fewshot.texts import same

        self.of: dict[tuple[str, ...], str] = {}
        for name in table:
            for spelling in (name, *spelt.get(same(name), [])):
                self.of.setdefault(_plain(same(spelling)), name)
        self.longest = max(map(len, self.of))

    def found(self, line: str) -> set[str]:
        """The classes that a sentence names. A word that is also a colour or a shape names none."""
        return {self.of[key] for key, _, _ in self._hits(_plain(line)) if key not in AMBIGUOUS}

    def without(self, line: str) -> set[str]:
        """The words of a sentence outside all names."""
        said = _plain(line)
        inside = {i for _, start, end in self._hits(said) for i in range(start, end)}
        return {word for i, word in enumerate(said) if i not in inside}

    def _hits(self, said: tuple[str, ...]):
        """(spelling, start, end) of every name, from left to right."""
        start = 0
        while start < len(said):
            for end in range(min(len(said), start + self.longest), start, -1):
                key = said[start:end]
                key = key if key in self.of else (*key[:-1], key[-1].removesuffix("s"))
                if key in self.of:
                    yield key, start, end
                    start = end - 1
                    break
            start += 1


def _plain(text: str) -> tuple[str, ...]:
    """The words of a text as names are compared: lower case, no hyphens, no possessive endings."""
    return tuple(re.sub(r"['’]s?$", "", word) for word in words(text))


def _spellings(path: Path) -> dict[str, list[str]]:
    from fewshot.texts import spellings

    return spellings(path)


def _read(path: Path) -> dict[str, list[str]]:
    """The table with its names as written. (fewshot.texts.read folds them, to compare.)"""
    from fewshot.texts import read

    if not path.is_file():
        raise FewshotError(f"there is no file {path}; `fewshot texts generate -o {path}` makes one.")
    if not read(path) or not all(read(path).values()):
        raise FewshotError(f"{path} has a class without sentences; remove it, or generate the file again.")
    return json.loads(path.read_text(encoding="utf-8"))


def _genuine(path: Path) -> bool | None:
    from fewshot.texts.generate import meta_path

    try:
        wanted = json.loads(meta_path(path).read_text(encoding="utf-8")).get("sha256")
    except (OSError, ValueError, AttributeError):
        return None
    return wanted == hashlib.sha256(path.read_bytes()).hexdigest()
