"""Tables and verdicts: views on rows; every number comes from a row or from a published table. Figures: curves.py."""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from fewshot.errors import FewshotError
from fewshot.published import VARIANT_CONFIG

TITLES = {
    "zero_shot": "Zero-shot CLIP",
    "linear_probe": "Linear-probe CLIP",
    "cross_modal_probe": "Cross-modal probe",
    "lpplusplus": "LP++",
    "gda": "GDA",
    "tip_adapter": "Tip-Adapter",
    "tip_adapter_f": "Tip-Adapter-F",
    "clip_adapter": "CLIP-Adapter",
    "taskres": "TaskRes",
    "coop": "CoOp",
    "cocoop": "CoCoOp",
    "kgcoop": "KgCoOp",
    "prograd": "ProGrad",
    "plotpp": "PLOT++",
    "maple": "MaPLe",
    "clip_lora": "CLIP-LoRA",
    "fine_tune": "Full fine-tuning",
    "text_adapter": "LLM-text adapter",
}
SETTING = [
    "profile",
    "backbone",
    "pretrained",
    "selection",
    "config",
    "clip",
    "limit",
]  # must not vary unseen in a mean
NOT_RUN = "not run"
TEMPLATES = {"task": "own template", "photo": "a photo of a {}.", "ensemble": "seven templates"}  # of zero-shot
PUBLISHED = "published"  # the profile of numbers that were copied, not measured
REPRODUCED_WITHIN = 1.0  # points
BENCHMARK = 11  # data sets; an average over fewer says which


class Table(pd.DataFrame):
    """A DataFrame of ready text that a notebook shows as a sortable table with its marks and its caption.

    `marks`, `tints` (0 to 1) and `hints` (shown under the pointer) are of cells; `kind` is one more class for the style.
    """

    _metadata = ["marks", "tints", "hints", "caption", "kind"]

    def html(self) -> str:
        """A `<table class="sortable">`: best bold, second best underlined, the caption below the head."""
        marks, tints, hints = (getattr(self, name, None) or {} for name in ("marks", "tints", "hints"))
        head = "".join(
            f'<th scope="col">{_breakable(str(name))}</th>' for name in [self.index.name or "", *self.columns]
        )
        body = []
        for row, values in zip(self.index, self.itertuples(index=False), strict=True):
            cells = [f'<th scope="row">{html.escape(str(row))}</th>']
            for name, value in zip(self.columns, values, strict=True):
                tag = marks.get((row, name))
                text, plus_minus, rest = html.escape(str(value)).partition(" ± ")
                text += f" <small>± {rest}</small>" if plus_minus else ""
                more = ' class="not-run"' if value == NOT_RUN else ""
                if tint := tints.get((row, name)):
                    more += f' style="background: rgba(0, 114, 178, {tint:.2f})"'
                if hint := hints.get((row, name)):
                    more += f' title="{html.escape(hint)}"'
                cells.append(f"<td{more}>{f'<{tag}>{text}</{tag}>' if tag else text}</td>")
            body.append(f"<tr>{''.join(cells)}</tr>")
        caption = getattr(self, "caption", "")
        caption = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        rows = "\n".join(body)
        kind = f"sortable {getattr(self, 'kind', None) or ''}".strip()
        kind += " mathjax_ignore tex2jax_ignore"  # a class may be called $x$
        return f'<table class="{kind}">{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>'

    def _repr_html_(self) -> str:
        return self.html()


def _breakable(name: str) -> str:
    """A column's name that may break behind a slash or an underscore."""
    return html.escape(name).replace("/", "/<wbr>").replace("_", "_<wbr>")


def summary(rows: pd.DataFrame, by: Iterable[str] = ("method", "dataset", "shots")) -> pd.DataFrame:
    """Mean, population standard deviation and n of the accuracy per group; columns by..., mean, std, n.

    Raises FewshotError when a group holds several rows of one seed, which means that settings are mixed.
    """
    by = list(by)
    _one_setting(rows, by)
    groups = rows.groupby(by, sort=False)["accuracy"]
    return groups.agg(mean="mean", std=lambda a: a.std(ddof=0), n="size").reset_index()


