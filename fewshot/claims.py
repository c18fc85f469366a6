"""The papers' claims, one by one, and what rows say about each.

A claim of published/claims.yaml is a comparison of arms of one experiment; its threshold follows from its wording. The same
comparison is made three times: on rows of the toy world, on rows of the papers' own setting where there are any, and, where
they suffice, on the paper's own numbers. What makes a verdict stands in `fewshot.comparisons`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import yaml

from fewshot import runs, studies
from fewshot.comparisons import ARGUMENTS, FIELDS, KINDS, SELECTORS, Finding, compare
from fewshot.errors import FewshotError, unknown
from fewshot.report import TITLES
from fewshot.rows import Rows
from fewshot.studies import Arms

FILE = runs.ROOT / "published" / "claims.yaml"
# Their runs are the method table's, but not their rows: times that were taken alike, and rows with more in them.
APART = ("training_time", "statistics")


@dataclass(frozen=True)
class Claim:
    """One claim: who says it and where, our wording, the arms that are compared (`test`), and what would decide it."""

    id: str
    title: str
    paper: str  # a key of references.bib
    place: str
    wording: str
    study: str
    test: dict
    decides: str
    page: str  # the notebook that shows it
    cell: str  # the id of its cell
    published: dict | None = None
    known: bool = False  # one of the ten in the README


@dataclass(frozen=True)
class Verdict:
    """A claim with what three sets of numbers say: the paper's own, rows of `profile` (the toy world's), paper-scale rows."""

    claim: Claim
    published: Finding | None
    here: Finding
    paper: Finding


def judge(claim: Claim, frame: pd.DataFrame) -> Finding:
    """What numbers say about a claim. Columns: arm, dataset, half, shots, seed, accuracy, seconds_fit; one that is
    missing was asked for and not measured. Raises FewshotError where the rows mix settings."""
    try:
        return compare(frame, claim.test)
    except FewshotError as error:
        raise FewshotError(f"claim {claim.id}: {error}") from error


# the numbers: rows, and what the papers print


def asked(arms: Arms) -> pd.DataFrame:
    """A line per arm and run that it asks for: arm, method, dataset (tested on), half, shots, seed, key, run."""
    lines = []
    for arm, wanted in arms.items():
        for one in wanted:
            half = one.target if one.target in runs.HALVES else "all"
            tested = one.dataset if one.target in (None, *runs.HALVES) else one.target
            lines.append((arm, one.method, tested.removeprefix("toy/"), half, one.shots, one.seed, one.key, one))
    return pd.DataFrame(lines, columns=["arm", "method", "dataset", "half", "shots", "seed", "key", "run"])


def measured(
    study: str,
    profile: str,
    folder: Path | None = None,
    stamp_of: Callable[[runs.Run], str | None] | None = None,
) -> pd.DataFrame:
    """The runs of an experiment (`asked`) with what stored rows of `profile` say of them; nothing is run.

    Columns: accuracy, seconds_fit and, where rows count pictures, seconds_per_image of training. Rows are those of all files
    *-PROFILE.jsonl in `folder` (default: the project's), the experiment's own first. Rows made with other weights or
    settings than today's do not count.
    """
    frame = asked(studies.study(study).arms(studies.profile_of(profile)))
    own = f"{study}-{Path(profile).stem}.jsonl"
    paths = sorted((folder or runs.results_folder()).glob(f"*-{Path(profile).stem}.jsonl"), key=lambda p: p.name != own)
    files = [Rows(path) for path in paths if study not in APART or path.name == own]
    stamps: dict[str, str | None] = {}

    def row_of(one: runs.Run) -> dict:
        for file in files:
            if one.key in file:
                setting = json.dumps([one.method, one.config, one.backbone, one.pretrained], sort_keys=True)
                if setting not in stamps:
                    stamps[setting] = (stamp_of or runs.stamp)(one)
                if (row := file.get(one.key, stamps[setting])) is not None:
                    return row
        return {}

    found = {one.key: row_of(one) for one in frame["run"]}
    for name in ("accuracy", "seconds_fit", "training_images"):
        frame[name] = [found[key].get(name, float("nan")) for key in frame["key"]]
    seen = frame.pop("training_images").astype(float)
    frame["seconds_per_image"] = frame["seconds_fit"] / seen.where(seen > 0)
    return frame.drop(columns="run")


def printed(claim: Claim) -> pd.DataFrame | None:
    """The paper's own numbers for a claim, in the form of rows (one seed); None where no open source has them."""
    spec = dict(claim.published or {})
    if "numbers" in spec:
        frame = pd.DataFrame(spec["numbers"])
        for name in FIELDS:
            if name not in frame:
                frame[name] = {"dataset": "average", "half": "all", "shots": 16}.get(name, "")
        return frame.assign(seed=1)
    if "file" not in spec:
        return None
    frame = pd.read_csv(runs.ROOT / "published" / spec.pop("file"))
    column, labels, _ = spec.pop("arm", "method"), spec.pop("labels", {}), spec.pop("from", None)
    for name, wanted in spec.items():
        if name not in frame:
            raise unknown(f"column of the published numbers of {claim.id}", name, frame.columns)
        frame = frame[frame[name].isin(wanted if isinstance(wanted, list) else [wanted])]
    if "dataset" in frame and "dataset" not in spec:
        frame = frame[~frame["dataset"].str.startswith("average")]
    labels = TITLES | {"coop_ctx16": TITLES["coop"]} | labels
    frame = frame.assign(arm=frame[column].map(lambda name: labels.get(name, name)), seed=1)
    frame = frame.rename(columns={"top1": "accuracy", "classes": "half"})
    if {"base", "new"} <= set(frame):  # a column for each half
        frame = frame.assign(dataset="average").melt(["arm", "dataset", "seed"], ["base", "new"], "half", "accuracy")
    if "training_time_minutes" in frame:
        frame = frame.assign(seconds_fit=60.0 * frame["training_time_minutes"])
    if "ms_per_image" in frame:
        frame = frame.assign(seconds_per_image=frame["ms_per_image"] / 1000)
    for name, value in (("dataset", "imagenet"), ("half", "all"), ("shots", 16)):
        frame = frame if name in frame else frame.assign(**{name: value})
    return frame


def verdicts(
    claims: Iterable[Claim],
    profile: str = "toy",
    folder: Path | None = None,
    stamp_of: Callable[[runs.Run], str | None] | None = None,
) -> list[Verdict]:
    """Every claim with what the paper's numbers, the rows of `profile` and those of the profile paper say about it."""
    claims, frames = list(claims), {}
    for claim in claims:
        for name in (profile, "paper"):
            if (claim.study, name) not in frames:
                frames[claim.study, name] = measured(claim.study, name, folder, stamp_of)
    found = []
    for claim in claims:
        numbers = printed(claim)
        theirs = judge(claim, numbers) if numbers is not None else None
        here, paper = (judge(claim, frames[claim.study, name]) for name in (profile, "paper"))
        found.append(Verdict(claim, theirs, here, paper))
    return found


# the file


@dataclass(frozen=True)
class Ledger:
    """The file of claims: short names of papers by their key in references.bib, the claims, and the front page's lines."""

    papers: dict[str, str]
    claims: list[Claim]
    front: list[dict] = field(default_factory=list)

    def __getitem__(self, name: str) -> Claim:
        found = {claim.id: claim for claim in self.claims}
        if name not in found:
            raise unknown("claim", name, found)
        return found[name]

    def chosen(self, papers: Iterable[str] = (), only: Iterable[str] = ()) -> list[Claim]:
        """The claims of some papers (by short name) and of some ids; empty: all. Raises FewshotError for an unknown one."""
        papers, only = list(papers), list(only)
        for name in papers:
            if name not in self.papers.values():
                raise unknown("paper", name, self.papers.values())
        wanted = {self[name].id for name in only} or {claim.id for claim in self.claims}
        return [c for c in self.claims if c.id in wanted and (not papers or self.papers[c.paper] in papers)]


def load(path: Path = FILE) -> Ledger:
    """The claims. Raises FewshotError for a field, kind, argument or name that does not exist, or is missing."""
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    for part in content:
        if part not in ("shared", "papers", "claims", "front"):
            raise unknown(f"part of {Path(path).name}", part, ("shared", "papers", "claims", "front"))
    papers, claims = content["papers"], []
    for entry in content["claims"]:
        claims.append(_checked(entry, papers))
    names = [claim.id for claim in claims]
    for name in names:
        if names.count(name) > 1:
            raise FewshotError(f"two claims are called {name}; an id is the name of one.")
    ledger = Ledger(papers, claims, content.get("front", []))
    for line in ledger.front:
        for name in line["claims"]:
            ledger[name]
    return ledger


def _checked(entry: dict, papers: Mapping[str, str]) -> Claim:
    fields = Claim.__dataclass_fields__
    name = entry.get("id", "?")
    for part in entry:
        if part not in fields:
            raise unknown(f"field of the claim {name}", part, fields)
    for part in ("id", "title", "paper", "place", "wording", "study", "test", "decides", "page", "cell"):
        if not entry.get(part):
            raise FewshotError(f"the claim {name} has no {part}; every claim says it.")
    if not str(name).replace("-", "").isalnum() or str(name) != str(name).lower():
        raise FewshotError(f"the id {name!r} is no slug; use small letters, digits and hyphens.")
    if entry["paper"] not in papers:
        raise unknown(f"paper of the claim {name}", entry["paper"], papers)
    if entry["study"] not in studies.STUDIES:
        raise unknown(f"study of the claim {name}", entry["study"], studies.STUDIES)
    test = entry["test"]
    if test.get("kind") not in KINDS:
        raise unknown(f"kind of test of the claim {name}", str(test.get("kind")), KINDS)
    needed, allowed = ARGUMENTS[test["kind"]]
    given = set(test) - {"kind"}
    for part in sorted(given - needed - allowed):
        raise unknown(f"argument of the test of {name}", part, needed | allowed)
    for part in sorted(needed - given):
        raise FewshotError(f"the test of {name} ({test['kind']}) has no {part!r}.")
    if {"above", "below"} <= given:
        raise FewshotError(f"the test of {name} has two thresholds, above and below; a claim lies on one side.")
    selectors = [test[part] for part in SELECTORS if isinstance(test.get(part), dict)]
    for selector in [*selectors, *(test["of"] if isinstance(test["of"], list) else [])]:
        for part in selector:
            if part not in FIELDS:
                raise unknown(f"selector of the test of {name}", part, FIELDS)
    return Claim(**entry)


def as_frame(found: Iterable[Verdict], papers: Mapping[str, str]) -> pd.DataFrame:
    """A line per claim, to download: words, effects, intervals and verdicts."""
    lines = []
    for one in found:
        line = {
            name: asdict(one.claim)[name] for name in ("id", "title", "paper", "place", "wording", "study", "decides")
        }
        line["paper"] = papers[one.claim.paper]
        looks = {
            "published": one.published,
            "here": one.here,
            "here_on_these": one.here.on_these,
            "paper_scale": one.paper,
        }
        for name, finding in looks.items():
            if finding is None:
                continue
            e, back = finding.effect, math.exp if finding.scale == "times" else float
            numbers = (e.mean, e.low, e.high) if e.n > 1 else (e.mean, None, None) if e.n else (None, None, None)
            for what, value in zip(("effect", "low", "high"), numbers, strict=True):
                line[f"{name}_{what}"] = None if value is None else back(value)
            line |= {f"{name}_n": e.n, f"{name}_unit": e.unit, f"{name}_verdict": finding.verdict}
        back = math.exp if one.here.scale == "times" else float
        line |= {"scale": one.here.scale, "threshold": back(one.here.threshold), "side": one.here.side}
        lines.append(line)
    return pd.DataFrame(lines)
