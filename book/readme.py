"""Write what the README and the front page say from rows: python book/readme.py. A test fails when they differ."""

import functools
import sys
from pathlib import Path

import marks

from fewshot import claims, ledger
from fewshot.published import published
from fewshot.report import TITLES, averaged
from fewshot.rows import Rows

ROOT = Path(__file__).resolve().parent.parent


def cell(mean: float, std: float, seeds: int) -> str:
    return f"{mean:.1f} ± {std:.1f}" if seeds > 1 else f"{mean:.1f}"


def table(rows, paper) -> str:
    """Markdown: one line per method, the averages here (toy) at every number of shots, then the published ones."""
    paper = paper[(paper["dataset"] == "average") & (paper["classes"] == "all") & (paper["variant"] != "coop_ctx4")]
    here = averaged(rows).groupby(["method", "shots"])["accuracy"].agg(["mean", lambda a: a.std(ddof=0), "size"])
    shots = sorted(k for k in rows["shots"].unique() if k > 0)
    printed = [k for k in shots if k in set(paper["shots"])]
    seeds = int(here["size"].max())
    heading = ["Method", *(f"toy, {k}" for k in shots), *(f"published, {k}" for k in printed)]
    lines = [heading, ["---"] + ["---:"] * (len(heading) - 1)]
    known = {m for m, _ in here.index} | set(paper["method"])
    for method, title in ((m, t) for m, t in TITLES.items() if m in known):  # one is about other data sets
        cells = [title]
        for k in shots:
            key = (method, 0 if method == "zero_shot" else k)
            cells.append(cell(*here.loc[key]) if key in here.index else "not run")
        for k in printed:
            same = paper[(paper["method"] == method) & paper["shots"].isin([0 if method == "zero_shot" else k])]
            cells.append(f"{same['top1'].max():.1f}" if len(same) else "–")
        lines.append(cells)
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    note = (f"Top-1 accuracy in percent by shots per class, mean ± population standard deviation over {seeds} seeds "
            f"({len(rows)} rows; zero-shot has no seed). CoOp has 16 context vectors, here and in the published "
            "columns.")  # fmt: skip
    return f"{body}\n\n{note}"


def rows_table(folder: Path = ROOT / "results") -> str:
    return table(Rows(folder / "method_table-toy.jsonl").frame(), published("clip_lora"))


@functools.cache
def judged(folder: Path = ROOT / "results", file: Path = claims.FILE) -> tuple[claims.Ledger, list[claims.Verdict]]:
    """The ledger and its verdicts, on the toy rows of a folder."""
    book = claims.load(file)
    return book, claims.verdicts(book.claims, folder=folder)


def claims_table(folder: Path = ROOT / "results", file: Path = claims.FILE) -> str:
    """For the README: how many claims hold, and the best-known ones."""
    book, found = judged(folder, file)
    counts = ledger.count(found, book.papers)
    heading = ["Claims of", *counts.columns]
    lines = [heading, ["---"] + ["---:"] * len(counts.columns), *([name, *line] for name, *line in counts.itertuples())]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    known = ledger.lines_of(one for one in found if one.claim.known)
    note = ("Effects in points (of a share: beyond half of it), with × as a ratio of seconds; [95 % interval] over data sets, "
            "of published numbers too where they are several. "
            "*On data sets like these* asks whether another data set would do the same, *on these data sets* whether other "
            "pictures of the same data sets would.")  # fmt: skip
    return f"{body}\n\nThe best known:\n\n{known}\n\n{note}"


def front_table(folder: Path = ROOT / "results", file: Path = claims.FILE) -> str:
    """For the front page: a line per claim of the papers, where to read, and a link to each verdict."""
    book, found = judged(folder, file)
    verdicts = {one.claim.id: one for one in found}
    lines = [["Claim", "Read", "On data sets like these", "On these data sets"], ["---"] * 4]
    for line in book.front:
        own = [verdicts[name] for name in line["claims"]]
        lines.append([line["says"], line["read"], _links(own), _links(own, these=True)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _links(found: list[claims.Verdict], these: bool = False) -> str:
    """The verdicts of some claims, each a link to its place on the page of the claims."""
    said = []
    for one in found:
        verdict = (one.here.on_these if these else one.here).verdict
        to = f"../notebooks/claims.html#{ledger.anchor(one.claim.id)}"
        said.append(f'<a href="{to}" title="{one.claim.title}">{verdict}</a>')
    return ", ".join(said)


def renewed(readme: str, folder: Path = ROOT / "results", file: Path = claims.FILE) -> str:
    """The README with today's rows in its tables."""
    parts = {"rows": lambda: rows_table(folder), "claims": lambda: claims_table(folder, file)}
    return marks.renewed(readme, parts)


def renewed_front(page: str, folder: Path = ROOT / "results", file: Path = claims.FILE) -> str:
    """The front page with today's verdicts."""
    return marks.renewed(page, {"claims": lambda: front_table(folder, file)})


if __name__ == "__main__":
    for name, renew in (("README.md", renewed), ("book/intro.md", renewed_front)):
        path = ROOT / name
        path.write_text(renew(path.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