def method_table(rows: pd.DataFrame, shots: int, methods: Iterable[str] | None = None, datasets=None) -> Table:
    """Methods x data sets at one number of shots: "mean ± std (n)", zero-shot for comparison, the average first.

    `methods` and `datasets` ask for lines and columns that may not be run yet; they read "not run". The average covers
    exactly the data sets that a method has (the cell says how many when they are fewer than the table's) and its standard
    deviation is that of the per-seed averages. A marked average is the best among those that cover all columns.
    """
    part = rows[rows["shots"].isin([0, shots])]
    methods = list(methods) if methods is not None else _in_order(part["method"].unique())
    datasets = list(datasets) if datasets is not None else sorted(part["dataset"].unique())
    if not methods or not datasets:
        raise FewshotError(f"there is no row with {_shots(shots)}; run the experiment first.")
    part = part[part["method"].isin(methods) & part["dataset"].isin(datasets)]
    cells = {
        (m, d): (mean, std, n) for m, d, mean, std, n in summary(part, ["method", "dataset"]).itertuples(index=False)
    }
    text, means, partial = {}, {}, {}
    for method in methods:
        for dataset in datasets:
            cell = cells.get((method, dataset))
            text[method, dataset] = _cell(*cell) if cell else NOT_RUN
            if cell:
                means[method, dataset] = cell[0]
        covered = [d for d in datasets if (method, d) in cells]
        if not covered:
            text[method, "average"] = NOT_RUN
            continue
        mean, std, n = _average(part[part["method"] == method], covered)
        text[method, "average"] = _cell(mean, std, n)
        if len(covered) < len(datasets):
            text[method, "average"] += f", {len(covered)} of {len(datasets)} sets"
            partial[method] = covered
        else:
            means[method, "average"] = mean
    columns = ["average", *datasets]
    table = _ranked(text, means, methods, columns)
    note = f"Top-1 accuracy in percent, {_shots(shots)} per class: "
    note += f"mean ± population standard deviation (number of seeds). {_origin(part)}"
    for selection in sorted(set(part["selection"]) - {"fixed"}):
        chosen = _in_order(part.loc[part["selection"] == selection, "method"].unique())
        note += f" Hyper-parameters by {selection}: {', '.join(map(_title, chosen))}; the others fixed."
    for method, covered in partial.items():
        note += f" The average of {_title(method)} covers only {', '.join(covered)}."
    table.caption = note
    return table


def published_table(
    published: pd.DataFrame, shots: int, methods: Iterable[str] | None = None, datasets: Iterable[str] | None = None
) -> Table | None:
    """The papers' numbers in the layout of `method_table`; None when they have none at this number of shots.

    `methods` and `datasets` narrow it to what a table beside it shows ("toy/eurosat" counts as eurosat); methods that only
    the papers have are left out then. Without them everything published is shown.
    """
    part = published[(published["classes"] == "all") & published["shots"].isin([0, shots])]
    if not (part["shots"] == shots).any():
        return None
    order = list(dict.fromkeys(part["variant"]))
    names = dict(zip(part["variant"], part["method"], strict=True))
    if methods is not None:
        order = [v for m in methods for v in order if names[v] == m]
    columns = sorted(dict.fromkeys(part["dataset"]), key=lambda d: d != "average")
    if datasets is not None:
        wanted = [d.removeprefix("toy/") for d in datasets]
        whole = set(columns) - {"average"} <= set(wanted)  # the papers' average belongs to all of theirs
        columns = [d for d in [*(["average"] if whole else []), *wanted] if d in columns]
    if not order or not columns:
        return None
    means = {(v, d): value for v, d, value in part[["variant", "dataset", "top1"]].itertuples(index=False)}
    text = {(v, d): f"{means[v, d]:.1f}" if (v, d) in means else "" for v in order for d in columns}
    table = _ranked(text, means, order, columns, [_published_title(v) for v in order])
    papers = ", ".join(sorted({f"{s} table {t}" for s, t in part[["source", "table"]].itertuples(index=False)}))
    table.caption = f"Published ({papers}), not measured here: top-1 accuracy in percent, {_shots(shots)} per class, "
    table.caption += "ViT-B/16 on the real data sets."
    return table


