"""Write the table and examples of book/descriptions.md from fewshot/texts: python book/descriptions.py. A test compares."""

import json
from pathlib import Path

import marks

from fewshot.texts import FOLDER
from fewshot.texts.prompts import PROMPTS
from fewshot.texts.quality import report, table

PAGE = Path(__file__).resolve().parent / "descriptions.md"


def files() -> list[Path]:
    return sorted(path for path in FOLDER.glob("*.json") if not path.name.endswith(".meta.json"))


def quality() -> str:
    return table([report(path) for path in files()])


def examples() -> str:
    """Three classes of every file, with three sentences each."""
    return "\n\n".join(map(_example, files()))


def _example(path: Path) -> str:
    sentences = json.loads(path.read_text(encoding="utf-8"))
    names = list(sentences)
    chosen = dict.fromkeys((names[0], names[len(names) // 2], names[-1]))
    lines = [f"````{{dropdown}} {path.name}"]
    for name in chosen:
        lines += [f"**{name.replace('_', ' ')}**", "", *(f"- {line}" for line in sentences[name][:3]), ""]
    return "\n".join([*lines[:-1], "````"])


def prompts() -> str:
    rows = [f"| `{key}` | {one.text} | {one.lines} |" for key, one in PROMPTS.items()]
    return "\n".join(["| Id | Question | Lines |", "| --- | --- | --: |", *rows])


TABLES = {"quality": quality, "examples": examples, "prompts": prompts}


def renewed(page: str) -> str:
    """The page with today's tables between their marks."""
    return marks.renewed(page, TABLES)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
