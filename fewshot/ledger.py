"""The ledger of claims: verdicts as tables, a figure and sentences; each is a view of `fewshot.claims.verdicts`."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from fewshot.claims import Verdict
from fewshot.comparisons import FAILS, HOLDS, NOT_RUN, UNDECIDED, VERDICTS, Finding
from fewshot.errors import FewshotError
from fewshot.report import Table, use_style
from fewshot.runs import ROOT

NOT_HERE = "not run here"
EDGE = 30.0  # points: what lies further out is drawn at the edge of the figure
# marker, fill, colour of a verdict: any two differ in shape and in lightness
LOOKS = {HOLDS: ("o", "full", "#0072B2"), FAILS: ("X", "full", "#B3400A"), UNDECIDED: ("D", "none", "#666666")}


def anchor(name: str) -> str:
    """The id under which the page of the claims shows a claim."""
    return f"claim-{name}"


def place(page: str, cell: str) -> tuple[str, str, str]:
    """(title of a notebook, the heading above one of its cells, that heading's id in the book).

    Raises FewshotError for a notebook or a cell that does not exist.
    """
    path = ROOT / "notebooks" / f"{page}.ipynb"
    if not path.is_file():
        raise FewshotError(f"there is no notebook {page}; name one of notebooks/.")
    title = heading = ""
    for one in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if one["cell_type"] == "markdown":
            for level, words in re.findall(r"^(#+) +(.+)$", "".join(one["source"]), re.M):
                title, heading = (words, words) if level == "#" else (title, words)
        if one.get("id") == cell:
            return title, heading, slug(heading)
    raise FewshotError(f"the notebook {page} has no cell {cell!r}; name the id of one of its cells.")


def slug(heading: str) -> str:
    """The id that the book gives a heading."""
    return re.sub(r"^[-0-9]+|-+$", "", re.sub(r"[^a-z0-9]+", "-", heading.lower()))


def count(found: Sequence[Verdict], papers: Mapping[str, str]) -> Table:
    """How many claims of each paper have which verdict: on data sets like these, and on these."""
    lines = {}
    for key, name in {**papers, "": "all"}.items():
        own = [one for one in found if key in ("", one.claim.paper)]
        if own:
            beyond = [one.here.verdict for one in own]
            these = [one.here.on_these.verdict for one in own]
            lines[name] = {"claims": len(own)} | {verdict: beyond.count(verdict) for verdict in VERDICTS}
            lines[name] |= {f"{verdict}, on these": these.count(verdict) for verdict in VERDICTS[:3]}
    table = Table(pd.DataFrame.from_dict(lines, orient="index").map(str).rename_axis("paper"))
    table.caption = (
        "Claims by verdict in the toy world. First on data sets like these (interval over data sets), then on these data "
        "sets (interval over seeds). A claim about one data set, or about every one, has one verdict, which counts in both."
    )
    return table


def overview(found: Iterable[Verdict], papers: Mapping[str, str]) -> Table:
    """A line per claim, to sort: both verdicts, the effect against what it is held, the paper's own effect."""
    lines = {}
    for one in found:
        lines[one.claim.title] = {
            "verdict (toy)": one.here.verdict,
            "on these data sets": one.here.on_these.verdict,
            "effect (toy) [95 %]": one.here.number,
            "holds": rule(one.here),
            "published": one.published.number if one.published else "–",
            "paper scale": _paper_scale(one.paper, short=True),
            "over (toy)": one.here.over,
            "paper": papers[one.claim.paper],
        }
    table = Table(pd.DataFrame.from_dict(lines, orient="index").rename_axis("claim"))
    table.caption = (
        "Effects in points of accuracy, or as a ratio (×) of seconds. Toy numbers are measured with drawn pictures; the "
        "published ones and those at paper scale are about photographs. A published effect without an interval is a "
        "difference of averages."
    )
    return table


def rule(finding: Finding) -> str:
    """Where the interval must lie: "> 0", "< −1", "within ±1"."""
    if finding.scale == "times":
        return f"{'<' if finding.side == 'below' else '>'} {math.exp(finding.threshold):.3g}×"
    text = f"{'<' if finding.side == 'below' else '>'} {finding.threshold:g}"
    return text.replace("-", "−")


class Entries:
    """The claims of one paper in full, as a sortable table a line per claim; a notebook shows it."""

    # heads and the least width of their columns, in em
    HEAD = {
        "claim": 7,
        "what is said": 13,
        "published": 8.5,
        "toy world": 10,
        "paper scale": 5,
        "verdict (toy)": 7,
    }

    def __init__(self, found: Iterable[Verdict]):
        self.found = list(found)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in self.HEAD)
        body = "\n".join(self._line(one) for one in self.found)
        return f'<table class="sortable claims"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'

    def _line(self, one: Verdict) -> str:
        claim, here, e = one.claim, one.here, html.escape
        title, heading, to = place(claim.page, claim.cell)
        said = f"{e(claim.wording)}<small>Said in: {e(claim.place)}.</small><small>Decided by: {e(claim.decides)} "
        said += f"Holds: {e(rule(here))}.</small>"
        said += f'<small>Shown in <a href="{claim.page}.html#{to}">{e(title)}</a>: {e(heading)}</small>'
        theirs, toy, verdict = "–", e(here.text), f"<strong>{here.verdict}</strong>"
        if one.published:
            source = (claim.published or {}).get("from", "")
            theirs = f"{e(one.published.text)}<small>{e(source)}{e(_own_rule(one.published))}</small>"
        if here.these:
            toy += f"<small>on these data sets: {e(here.these.number)} over {e(here.these.over)}</small>"
            verdict += f"<small>on these data sets: {here.these.verdict}</small>"
        style = 'style="white-space: normal; text-align: left; vertical-align: top; min-width: {}em"'
        first, *widths = map(style.format, self.HEAD.values())
        cells = (said, theirs, toy, e(_paper_scale(one.paper)), verdict)
        line = "".join(f"<td {width}>{cell}</td>" for width, cell in zip(widths, cells, strict=True))
        return f'<tr id="{anchor(claim.id)}"><th scope="row" {first}>{e(claim.title)}</th>{line}</tr>'


