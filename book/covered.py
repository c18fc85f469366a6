"""Write the table of book/coverage.md: every table and figure of the papers, where it is shown, and what was measured.

    python book/covered.py

A test fails when page and rows differ, when copied numbers belong to no entry, and when a place does not exist.
"""

import functools
import re
from pathlib import Path

import marks
import pandas as pd
import yaml

from fewshot import claims, ledger
from fewshot.errors import FewshotError

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "book" / "coverage.md"
FILE = ROOT / "published" / "coverage.yaml"
FIELDS = {"paper", "item", "shows", "csv", "page", "cell", "heading", "study", "of"}


def entries(file: Path = FILE) -> list[dict]:
    """The items of the papers. Raises FewshotError for an unknown field or one that is missing."""
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    for entry in found:
        wrong = sorted(set(entry) - FIELDS) or sorted({"paper", "item", "shows", "page"} - set(entry))
        if wrong or not {"cell", "heading"} & set(entry):
            what = wrong[0] if wrong else "cell or heading"
            raise FewshotError(
                f"{file.name}, {entry.get('item', entry)}: look at {what!r}; fields are {sorted(FIELDS)}."
            )
    return found


def link(entry: dict) -> str:
    """A link to the place where an item is shown. Raises FewshotError for a page, cell or heading that does not exist."""
    folder, _, name = entry["page"].rpartition("/")
    if folder == "notebooks":
        title, heading, slug = ledger.place(name, entry["cell"])
    else:
        path = ROOT / f"{entry['page']}.md"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        title, heading = next(iter(re.findall(r"^# (.+)$", text, re.M)), ""), entry["heading"]
        if not re.search(rf"^#+ {re.escape(heading)}$", text, re.M):
            raise FewshotError(
                f"{entry['page']} has no heading {heading!r}; name a page below book/ and one of its headings."
            )
        slug = ledger.slug(heading)
    return f'<a href="../{entry["page"]}.html#{slug}">{title}</a>' + (f": {heading}" if heading != title else "")


def state(entry: dict, profile: str, folder: Path | None = None) -> str:
    """How many of the rows that an item needs are there: "33 of 66", "682", or "not run here"."""
    if "study" not in entry:
        return "–"
    frame = _frame(entry["study"], profile, folder)
    for name, wanted in entry.get("of", {}).items():
        wanted = [0, *wanted] if name == "shots" else wanted
        if name == "arm" and (lost := set(wanted) - set(frame["arm"])):
            raise FewshotError(f"{entry['item']}: {entry['study']} has no arm {sorted(lost)[0]!r}.")
        frame = frame[frame[name].isin(wanted)]
    frame = frame.drop_duplicates("key")
    there, asked = int(frame["accuracy"].notna().sum()), len(frame)
    return ledger.NOT_HERE if not there else f"{there:,}" if there == asked else f"{there:,} of {asked:,}"


@functools.cache
def _frame(study: str, profile: str, folder: Path | None) -> pd.DataFrame:
    return claims.measured(study, profile, folder)


def table(folder: Path | None = ROOT / "results", file: Path = FILE) -> str:
    """Markdown: a line per item with its place and the rows that are there."""
    lines = [["Paper", "Item", "What it shows", "Here", "Toy rows", "Paper-scale rows"], ["---"] * 4 + ["---:"] * 2]
    for entry in entries(file):
        rows = [state(entry, profile, folder) for profile in ("toy", "paper")]
        lines.append([entry["paper"], entry["item"], entry["shows"], link(entry), *rows])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def uncovered(folder: Path = ROOT / "published", file: Path = FILE) -> list[str]:
    """Copied numbers (a file, or a source within it) that belong to no item; and the other way round."""
    there = set()
    for path in sorted(folder.glob("*.csv")):
        frame = pd.read_csv(path)
        there |= {(path.name, source) for source in frame["source"]} if "source" in frame else {(path.name, None)}
    named = {(one["file"], one.get("source")) for entry in entries(file) for one in entry.get("csv", [])}
    return [f"{name} ({source or 'all of it'})" for name, source in sorted(there ^ named, key=str)]


def renewed(page: str, folder: Path | None = ROOT / "results") -> str:
    """The page with today's table."""
    return marks.renewed(page, {"coverage": lambda: table(folder)})


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
