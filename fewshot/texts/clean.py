"""From a model's raw answer to sentences: one function per rule, none of them with a state.

`clean` applies them in the order of the file. VERSION goes into the meta file of what was cleaned: raise it with a rule.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

from fewshot.errors import FewshotError
from fewshot.texts.vocabulary import UNSEEN, words

VERSION = 1
FEWEST_WORDS = 3
POSITIONS = 77  # of CLIP's text tower, the start and the end token included

TYPEWRITER = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "\u00a0": " "})
LIST_MARK = re.compile(r"(?:[-•·‣◦●▪+]\s+|[•·‣◦●▪]|\(?\d{1,2}[.)]\s+|\([a-z]\)\s+|[a-z]\)\s+)", re.IGNORECASE)
CHATTER = re.compile(
    r"(?:sure|certainly|absolutely|of course)\b\s*(?:[,!.:-]|$)"
    r"|(?:here are|here is|here's|below are|the following|in summary|in conclusion|to summari[sz]e|i hope|let me know)\b"
    r"|note:|please note|as an ai\b|as a language model",
    re.IGNORECASE,
)
REFUSAL = re.compile(
    r"(?:i'm (?:very )?sorry|i am (?:very )?sorry|sorry,|i apologi[sz]e|apologies|unfortunately,? i|as an ai\b"
    r"|i(?:'m| am) (?:not able|unable)|i (?:cannot|can't|can not|won't) (?!see why)"
    r"|i (?:do not|don't) (?:have|know)|i'm not (?:sure|familiar)|i am not (?:sure|familiar))",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])")


class Unusable(FewshotError):
    """An answer without sentences: the question should be asked again."""


def clean(
    answer: str,
    *,
    cut: bool = False,
    visual_only: bool = False,
    tokens: Callable[[str], int] | None = None,
) -> list[str]:
    """The sentences of an answer. `cut`: the server stopped it at its limit of length; `tokens` counts a sentence's tokens.

    Raises Unusable for an answer that is empty or refuses.
    """
    lines = split(normalised(answer or ""))
    if cut:
        lines = lines[:-1]
    if not lines:
        raise Unusable("an empty answer")
    refused = REFUSAL.match(lines[0])
    lines = [without_mark(line) for line in lines]
    lines = [tidy(line) for line in lines if not is_chatter(line)]
    lines = [line for line in lines if is_sentence(line) and not REFUSAL.match(line)]
    if refused and len(lines) < FEWEST_WORDS:
        raise Unusable("a refusal")
    if visual_only:
        lines = [line for line in lines if is_visual(line)]
    if tokens is not None:
        lines = [short for line in lines if (short := fitting(line, tokens))]
    return distinct(lines)


def normalised(answer: str) -> str:
    """NFC, typewriter quotes and dashes, one kind of line break; no code fences, no Markdown marks."""
    text = unicodedata.normalize("NFC", answer).replace("\r\n", "\n").replace("\r", "\n").translate(TYPEWRITER)
    text = re.sub(r"^\s*```.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(\s*)[*]\s+", r"\1- ", text, flags=re.MULTILINE)  # a star in front of a line is a bullet
    text = re.sub(r"^\s*#+\s*", "", text, flags=re.MULTILINE)
    text = re.sub(r"[*`]", "", text)
    return re.sub(r"(?<=\w)_(?=\w)", " ", text).replace("_", "")


def split(text: str) -> list[str]:
    """The lines that hold something; a lone paragraph of more than two sentences comes apart at their ends."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) == 1:
        sentences = SENTENCE_END.split(lines[0])
        if len(sentences) > 2:
            return sentences
    return lines


def without_mark(line: str) -> str:
    """One list mark in front goes ("- ", "3. ", "(1) ", "a) "); a bare number stays ("18 to 20 cm long")."""
    return line[mark.end() :].lstrip() if (mark := LIST_MARK.match(line)) else line


def is_chatter(line: str) -> bool:
    """A heading, or a line that speaks of the answer."""
    return line.endswith(":") or CHATTER.match(line) is not None


def tidy(line: str) -> str:
    """Without the quotes around it, single spaces, a full stop."""
    line = " ".join(line.split())
    while len(line) > 2 and line[0] == line[-1] and line[0] in "\"'" and line[0] not in line[1:-1]:
        line = line[1:-1].strip()
    return line if line.endswith((".", "!", "?")) else line.rstrip(",;:- ") + "."


def is_sentence(line: str) -> bool:
    return len(words(line)) >= FEWEST_WORDS


def is_visual(line: str) -> bool:
    """Nothing about sounds, food, homes, habits, weight: what a picture does not show."""
    return UNSEEN.search(line) is None


def fitting(line: str, tokens: Callable[[str], int], most: int = POSITIONS) -> str | None:
    """The line, cut at the last sentence or comma that fits; None where nothing fits. open_clip would cut without a word."""
    if tokens(line) <= most:
        return line
    for place in reversed([m.start() for m in re.finditer(r"(?<=[.!?])\s|[,;]\s", line)]):
        short = tidy(line[:place])
        if is_sentence(short) and tokens(short) <= most:
            return short
    return None


def distinct(lines: Iterable[str]) -> list[str]:
    """Each line once, compared without case and punctuation."""
    return list({" ".join(words(line)): line for line in reversed(list(lines))}.values())[::-1]