def wins(rows: pd.DataFrame, shots: int) -> Table:
    """On how many data sets the method of a line beats that of a column, by means over the seeds; "all": won – lost.

    Only data sets that both have count ("2/3" where that is not all of them); a difference that vanishes at one decimal
    is no win. Bold and tinted where a method wins more often than it loses.
    """
    part = rows[rows["shots"].isin([0, shots])]
    means = {(m, d): mean for m, d, mean in summary(part, ["method", "dataset"])[["method", "dataset", "mean"]].values}
    methods, datasets = _in_order(part["method"].unique()), part["dataset"].unique()
    titles = {m: _title(m) for m in methods}
    table = Table("", index=titles.values(), columns=["all", *titles.values()])
    table.marks, table.tints, table.hints = {}, {}, {}
    for a in methods:
        total = [0, 0]
        for b in (other for other in methods if other != a):
            both = [d for d in datasets if (a, d) in means and (b, d) in means]
            if not both:
                continue
            gaps = [round(means[a, d] - means[b, d], 1) for d in both]
            won, lost = sum(g > 0 for g in gaps), sum(g < 0 for g in gaps)
            total = [total[0] + won, total[1] + lost]
            cell = titles[a], titles[b]
            table.loc[cell] = f"{won}" if len(both) == len(datasets) else f"{won}/{len(both)}"
            table.hints[cell] = (
                f"{titles[a]} against {titles[b]}: {won} won, {lost} lost, {len(both) - won - lost} equal"
            )
            if won > lost:
                table.marks[cell], table.tints[cell] = "strong", 0.5 * (won - lost) / len(both)
        table.loc[titles[a], "all"] = f"{total[0]} – {total[1]}"
    table.index.name, table.kind = "method", "square"
    table.caption = f"On how many of {len(datasets)} data sets the method of the line beats that of the column, "
    table.caption += (
        f"{_shots(shots)} per class; bold where it wins more often than it loses. The first column counts all"
    )
    table.caption += f" duels, won – lost. {_origin(part)}"
    return table


def gains(rows: pd.DataFrame, low: int, high: int) -> Table:
    """What more pictures buy: the mean accuracy at `low` and at `high` shots and the gain, largest gain first.

    Each method is averaged over the data sets on which it has both; the gain's deviation is over the seeds.
    """
    lines = {}
    for method in _in_order(m for m in rows["method"].unique() if m != "zero_shot"):
        pairs = rows[rows["method"] == method].pivot_table(
            index=["dataset", "seed"], columns="shots", values="accuracy"
        )
        pairs = pairs.reindex(columns=[low, high]).dropna()
        gain = pairs[high] - pairs[low]
        by_seed, by_dataset = gain.groupby("seed").mean(), gain.groupby("dataset").mean()
        few, many = (pairs[k].groupby("dataset").mean().mean() for k in (low, high))
        lines[method] = {"gain": by_dataset.mean(), "std": by_seed.std(ddof=0), "n": len(by_seed)}
        lines[method] |= {"few": few, "many": many, "by": by_dataset}
    order = sorted(lines, key=lambda m: -lines[m]["gain"] if lines[m]["n"] else float("inf"))
    columns = [_shots(low), _shots(high), "gain", "gains most on", "least on", "data sets"]
    cells = []
    for method in order:
        line = lines[method]
        if not line["n"]:
            cells.append([NOT_RUN] * len(columns))
            continue
        by, spread = line["by"], f" ± {line['std']:.1f}" if line["n"] > 1 else ""
        ends = [f"{found} {_signed(by[found])}" for found in (by.idxmax(), by.idxmin())]
        gain = f"{_signed(line['gain'])}{spread} ({line['n']})"
        cells.append([f"{line['few']:.1f}", f"{line['many']:.1f}", gain, *ends, str(len(by))])
    table = Table(cells, index=[_title(m) for m in order], columns=columns)
    table.index.name = "method"
    table.caption = (
        f"Mean accuracy in percent over the data sets; gain from {low} to {_shots(high)} per class with its "
    )
    table.caption += f"population standard deviation over the seeds (number of seeds). {_origin(rows)}"
    datasets = sorted(rows["dataset"].unique())
    if len(datasets) < BENCHMARK:
        table.caption += f" Data sets: {', '.join(datasets)}."
    for method in order:
        covered = sorted(lines[method]["by"].index)
        if 0 < len(covered) < len(datasets):
            table.caption += f" {_title(method)} covers only {', '.join(covered)}."
    return table


