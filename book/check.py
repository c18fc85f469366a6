"""Look at the finished pages the way a reader would, and name everything that is broken.

    python book/check.py [_build/stage]

Sphinx warns about what it cannot resolve; this finds what it renders without a word: an empty page, a table or figure that was
lost, a traceback, an unrun table, TeX that stayed TeX, a value that was not glued in, an image or link without a target.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import yaml
from bs4 import BeautifulSoup, Tag

# pages that are worthless without what stands here
MUST_SHOW = {
    "book/status": "table",
    "book/protocol": "table",
    "book/data_sets": "table",
    "book/descriptions": "table",
    "book/toy_world": "img",
    "notebooks/toy_world": "img",
    "notebooks/zero_shot_gate": "table",
    "notebooks/quickstart": "img",
    "notebooks/method_table": "table",
    "notebooks/shot_curves": "img",
    "notebooks/training_time": "table",
    "notebooks/speed": "img",
    "notebooks/lora_ablation": "img",
    "notebooks/base_to_new": "img",
    "notebooks/transfer": "img",
    "notebooks/tip_adapter_study": "img",
    "notebooks/selection": "img",
    "notebooks/beyond_sixteen": "img",
    "notebooks/statistics": "img",
    "notebooks/claims": "img",
    "notebooks/llm_text_adapter": "table",
    "book/coverage": "table",
    "book/reliability": "table",
    "notebooks/your_own_images": "img",
}
FEWEST_WORDS = 25
NOT_SHOWN = {"remove-cell", "remove-output", "remove_cell", "remove_output"}
UNRESOLVED = re.compile(r"\{(?:glue|cite|ref|doc|numref|eq|include|figure)[:}]|<Figure size|np\.(?:float|int)\d*\(")
RAW_TEX = re.compile(r"\$\$|\$[^$\n]*\\[a-z]+[^$\n]*\$")
MACHINE = re.compile(r"ipykernel_\d+|/(?:home|Users|root)/\w+")


def toc_pages(toc: dict) -> list[str]:
    """Every page of a parsed `_toc.yml`, in reading order."""
    found = [toc["root"]] if "root" in toc else []
    for entry in (*toc.get("parts", ()), *toc.get("chapters", ()), *toc.get("sections", ())):
        found += [entry["file"]] if "file" in entry else []
        found += toc_pages({key: value for key, value in entry.items() if key != "root"})
    return found


def shown(notebook: Path) -> dict[str, int]:
    """How many tables and images an executed notebook printed in cells that the book shows."""
    count = {"table": 0, "img": 0}
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type != "code" or NOT_SHOWN & set(cell.metadata.get("tags", ())):
            continue
        for data in (output.get("data", {}) for output in cell.outputs):
            if any(kind.startswith("image/") for kind in data):
                count["img"] += 1
            elif "text/html" in data:
                count["table"] += data["text/html"].count("<table")
    return count


def prose(article: Tag) -> str:
    """The text a reader sees, without code, equations and scripts."""
    copy = BeautifulSoup(str(article), "html.parser")
    for part in copy.select("script, style, pre, code, .math, mjx-container"):
        part.decompose()
    return copy.get_text(" ", strip=True)


def page_faults(name: str, html: Path, notebook: Path | None = None) -> Iterator[str]:
    """Everything wrong with one page that can be seen on that page alone."""
    soup = BeautifulSoup(html.read_text(encoding="utf-8"), "html.parser")
    article = soup.select_one("article")
    if article is None:
        yield "has no article"
        return
    text = prose(article)
    outputs = article.select(".cell_output")
    tables = article.select("table")

    if len(text.split()) < FEWEST_WORDS and not outputs and not article.select("dl.py"):
        yield f"is empty ({len(text.split())} words)"
    wanted = shown(notebook) if notebook else {}
    if name in MUST_SHOW:
        wanted = wanted | {MUST_SHOW[name]: max(1, wanted.get(MUST_SHOW[name], 0))}
    for kind, number in wanted.items():
        if len(article.select(kind)) < number:
            yield f"should show {number} {kind}, shows {len(article.select(kind))}"
    for table in tables:
        cells = [cell.get_text(" ", strip=True) for cell in table.select("td")]
        lines = [line for row in table.select("tr") if (line := row.find_all("td"))]
        run = [line for line in lines if not any(cell.get_text(strip=True) == "not run" for cell in line)]
        if "not run" in cells and not run and not any(re.search(r"\d\.\d", cell) for cell in cells):
            yield "has a table in which nothing was run"
        if not cells:
            yield "has a table without a cell"

    said = " ".join(output.get_text(" ") for output in outputs)
    if "Traceback (most recent call last)" in said or article.select(".cell_output .traceback"):
        yield "shows a traceback"
    for pattern, fault in ((RAW_TEX, "raw TeX"), (UNRESOLVED, "something unresolved")):
        for hit in sorted(set(pattern.findall(text)))[:3]:
            yield f"shows {fault}: {hit!r}"
    if hit := UNRESOLVED.search(said):
        yield f"shows an unformatted result: {hit.group()!r}"
    if hit := MACHINE.search(article.get_text(" ")):
        yield f"shows a path of this machine: {hit.group()!r}"
    for tag, address in (("img", "src"), ("script", "src"), ("link[rel=stylesheet]", "href")):
        for remote in (t for t in soup.select(f"{tag}[{address}]") if urlsplit(t[address]).scheme in ("http", "https")):
            yield f"needs the network for {remote[address]}"


def target_faults(html: Path) -> Iterator[str]:
    """Images and internal links of one page whose target is missing."""
    soup = BeautifulSoup(html.read_text(encoding="utf-8"), "html.parser")
    for tag, address in (("img", "src"), ("a", "href")):
        for item in soup.select(f"article {tag}[{address}]"):
            parts = urlsplit(item[address])
            if parts.scheme or parts.netloc:
                continue
            target = html.parent / unquote(parts.path) if parts.path else html
            if not target.exists() or (tag == "img" and target.stat().st_size == 0):
                yield f"{tag} without a target: {item[address]}"
            elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in identifiers(target):
                yield f"link to a missing place: {item[address]}"


_identifiers: dict[Path, set[str]] = {}


def identifiers(html: Path) -> set[str]:
    html = html.resolve()
    if html not in _identifiers:
        _identifiers[html] = set(re.findall(r"""\bid=["']([^"']+)["']""", html.read_text(encoding="utf-8")))
    return _identifiers[html]


def faults(stage: Path) -> list[str]:
    """Every fault of the book built in `stage`, one line each; empty for a sound book."""
    html = stage / "_build" / "html"
    found = []
    for name in toc_pages(yaml.safe_load((stage / "_toc.yml").read_text())):
        page, notebook = html / f"{name}.html", stage / f"{name}.ipynb"
        if not page.exists():
            found.append(f"{name}: was not built")
            continue
        found += [f"{name}: {fault}" for fault in page_faults(name, page, notebook if notebook.exists() else None)]
        found += [f"{name}: {fault}" for fault in target_faults(page)]
    return found


if __name__ == "__main__":
    problems = faults(Path(sys.argv[1] if len(sys.argv) > 1 else "_build/stage"))
    print("\n".join(problems) or "every page is sound")
    sys.exit(bool(problems))