def _own_rule(finding: Finding) -> str:
    """What the rule says about published numbers, where they are several."""
    return f"; by the same rule: {finding.verdict}" if finding.effect.n > 1 else ""


def _paper_scale(finding: Finding, short: bool = False) -> str:
    if not finding.effect.n:
        return NOT_HERE
    return finding.number if short else f"{finding.text}: {finding.verdict}"


def statement(found: Sequence[Verdict]) -> str:
    """In paragraphs of Markdown: how many claims hold, do not, are open, and which they are."""
    if not found:
        return "No claim is asked for."

    def listed(verdict: str, look=lambda one: one.here) -> list[str]:
        return [one.claim.title for one in found if look(one).verdict == verdict]

    beyond = {verdict: listed(verdict) for verdict in VERDICTS}
    these = {verdict: listed(verdict, lambda one: one.here.on_these) for verdict in VERDICTS}
    lines = [
        f"Of {len(found)} claims, on data sets like these: {_counted(beyond)}.",
        f"On these data sets, over seeds: {_counted(these)}.",
    ]
    for verdict in (HOLDS, FAILS, NOT_RUN):
        if beyond[verdict]:
            lines.append(f"**{verdict.capitalize()}** (toy): {'; '.join(beyond[verdict])}.")
    paper = [one for one in found if one.paper.effect.n]
    lines.append(
        f"{len(paper)} of {len(found)} claims have rows at paper scale."
        if paper
        else "No claim has rows at paper scale here: nothing on this page is about photographs but published numbers."
    )
    return "\n\n".join(lines)


def _counted(groups: Mapping[str, list]) -> str:
    """The counts as words: "10 hold, 6 do not hold, 26 undecided"."""
    words = {HOLDS: "hold", FAILS: "do not hold"}
    return ", ".join(f"{len(names)} {words.get(verdict, verdict)}" for verdict, names in groups.items() if names)