def averaged(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the mean over all data sets, per method, shots and seed, to draw curves of; incomplete ones are left out."""
    datasets = rows["dataset"].nunique()
    rows = rows.assign(pretrained=rows["pretrained"].fillna(""))  # groupby drops what is missing
    by = ["method", "shots", "seed", "backbone", "pretrained", "profile"]
    groups = rows.groupby(by, sort=False)["accuracy"].agg(["mean", "size"]).reset_index()
    whole = groups[groups["size"] == datasets].rename(columns={"mean": "accuracy"})
    name = f"average of {datasets} data sets"
    if datasets < BENCHMARK:
        name += f" ({', '.join(sorted(n.removeprefix('toy/') for n in rows['dataset'].unique()))})"
    if "limit" in rows and rows["limit"].notna().any():
        name += f" (at most {rows['limit'].max():.0f} test pictures each)"
    return whole.assign(dataset=f"toy/{name}" if rows["dataset"].str.startswith("toy/").all() else name)


def as_rows(published: pd.DataFrame) -> pd.DataFrame:
    """Published numbers of the methods that are here, in the form of rows, to draw curves of (in a figure of their own).

    Of CoOp's two context lengths the longer one is taken, which is the default here.
    """
    from fewshot.methods import METHODS

    part = published[(published["classes"] == "all") & published["method"].isin(METHODS)]
    part = part[part["variant"] != "coop_ctx4"].assign(accuracy=part["top1"], seed=1, profile=PUBLISHED)
    return part.assign(backbone="ViT-B-16-quickgelu", pretrained="openai")


def standing(rows: pd.DataFrame, classes: dict[str, int], published: pd.DataFrame) -> Table:
    """Each toy stand-in between chance and ceiling: zero-shot and a linear probe on all training pictures (-1 shots).

    `classes` maps a stand-in to its number of classes. The last column is the published zero-shot accuracy on the real data.
    """
    here = rows.assign(name=rows["dataset"].str.removeprefix("toy/")).set_index(["method", "name"])["accuracy"]
    paper = published[(published["method"] == "zero_shot") & (published["source"] == "clip_lora")]
    paper = paper.set_index("dataset")["top1"]

    def cell(values, key) -> str:
        return f"{values[key]:.1f}" if key in values.index else NOT_RUN

    lines = {
        name: {
            "classes": str(count),
            "chance": f"{100 / count:.1f}",
            "zero-shot (toy)": cell(here, ("zero_shot", name)),
            "ceiling (toy)": cell(here, ("linear_probe", name)) if ("linear_probe", name) in here.index else "–",
            "zero-shot, real data (published)": cell(paper, name) if name in paper.index else "–",
        }
        for name, count in classes.items()
    }
    table = Table(pd.DataFrame.from_dict(lines, orient="index"))
    table.index.name = "stand-in"
    table.caption = "Top-1 accuracy in percent. The ceiling is a linear probe on the features of all training pictures."
    return table


def paper_here(rows: pd.DataFrame, published: pd.DataFrame) -> Table:
    """Published number, number here, and a verdict, one line for each pair the rows and the papers share.

    On the papers' backbone, data and settings the verdict compares points: "reproduced" (within one) or "off by x". A toy
    number is never compared with a published one: there the verdict asks whether the gain over zero-shot has the same
    sign, and otherwise says "not comparable" and why. A gain below its own standard error (or, with one seed, below one
    point) has no sign.
    """
    published = published[published["classes"] == "all"]
    here = summary(rows)
    configs = rows.groupby(["method", "dataset", "shots"], sort=False).first()
    zero = {row.dataset: row.mean for row in here[here["method"] == "zero_shot"].itertuples(index=False)}
    zero_paper = published[published["method"] == "zero_shot"].set_index(["source", "dataset"])["top1"].to_dict()
    lines = []
    for method, dataset, shots, mean, std, n in here.itertuples(index=False, name=None):
        row = configs.loc[(method, dataset, shots)]
        toy = _is_toy(row["backbone"], dataset)
        name = dataset.removeprefix("toy/")
        same = published[
            (published["method"] == method) & (published["dataset"] == name) & (published["shots"] == shots)
        ]
        for paper in same.itertuples(index=False):
            wanted = VARIANT_CONFIG.get(paper.variant, {})
            config = row.get("config") if isinstance(row.get("config"), dict) else {}
            if any(config.get(option) != value for option, value in wanted.items()):
                continue
            gain_paper = paper.top1 - zero_paper.get((paper.source, name), float("nan"))
            gain = mean - zero.get(dataset, float("nan"))
            if not toy:
                verdict = _difference_verdict(paper, row, mean)
            elif method == "zero_shot":
                verdict = "not comparable: toy"
            else:
                verdict = _sign_verdict(gain_paper, gain, std, n)
            lines.append(
                {
                    "method": _title(method),
                    "data set": dataset,
                    "shots": shots,
                    "paper (published)": f"{paper.top1:.1f}",
                    "here (toy)" if toy else "here": _cell(mean, std, n),
                    "gain over zero-shot, paper": _signed(gain_paper) if method != "zero_shot" else "",
                    "gain over zero-shot, here": _signed(gain) if method != "zero_shot" else "",
                    "verdict": verdict,
                }
            )
    columns = ["method", "data set", "shots", "paper (published)", "here (toy)", "here"]
    columns += ["gain over zero-shot, paper", "gain over zero-shot, here", "verdict"]
    frame = pd.DataFrame(lines, columns=columns).dropna(axis="columns", how="all").fillna("")
    table = Table(frame.set_index("method") if len(frame) else pd.DataFrame(columns=columns[1:]))
    table.index.name = "method"
    table.caption = "Published numbers are copied from the papers, the others were measured: "
    table.caption += f"mean ± population standard deviation (number of seeds). {_origin(rows)}"
    return table


def gate(rows: pd.DataFrame, values: pd.DataFrame, datasets: Iterable[str] | None = None) -> Table:
    """The zero-shot gate: accuracy per data set and template set, the published value, and a verdict per data set.

    `values` as `published.zero_shot_values()`. The verdict is "agrees" (within a point), "off by x", "not comparable: why",
    or "not run"; a published value counts for the backbone and the template set it was made with.
    """
    rows = rows[rows["method"] == "zero_shot"]
    datasets = list(datasets) if datasets is not None else sorted(rows["dataset"].unique())
    lines = {name: _gate_line(rows[rows["dataset"] == name], values, name) for name in datasets}
    table = Table(pd.DataFrame.from_dict(lines, orient="index", columns=[*TEMPLATES.values(), "published", "verdict"]))
    table.index.name = "data set"
    table.caption = (
        "Zero-shot top-1 accuracy in percent by the sentences around the class name, the published value for the "
    )
    table.caption += f"same backbone (and its sentences), and whether they agree within a point. {_origin(rows)}"
    return table


def gate_verdict(rows: pd.DataFrame, values: pd.DataFrame, datasets: Iterable[str] | None = None) -> str:
    """The gate in one line, for the chapters that stand on it."""
    table = gate(rows, values, datasets)
    groups: dict[str, list[str]] = {}
    for name, verdict in table["verdict"].items():
        off = verdict.startswith("off")
        groups.setdefault("off" if off else verdict, []).append(f"{name} ({verdict})" if off else name)
    words = []
    for verdict, names in groups.items():
        listed = (
            ""
            if len(names) == len(table)
            else f" ({', '.join(names)})"
            if verdict != "off"
            else f": {', '.join(names)}"
        )
        words.append(f"{len(names)} of {len(table)} data sets {verdict}{listed}")
    hold = (
        "" if groups.keys() <= {"agrees"} or "off" not in groups else " Find out why before trusting the numbers below."
    )
    return f"Zero-shot gate: {'; '.join(words) or 'no data set'}.{hold}"


def _gate_line(rows: pd.DataFrame, values: pd.DataFrame, name: str) -> list[str]:
    here = {row["config"]["templates"]: row for row in rows.to_dict("records")}
    cells = [f"{here[key]['accuracy']:.1f}" if key in here else NOT_RUN for key in TEMPLATES]
    backbones = {row["backbone"] for row in here.values()} or {"ViT-B-16-quickgelu"}
    known = values[values["backbone"].isin(backbones) & (values["dataset"] == name)]
    said = "; ".join(f"{v.top1:.1f} ({TEMPLATES[v.templates]})" for v in known.itertuples())
    if not here:
        return [*cells, said or "–", NOT_RUN]
    any_row = next(iter(here.values()))
    if _is_toy(any_row["backbone"], name):
        return [*cells, "–", "not comparable: toy"]
    if any_row["backbone"] not in set(values["backbone"]):
        return [*cells, "–", f"not comparable: backbone {any_row['backbone']}"]
    if why := _other_model(any_row, any_row["backbone"]):
        return [*cells, said or "–", f"not comparable: {why}"]
    if pd.notna(any_row.get("limit")):
        return [*cells, said or "–", f"not comparable: {any_row['limit']:.0f} test pictures"]
    if known.empty:
        return [*cells, "–", "not comparable: nothing published"]
    gaps = [here[v.templates]["accuracy"] - v.top1 for v in known.itertuples() if v.templates in here]
    if not gaps:
        return [*cells, said, NOT_RUN]
    worst = max(gaps, key=abs)
    return [*cells, said, "agrees" if abs(worst) <= REPRODUCED_WITHIN else f"off by {_signed(worst)}"]


def computing_seconds(rows: pd.DataFrame) -> float:
    """Seconds of fitting and testing; a training that was tested in several places stands in all its rows, and counts once."""
    fits = rows
    if "target" in rows:
        again = rows.duplicated(["method", "dataset", "shots", "seed", "seconds_fit"]) & rows["target"].notna()
        fits = rows[~again]
    return float(fits["seconds_fit"].sum() + rows["seconds_evaluate"].sum())


def status_table(rows: pd.DataFrame) -> Table:
    """Per profile and method: rows, data sets, minutes in all, seconds per run, trainable numbers, memory, versions."""
    if rows.empty:
        raise FewshotError("there is no row yet; run an experiment first.")
    lines = []
    for (profile, method), group in sorted(
        rows.groupby(["profile", "method"]), key=lambda item: (item[0][0], _rank(item[0][1]))
    ):
        versions = {", ".join(f"{n} {v}" for n, v in sorted(found.items())) for found in group["versions"]}
        lines.append(
            {
                "method": _title(method),
                "profile": profile,
                "rows": len(group),
                "data sets": group["dataset"].nunique(),
                "minutes in all": f"{computing_seconds(group) / 60:.1f}",
                "seconds to fit": f"{group['seconds_fit'].mean():.1f}",
                "seconds to test": f"{group['seconds_evaluate'].mean():.1f}",
                "trainable numbers": _span(group["parameters"]),
                "peak memory, MB": _span(group["peak_memory_mb"].dropna()),
                "hardware": "; ".join(sorted(group["hardware"].unique())),
                "versions": "; ".join(sorted(versions)),
                "last run (UTC)": group["finished"].max()[:16].replace("T", " "),
            }
        )
    table = Table(pd.DataFrame(lines).set_index("method"))
    table.caption = f"{len(rows)} rows, {computing_seconds(rows) / 60:.0f} minutes of computing in all"
    table.caption += f" (the sum of their own clocks); seconds are means per run. {_origin(rows)}"
    return table


def use_style() -> None:
    """The book's look, set once per process: seaborn's white grid, SVG that is the same bytes for the same numbers."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.85)
    # An opaque white plate keeps a figure readable on a dark page.
    plt.rcParams.update(
        {
            "svg.hashsalt": "fewshot",
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "lines.markersize": 6,
            "axes.titlesize": "medium",
        }
    )
    try:
        from IPython import get_ipython
    except ImportError:
        return
    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})


