"""Write the README's table of results from the rows: python book/readme.py. A test fails when the two differ."""

import sys
from pathlib import Path

import marks

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


def rows_table() -> str:
    return table(Rows(ROOT / "results" / "method_table-toy.jsonl").frame(), published("clip_lora"))


def renewed(readme: str) -> str:
    """The README with the table of today's rows."""
    return marks.renewed(readme, {"rows": rows_table})


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
