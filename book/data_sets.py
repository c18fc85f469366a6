"""Write the tables of book/data_sets.md from the data file: python book/data_sets.py. A test fails when the two differ."""

from pathlib import Path

import marks

from fewshot.data.catalogue import Download, Entry, Layout, entry, keys
from fewshot.data.commands import size, spelled

PAGE = Path(__file__).resolve().parent / "data_sets.md"
HOW = {"download": "`fetch`", "login": "account", "by hand": "by hand"}
WHY = {"dead": "dead", "login": "asks for an account", "browser": "for a browser"}


def table(heading: list[str], rows: list[list[str]], align: str) -> str:
    line = {"l": "---", "r": "--:"}
    lines = [heading, [line[a] for a in align], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def what_there_is() -> str:
    rows = []
    for one in map(entry, keys()):
        counts = [f"{one.sizes[part]:,}" if one.sizes[part] else "–" for part in ("train", "val", "test")]
        rows.append([f"`{one.key}`", f"{one.classes:,}", *counts, size(one.size), HOW[one.get]])
    return table(["Name", "Classes", "Train", "Val", "Test", "Download", "How"], rows, "lrrrrrl")


def licences() -> str:
    rows = [[f"`{key}`", entry(key).licence] for key in keys()]
    return table(["Name", "Licence"], rows, "ll")


def folders() -> str:
    def line(layout: Layout) -> str:
        return f"`{spelled(layout)}`".replace(" and ", "` and `") + f" ({layout.of})"

    rows = [[f"`{key}`", "<br>".join(map(line, entry(key).layouts))] for key in keys()]
    return table(["Name", "Below a data root (as in)"], rows, "ll")


def by_hand() -> str:
    parts = []
    for one in (one for one in map(entry, keys()) if one.steps):
        steps = "\n".join(f"{i}. {step}" for i, step in enumerate(one.steps, 1))
        parts.append(f"**{one.title}**\n\n{steps}")
    return "\n\n".join(parts)


def sources() -> str:
    """Per data set what to download, from where, its hash, and the copies."""
    return "\n\n".join(_source(entry(key)) for key in keys())


def _source(one: Entry) -> str:
    lines = [
        f"````{{dropdown}} {one.title}",
        f"Also called {_words(one.aliases)}." if one.aliases else "",
        f"Home: {one.home}",
        "",
    ]
    for file in (*one.archives, *([one.split] if one.split else [])):
        lines.append(f"- `{file.file}` ({size(file.size)}; {_hash(file)})")
        lines += [f"  - `{address}`" for address in file.addresses]
        lines += [f"  - `{address}` ({WHY[state]})" for state, address in file.others]
        if not file.addresses and not file.others:
            lines.append("  - made from the official lists, or read where it lies")
    if one.elsewhere:
        lines += ["", "Other copies:", "", *(f"- `{at}`: {what}" for at, what in one.elsewhere)]
    return "\n".join([*lines, "````"])


def _words(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _hash(file: Download) -> str:
    if file.known_hash is None:
        return "no published hash"
    algorithm, _, digest = file.known_hash.partition(":")
    return f"{algorithm} `{digest}`"


TABLES = {
    "what there is": what_there_is,
    "licences": licences,
    "folders": folders,
    "by hand": by_hand,
    "sources": sources,
}


def renewed(page: str) -> str:
    """The page with today's tables between their marks."""
    return marks.renewed(page, TABLES)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