def literal(text: str) -> str:
    """A name of the user's as matplotlib shows it letter by letter: two dollars would make a formula of it."""
    return str(text).replace("$", r"\$")


def save(figure, path) -> None:
    """Write a figure; an SVG comes out byte for byte the same for the same numbers and matplotlib."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def download(frame: pd.DataFrame, name: str):
    """A link to the table as a CSV file; the data are in the link itself, so it works offline and in every copy."""
    import base64

    from IPython.display import HTML

    index = frame.index.name is not None
    data = base64.b64encode(frame.to_csv(index=index).encode()).decode()
    return HTML(f'<a download="{html.escape(name)}" href="data:text/csv;base64,{data}">{html.escape(name)}</a>')


def progress_line(what: str = "runs"):
    """A function (done, total) that keeps one line of a notebook cell up to date; nothing is shown before its first call."""
    import time

    from IPython.display import Pretty, display

    start, shown = time.monotonic(), []

    def update(done: int, total: int) -> None:
        text = f"{done} of {total} {what}, {time.monotonic() - start:.0f} s"
        if shown:
            shown[0].update(Pretty(text))
        else:
            shown.append(display(Pretty(text), display_id=True))

    return update


def _ranked(text: dict, means: dict, methods: list, columns: list, titles: list | None = None) -> Table:
    """The Table of `text`[method, column] whose two best `means` of each column are marked."""
    titles = dict(zip(methods, titles or map(_title, methods), strict=True))
    cells = [[text[m, c] for c in columns] for m in methods]
    table = Table(cells, index=[titles[m] for m in methods], columns=columns)
    table.index.name = "method"
    table.marks = {}
    for column in columns:
        ranked = sorted({round(means[m, column], 1) for m in methods if (m, column) in means}, reverse=True)
        for method in methods:
            place = ranked.index(round(means[method, column], 1)) if (method, column) in means else 2
            if place < 2 and len(ranked) > 1:
                table.marks[titles[method], column] = ("strong", "u")[place]
    return table


def _one_setting(rows: pd.DataFrame, by: list[str]) -> None:
    keys = list(dict.fromkeys([*by, "method", "dataset", "shots", "seed"]))
    double = rows[rows.duplicated(keys, keep=False)]
    if double.empty:
        return
    group = double[(double[keys] == double.iloc[0][keys]).all(axis=1)]
    varying = [name for name in SETTING if name in group and group[name].map(repr).nunique() > 1]
    raise FewshotError(
        f"the rows mix settings: {len(group)} rows for {group.iloc[0]['method']} on {group.iloc[0]['dataset']} with one seed"
        f" differ in {', '.join(varying) or 'nothing but their key'}; keep one of them before averaging."
    )


def _average(rows: pd.DataFrame, datasets: list[str]) -> tuple[float, float, int]:
    """Mean over data sets; standard deviation over the seeds that all of them have."""
    by_seed = rows.pivot_table(index="seed", columns="dataset", values="accuracy")[datasets]
    complete = by_seed.dropna().mean(axis=1)
    return by_seed.mean().mean(), complete.std(ddof=0) if len(complete) else float("nan"), len(complete)


def _difference_verdict(paper, row, mean: float) -> str:
    if why := _other_model(row):
        return f"not comparable: {why}"
    if paper.source == "text_adapter":
        return "not comparable: the paper names no backbone"
    if row["profile"] != "paper":
        return f"not comparable: profile {row['profile']}"
    if pd.notna(row.get("limit")):
        return f"not comparable: {row['limit']:.0f} test pictures"
    difference = mean - paper.top1
    return "reproduced" if abs(difference) <= REPRODUCED_WITHIN else f"off by {_signed(difference)}"


def _other_model(row, backbone: str = "ViT-B-16-quickgelu") -> str | None:
    """Why a row's model is not the papers' (another one, or other weights in it); None when it is."""
    if row["backbone"] != backbone:
        return f"backbone {row['backbone']}"
    weights = row.get("weights")
    if not isinstance(weights, str):  # rows from before this was recorded
        weights = Path(row["pretrained"]).name if isinstance(row["pretrained"], str) else "none"
        weights = weights if weights == "openai" else f"weights {weights}"
    elif weights != "openai" and " " not in weights:
        weights = f"weights {weights}"
    return None if weights == "openai" else weights


def _sign_verdict(paper: float, here: float, std: float, n: int) -> str:
    if here != here:
        return "not comparable: zero_shot not run"
    if paper != paper:
        return "not comparable: toy"
    error = std / (n - 1) ** 0.5 if n > 1 else 1.0  # population std / sqrt(n - 1) = standard error of the mean
    if abs(here) <= error:
        return "undecided (toy gain within its noise)"
    if paper == 0:
        return "undecided (no gain in the paper)"
    return "same sign (toy)" if (paper > 0) == (here > 0) else "opposite sign (toy)"


def _is_toy(backbone: str, dataset: str) -> bool:
    return backbone == "toy" or dataset.startswith("toy/")


def _origin(rows: pd.DataFrame, short: bool = False) -> str:
    if rows.empty:
        return ""
    if "limit" in rows and rows["limit"].notna().any():
        most = f"at most {rows['limit'].max():.0f} test pictures"
        whole = _origin(rows.drop(columns="limit"), short)
        return f"{whole}, {most}" if short else f"{whole} Tested on {most} of a data set: comparable with no paper."
    if (rows["profile"] == PUBLISHED).all():
        return "published numbers: real data sets, ViT-B/16"
    toy = [_is_toy(*pair) for pair in rows[["backbone", "dataset"]].drop_duplicates().values]
    if all(toy):
        return "toy world" if short else "Measured in the toy world: compare within the table, not with papers."
    name = ", ".join(
        f"{b} {Path(p).name}" if isinstance(p, str) else b
        for b, p in rows[["backbone", "pretrained"]].drop_duplicates().values
    )
    return name if short else f"Measured with {name}."


def _cell(mean: float, std: float, n: int) -> str:
    return f"{mean:.1f} ± {std:.1f} ({n})" if n > 1 else f"{mean:.1f} ({n})"


def _shots(k: int) -> str:
    return "1 shot" if k == 1 else f"{k} shots"


def _signed(value: float) -> str:
    return "not run" if value != value else f"{value:+.1f}".replace("-", "−")


def _span(values: pd.Series) -> str:
    if values.empty:
        return ""
    low, high = f"{values.min():,.0f}", f"{values.max():,.0f}"
    return low if low == high else f"{low} – {high}"


def _title(method: str) -> str:
    return TITLES.get(method, method)


def _published_title(variant: str) -> str:
    base, _, context = variant.partition("_ctx")
    return f"{_title(base)}, {context} context vectors" if context else _title(variant)


def _rank(method: str) -> tuple[int, str]:
    """The registry's order, so that a method has the same place on every page."""
    from fewshot.methods import METHODS

    names = list(METHODS)
    return (names.index(method) if method in names else len(names), method)


def _in_order(methods: Iterable[str]) -> list[str]:
    return sorted(methods, key=_rank)
