"""`fewshot data list | check | fetch | export-split`: what the commands print."""

from __future__ import annotations

from fewshot.data.catalogue import Download, Entry, Layout, entry, keys
from fewshot.data.check import check, in_words
from fewshot.data.fetch import fetch
from fewshot.data.places import data_roots
from fewshot.errors import FewshotError

STEPS = "what to do by hand"


def list_(names: list[str], root: str | None) -> None:
    """A line per data set; with names, everything that is known about each."""
    if names:
        print("\n\n".join(_page(entry(name), root) for name in names))
        return
    print(f"data below {', '.join(str(folder) for folder in data_roots(root))}\n")
    heading = ("name", "classes", "train", "val", "test", "download", "how", "on this disk", "licence")
    lines = [heading, *(_line(entry(key), check(key, root).word) for key in keys())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heading))]
    for line in lines:
        cells = [cell.rjust(w) if 0 < i < 6 else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())


def check_(names: list[str], root: str | None, pictures: bool) -> None:
    """A sentence per data set. Raises FewshotError when one that is named, or one that is there, is not as it should be."""
    states = [check(name, root, pictures) for name in names or keys()]
    faults = [state for state in states if not state.ok and (names or state.place)]
    for state in states:
        if state.ok or (state.place is None and not names):
            print(f"{state.name:<16} {state.word:<14} {state.sentence if state.ok else ''}".rstrip())
    if faults:
        more = (
            f" (and {len(faults) - 1} more: {', '.join(state.name for state in faults[1:])})" if len(faults) > 1 else ""
        )
        raise FewshotError(faults[0].sentence + more)


def fetch_(names: list[str], root: str | None, source: str | None, keep: bool) -> None:
    """Fetch one after the other; where a data set cannot be fetched, first print what to do."""
    if source and len(names) > 1:
        raise FewshotError("--from belongs to one data set; fetch them one by one.")
    for name in names:
        one = entry(name)
        try:
            print(fetch(name, root, source, keep).sentence)
        except FewshotError:
            if one.steps:
                print(f"{one.title}, {STEPS}:\n{_steps(one)}\n")
            raise


def export_split(name: str, shots: int, seed: int, order: str, output: str | None) -> None:
    """Draw the few shots of a data set and write them as JSON lines."""
    from fewshot.data import load_task
    from fewshot.data.draws import export_split

    task = load_task(name, shots, seed, order)
    place = output or f"{task.dataset.replace('/', '-')}-{shots}shots-seed{seed}.jsonl"
    export_split(task, place)
    print(f"{place}: {len(task.train)} train and {len(task.val)} val pictures, hash {task.split_hash}")


def size(bytes: int | None) -> str:
    """ "94 MB", "39.1 GB", "?"."""
    if bytes is None:
        return "?"
    return f"{bytes / 1e9:.1f} GB" if bytes >= 1e9 else f"{max(1, round(bytes / 1e6))} MB"


def spelled(layout: Layout) -> str:
    """The folders of a layout below a data root: "oxford_pets/images/"."""
    places = layout.needs if layout.images == "." else (layout.images,)
    return " and ".join("/".join(part for part in (layout.folder, place) if part != ".") + "/" * ("." not in place)
                        for place in places)  # fmt: skip


def _line(one: Entry, word: str) -> tuple[str, ...]:
    counts = [f"{one.sizes[part]:,}" if one.sizes[part] else "-" for part in ("train", "val", "test")]
    return (one.key, f"{one.classes:,}", *counts, size(one.size), one.get, word, one.licence)


def _page(one: Entry, root: str | None) -> str:
    state = check(one.key, root)
    lines = [
        f"{one.key}: {one.title}",
        f"  {one.classes:,} classes; {in_words(one.sizes)}; {size(one.size)} to download",
        f"  licence: {one.licence}",
        f"  home: {one.home}",
        f"  other names: {', '.join(one.aliases) or '-'}",
        f"  on this disk: {state.word}. {state.sentence}",
        "  read below a data root from",
        *(f"    {folders} ({layout.of})" for layout in one.layouts for folders in [spelled(layout)]),
        "  files",
    ]
    for file in (*one.archives, *([one.split] if one.split else [])):
        lines += _sources(file)
    if one.elsewhere:
        lines += ["  other copies, unseen", *(f"    {at} ({what})" for at, what in one.elsewhere)]
    if one.steps:
        lines += [f"  {STEPS}", _steps(one)]
    return "\n".join(lines)


def _sources(file: Download) -> list[str]:
    hashed = f"{file.known_hash.partition(':')[0]} known" if file.known_hash else "no hash published"
    state = {"dead": "dead", "login": "asks for a login", "browser": "needs a browser"}
    return [
        f"    {file.file} ({size(file.size)}, {hashed})",
        *(f"      {address}" for address in file.addresses),
        *(f"      {address} [{state[word]}]" for word, address in file.others),
    ]


def _steps(one: Entry) -> str:
    return "\n".join(f"    {i}. {step}" for i, step in enumerate(one.steps, 1))
