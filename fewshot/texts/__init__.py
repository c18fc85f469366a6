"""Sentences about classes: those that ship with the package, a file of the user's, or the templates as a control.

A file is {class name: [sentence, ...]}; names are compared without case, with _ and - as spaces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from fewshot.errors import FewshotError, unknown
from fewshot.paths import path_of

FOLDER = Path(__file__).parent
TEMPLATES = "templates"  # as `source`: no LLM, the 80 templates of zero-shot CLIP filled with the name
ATTRIBUTES = "attributes"  # as `source`: no LLM, the attributes that people gave to CUB's pictures
POLICIES = ("keep", "mask", "prefix", "require")


def sentences(
    dataset: str,
    classnames: Sequence[str],
    source: str = "",
    policy: str = "keep",
    domain: str = "object",
    drop_others: bool = False,
) -> list[list[str]]:
    """The sentences of each class, in the order of the file.

    `source`: "" for what ships under the data set's name, "templates", "attributes" (of cub), or the path of a JSON file.
    `policy` of the class name: "keep" as written; "mask" says "this {domain}" instead; "prefix" puts "name: " in front;
    "require" puts it in front where the name is missing. `drop_others` leaves out sentences that name another class.
    Raises FewshotError when there is no file, or no sentence for a class.
    """
    if policy not in POLICIES:
        raise unknown("name_policy", policy, POLICIES)
    if source == TEMPLATES:
        found, others = [filled(name) for name in classnames], {}
    elif source == ATTRIBUTES:
        from fewshot.texts.attributes import attribute_sentences

        found, others = attribute_sentences(classnames), {}
    else:
        path = path_of(source) if source else shipped(dataset)
        table, others = read(path), spellings(path)
        found = []
        for name in classnames:
            if not table.get(same(name)):
                raise FewshotError(
                    f"{path.name} has no sentence for class {name!r} of {dataset}; add some, or take "
                    f"texts_from={TEMPLATES!r}."
                )
            found.append(table[same(name)])
    if drop_others:
        found = without_others(classnames, found, others)
    return [
        [named(line, [name, *others.get(same(name), [])], policy, domain) for line in lines]
        for name, lines in zip(classnames, found)
    ]


def without_others(
    classnames: Sequence[str], found: Sequence[list[str]], spelt: dict[str, list[str]]
) -> list[list[str]]:
    """The sentences that name no class but their own, which would be a wrong label; `spelt` as `spellings` gives it.

    Raises FewshotError for a class of which none is left.
    """
    from fewshot.texts.quality import Names

    names = Names(dict.fromkeys(classnames), spelt)
    kept = [[line for line in lines if not names.found(line) - {name}] for name, lines in zip(classnames, found)]
    for name, lines in zip(classnames, kept):
        if not lines:
            raise FewshotError(f"every sentence about {name!r} names another class; leave drop_other_names off.")
    return kept


def shipped(dataset: str) -> Path:
    """The file of a data set. Raises FewshotError when none ships."""
    path = FOLDER / f"{dataset.replace('/', '_').lower()}.json"
    if not path.is_file():
        known = sorted(p.stem for p in FOLDER.glob("*.json") if not p.name.endswith(".meta.json"))
        raise FewshotError(
            f"no sentences ship for {dataset} (they do for {', '.join(known) or 'nothing'}); pass texts_from= a JSON file "
            f"of {{class name: [sentences]}}, or texts_from={TEMPLATES!r}."
        )
    return path


def read(path: Path) -> dict[str, list[str]]:
    """{name as compared: sentences}. Raises FewshotError for a file that is missing or something else."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FewshotError(f"the sentences {path} cannot be read ({error.strerror}); check texts_from=.") from error
    except ValueError as error:
        raise FewshotError(f"{path} is not valid JSON; it should be {{class name: [sentences]}}.") from error
    good = isinstance(table, dict) and all(
        isinstance(lines, list) and all(isinstance(line, str) and line.strip() for line in lines)
        for lines in table.values()
    )
    if not good:
        raise FewshotError(f"{path} should be {{class name: [sentences]}}, every sentence a text that is not empty.")
    return {same(name): lines for name, lines in table.items()}


def spellings(path: Path) -> dict[str, list[str]]:
    """How a class is called in the sentences, where that is not its key: {name as compared: [spelling]}."""
    meta = path.with_name(f"{path.stem}.meta.json")
    if not meta.is_file():
        return {}
    names = json.loads(meta.read_text(encoding="utf-8")).get("names", {})
    return {same(key): [name] for key, name in names.items() if isinstance(name, str)}


def same(name: str) -> str:
    """The form in which names are compared; CUB's "001." in front does not count."""
    return " ".join(re.sub(r"^\d+\.", "", name).replace("_", " ").replace("-", " ").casefold().split())


def filled(name: str) -> list[str]:
    """The 80 templates with the name, in OpenAI's order."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return [template(name.replace("_", " ")) for template in OPENAI_IMAGENET_TEMPLATES]


def domain_of(template: str) -> str:
    """What the prompt template calls the classes: "bird" for "a photo of a {}, a type of bird."."""
    found = re.search(r"a type of (?:a )?([\w ]+?)\s*\.?$", template)
    return found[1] if found else "object"


def named(line: str, names: Sequence[str], policy: str, domain: str) -> str:
    """A sentence under a policy; `names` are the spellings of its class, the class name first."""
    if policy == "keep":
        return line
    pattern = name_pattern(names)
    if policy == "mask":
        return re.sub(pattern, lambda m: _this(m, line, domain), line, flags=re.IGNORECASE)
    there = policy == "require" and re.search(pattern, line, flags=re.IGNORECASE)
    return line if there else f"{names[0].replace('_', ' ')}: {line}"


def name_pattern(names: Sequence[str]) -> str:
    """A name with any of space, _ and - between its words, an article in front of it and a plural s behind it."""
    longest = sorted({same(name) for name in names}, key=len, reverse=True)
    bodies = "|".join(r"[\s_-]+".join(rf"{re.escape(word)}(?:['’]s)?" for word in name.split()) for name in longest)
    return rf"(?<!\w)(?:(?:the|an?)\s+)?(?:{bodies})s?(?!\w)"


def _this(match: re.Match, line: str, domain: str) -> str:
    owns = re.search(r"['’]s$", match[0])
    word = f"this {domain}" + (owns[0] if owns else "")
    first = match.start() == 0 or re.search(r"[.!?]\s+$", line[: match.start()])
    return word[0].upper() + word[1:] if first else word