def forest(found: Sequence[Verdict]):
    """Every effect with its two intervals, drawn towards its claim: right of the line it speaks for it, left against it.

    Zero is the threshold. Long thin bars: 95 % over data sets; short thick ones: over seeds. What is not run has no mark.
    Returns the matplotlib Figure (closed: a notebook shows it once).
    """
    import matplotlib.pyplot as plt

    use_style()
    panels = {scale: [one for one in found if one.here.scale == scale] for scale in ("points", "times")}
    panels = {scale: own for scale, own in panels.items() if own} or {"points": []}
    heights = [max(2, len(own)) for own in panels.values()]
    size = (7, 0.2 * sum(heights) + 0.75 * len(panels) + 0.6)
    figure, axes = plt.subplots(
        len(panels), 1, figsize=size, squeeze=False, height_ratios=heights, layout="constrained"
    )
    for axis, (scale, own) in zip(axes.flat, panels.items(), strict=True):
        _panel(axis, own, scale)
    handles = [_handle(plt, verdict) for verdict in LOOKS]
    figure.legend(handles, list(LOOKS), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        "toy world; 95 % intervals: thin over data sets, thick over seeds", fontsize="small", color="#444444"
    )
    plt.close(figure)
    return figure


def _panel(axis, own: Sequence[Verdict], scale: str) -> None:
    edge = EDGE if scale == "points" else math.log(30)
    for height, one in enumerate(reversed(own)):
        if one.here.verdict == NOT_RUN:
            axis.text(0, height, f"  {NOT_RUN}", va="center", fontsize="x-small", color="#666666")
            continue
        marker, fill, colour = LOOKS[one.here.verdict]
        for finding in (one.here, one.here.these):
            if finding is not None:
                width = 3.5 if finding.effect.unit == "seeds" else 1.0
                low, high = sorted((_towards(finding, finding.effect.low), _towards(finding, finding.effect.high)))
                low, high = max(low, -edge), min(high, edge)
                if low < high:
                    axis.plot(
                        [low, high], [height, height], color=colour, linewidth=width, solid_capstyle="butt", zorder=2
                    )
        middle = min(max(_towards(one.here, one.here.effect.mean), -edge), edge)
        look = dict(marker=marker, color=colour, markersize=8, markerfacecolor="white" if fill == "none" else colour)
        axis.plot(
            [middle], [height], linestyle="", markeredgecolor=colour if fill == "none" else "white", zorder=3, **look
        )
    axis.axvline(0, color="#333333", linewidth=1, zorder=1)
    axis.set_yticks(range(len(own)), [one.claim.title for one in reversed(own)], fontsize="x-small")
    axis.set_ylim(-0.7, len(own) - 0.3)
    axis.set_xlim(-1.04 * edge, 1.04 * edge)
    axis.grid(axis="y", color="#EDEDED")
    if scale == "times":
        axis.set_xticks([math.log(t) for t in (1 / 16, 1 / 4, 1, 4, 16)], ["1/16", "1/4", "1", "4", "16"])
        axis.set_xlabel("times beyond the threshold, towards the claim", fontsize="small")
    else:
        axis.set_xlabel(f"points beyond the threshold, towards the claim (cut off at {EDGE:.0f})", fontsize="small")


def _towards(finding: Finding, value: float) -> float:
    return (value - finding.threshold) * (1 if finding.side == "above" else -1)


def _handle(plt, verdict: str):
    marker, fill, colour = LOOKS[verdict]
    inside = "white" if fill == "none" else colour
    return plt.Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=inside, markersize=7)


def lines_of(found: Iterable[Verdict]) -> str:
    """The best-known claims as a Markdown table, for the README."""
    lines = ["| Claim | Published | Toy | On data sets like these | On these data sets |", "|---|---:|---:|---|---|"]
    for one in found:
        theirs = one.published.number if one.published else "–"
        cells = (one.claim.title, theirs, one.here.number, one.here.verdict, one.here.on_these.verdict)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
