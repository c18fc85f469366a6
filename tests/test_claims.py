"""The ledger of claims: its file, what it reads from rows and papers, its tables and figure, and the pages made from it."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from fewshot import claims, curves, ledger, report, runs, studies
from fewshot.comparisons import FAILS, HOLDS, NOT_RUN, UNDECIDED
from fewshot.errors import FewshotError
from fewshot.rows import Rows
from fewshot.runs import Run

ROOT = Path(__file__).resolve().parent.parent
BOOK = claims.load()

ONE = {
    "id": "a-beats-b",
    "title": "A beats B",
    "paper": "key",
    "place": "table 1",
    "wording": "A is better than B.",
    "study": "method_table",
    "test": {"kind": "difference", "of": {"arm": "CoOp", "shots": 16}, "minus": {"arm": "Zero-shot CLIP", "shots": 16}},
    "decides": "Eleven data sets.",
    "page": "method_table",
    "cell": "count-the-wins",
}


def written(folder: Path, *entries: dict, front=(), papers=None) -> Path:
    path = folder / "claims.yaml"
    path.write_text(
        yaml.safe_dump({"papers": papers or {"key": "Paper"}, "claims": list(entries), "front": list(front)})
    )
    return path


def claim(**more) -> claims.Claim:
    return claims.Claim(**{**ONE, **more})


def frame(a: float, b: float, noise: float = 0.5, names=("dtd", "eurosat", "food101", "sun397")) -> pd.DataFrame:
    lines = []
    for i, name in enumerate(names):
        wobble = noise * (-1, 1, -2, 2)[i % 4]
        for seed in (1, 2, 3):
            lines.append(("CoOp", name, "all", 16, seed, a + wobble + 0.1 * seed))
        lines.append(("Zero-shot CLIP", name, "all", 0, 1, b))
    table = pd.DataFrame(lines, columns=["arm", "dataset", "half", "shots", "seed", "accuracy"])
    return table.assign(seconds_fit=2.0)


def verdict(a: float = 58, b: float = 50, noise: float = 0.5, published=None, scale=None, **more) -> claims.Verdict:
    one = claim(**more)
    nothing = frame(a, b).assign(accuracy=float("nan"), seconds_fit=float("nan"))
    theirs = None if published is None else claims.judge(one, published)
    return claims.Verdict(
        one, theirs, claims.judge(one, frame(a, b, noise)), claims.judge(one, nothing if scale is None else scale)
    )


# -- the file ---------------------------------------------------------------------------------------------------------


def test_a_claim_is_read_as_it_is_written(tmp_path):
    front = [{"says": "x", "read": "y", "claims": ["a-beats-b"]}]
    book = claims.load(written(tmp_path, ONE, front=front))
    assert book.papers == {"key": "Paper"} and book.claims == [claim()] and book["a-beats-b"].known is False
    assert book.front == front


WRONG = {
    "unknown field of the claim a-beats-b 'wordings'": {"wordings": "x"},
    "has no decides": {"decides": ""},
    "no slug": {"id": "A beats B"},
    "unknown paper of the claim a-beats-b 'kez'": {"paper": "kez"},
    "unknown study of the claim a-beats-b": {"study": "method_tabel"},
    "unknown kind of test of the claim a-beats-b 'diference'": {"test": {"kind": "diference"}},
    "has no 'minus'": {"test": {"kind": "difference", "of": {"arm": "a"}}},
    "unknown argument of the test of a-beats-b 'over'": {"test": {**ONE["test"], "over": 3}},
    "two thresholds": {"test": {**ONE["test"], "above": 0, "below": 1}},
    "unknown selector of the test of a-beats-b 'shot'": {"test": {**ONE["test"], "of": {"arm": "a", "shot": 1}}},
    "selector of the test of a-beats-b 'seed'": {"test": {"kind": "spread", "of": [{"seed": 1}], "within": 1}},
}


@pytest.mark.parametrize("said", WRONG)
def test_a_wrong_entry_is_named_with_its_fault(said, tmp_path):
    with pytest.raises(FewshotError, match=re.escape(said)):
        claims.load(written(tmp_path, {**ONE, **WRONG[said]}))


def test_two_claims_of_one_name_and_a_front_line_without_a_claim_are_errors(tmp_path):
    with pytest.raises(FewshotError, match="two claims are called a-beats-b"):
        claims.load(written(tmp_path, ONE, ONE))
    with pytest.raises(FewshotError, match="unknown claim 'a-beats-c'; did you mean 'a-beats-b'"):
        claims.load(written(tmp_path, ONE, front=[{"says": "x", "read": "y", "claims": ["a-beats-c"]}]))


def test_claims_are_chosen_by_paper_and_by_id(tmp_path):
    other = {**ONE, "id": "b-beats-a", "paper": "two"}
    book = claims.load(written(tmp_path, ONE, other, papers={"key": "Paper", "two": "Second"}))
    assert [c.id for c in book.chosen()] == ["a-beats-b", "b-beats-a"]
    assert [c.id for c in book.chosen(papers=["Second"])] == ["b-beats-a"]
    assert [c.id for c in book.chosen(only=["a-beats-b"])] == ["a-beats-b"]
    assert book.chosen(["Second"], ["a-beats-b"]) == []
    with pytest.raises(FewshotError, match="unknown paper 'Secnd'"):
        book.chosen(["Secnd"])
    with pytest.raises(FewshotError, match="unknown claim"):
        book.chosen(only=["nothing-beats-a"])


# -- the project's claims ---------------------------------------------------------------------------------------------


def test_there_are_enough_claims_and_ten_are_best_known():
    assert len(BOOK.claims) >= 28
    assert sum(one.known for one in BOOK.claims) == 10
    assert {"zanella2024cliplora", "zhou2022cocoop", "zhang2022tip", "textadapter"} <= {
        one.paper for one in BOOK.claims
    }


@pytest.mark.parametrize(
    "said, ids",
    {
        "best average at 1, 4 and 16 shots": [f"clip-lora-best-{k}" for k in ("1-shot", "4-shots", "16-shots")],
        "loses on Food and Pets": ["clip-lora-below-zero-shot-on-food", "clip-lora-not-best-on-pets"],
        "both encoders, all blocks, rank": ["both-encoders-beat-one", "everywhere-beats-half", "rank-matters-little"],
        "base to new": ["coop-loses-on-new", "cocoop-wins-most-of-it-back", "more-context-alone-does-not"],
        "CoCoOp is much slower": ["cocoop-slower-than-coop"],
        "a memory against CoOp": ["tip-adapter-matches-coop-at-few-shots", "tip-adapter-falls-behind-with-more"],
        "ten times fewer epochs": ["tip-adapter-f-needs-few-epochs"],
        "sentences": ["sentences-help-on-cub-1-shot", "sentences-help-less-with-more-on-cub", "sentences-stop-helping-on-cub"],
        "fine-grained data gain more": ["fine-grained-gains-more"],
    }.items(),
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_the_best_known_sentences_of_the_papers_are_claims(said, ids):
    assert set(ids) <= {one.id for one in BOOK.claims}


def test_papers_are_in_the_bibliography():
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", (ROOT / "book" / "references.bib").read_text(), re.M))
    assert set(BOOK.papers) <= keys


@pytest.mark.parametrize("one", BOOK.claims, ids=lambda one: one.id)
def test_claim_is_shown_in_a_cell_that_exists(one):
    title, heading, slug = ledger.place(one.page, one.cell)
    assert title and heading and slug


@pytest.mark.parametrize("profile", ["toy", "paper"])
def test_every_claim_asks_for_rows_that_its_experiment_has(profile):
    """With a number in every row each claim has an effect: no selector names an arm, a data set or a half in vain."""
    frames = {}
    for one in BOOK.claims:
        if one.study not in frames:
            table = claims.asked(studies.study(one.study).arms(studies.profile_of(profile)))
            rng = np.random.default_rng(0)
            numbers = {
                name: rng.uniform(40, 60, len(table)) for name in ("accuracy", "seconds_fit", "seconds_per_image")
            }
            frames[one.study] = table.assign(**numbers)
        found = claims.judge(one, frames[one.study])
        assert found.effect.n > 1 and found.rows == found.asked and found.verdict != NOT_RUN, one.id


PRINTED = {  # worked out by hand from the copied numbers
    "clip-lora-below-zero-shot-on-food": (84.3 + 82.7 + 84.2) / 3 - 86.1,
    "clip-lora-not-best-on-pets": 91.0 - 93.3,
    "coop-loses-on-new": 82.69 - 63.22,
    "cocoop-beats-coop-on-new": 71.69 - 63.22,
    "cocoop-wins-most-of-it-back": (71.69 - 63.22) - (74.22 - 63.22) / 2,
    "cocoop-costs-on-base": 80.47 - 82.69,
    "more-context-alone-does-not": -2.54,
    "cocoop-beats-zero-shot-on-new-imagenet": 70.43 - 68.14,
    "cocoop-beats-coop-under-shift": (64.07 + 48.75 + 50.63 + 76.18 - 64.20 - 47.99 - 49.71 - 75.21) / 4,
    "kgcoop-beats-coop-on-new": 73.60 - 67.99,
    "prograd-beats-coop-on-new": 70.75 - 67.99,
    "maple-beats-coop-on-new": 75.14 - 63.22,
    "linear-probe-below-zero-shot-on-imagenet": 55.87 - 58.18,
    "clip-lora-faster-than-plotpp": math.log(50 / 930),
    "cocoop-slower-than-coop": math.log(160 / 6),
    "sentences-help-on-cub-1-shot": 73.41 - 68.45,
    "sentences-help-less-with-more-on-pets": (89.78 - 82.70) - (92.82 - 92.50),
    "pets-stay-below-zero-shot": 92.82 - 97.0,
}


@pytest.mark.parametrize("name", PRINTED)
def test_the_papers_own_number_is_the_one_worked_out_by_hand(name):
    found = claims.judge(BOOK[name], claims.printed(BOOK[name]))
    assert found.effect.mean == pytest.approx(PRINTED[name], abs=1e-9)


def test_best_of_the_papers_table_is_over_eleven_data_sets_without_their_average():
    found = claims.judge(BOOK["clip-lora-best-1-shot"], claims.printed(BOOK["clip-lora-best-1-shot"]))
    assert found.effect.n == 11 and found.note == "the best other is Tip-Adapter-F"
    assert found.effect.mean == pytest.approx(72.5 - 70.9, abs=0.06)  # their averages, as printed


def test_every_paper_number_of_a_claim_can_be_judged():
    for one in BOOK.claims:
        if (numbers := claims.printed(one)) is not None:
            assert claims.judge(one, numbers).effect.n, one.id


def test_a_column_that_the_copied_numbers_do_not_have_is_an_error():
    with pytest.raises(FewshotError, match="column of the published numbers of a-beats-b 'data'"):
        claims.printed(claim(published={"file": "clip_lora_table2.csv", "data": "dtd"}))


# -- rows -------------------------------------------------------------------------------------------------------------


def test_a_run_is_known_by_the_data_set_it_was_tested_on():
    arms = {
        "moved": [Run("x", "coop", "toy/imagenet", 16, target="toy/dtd")],
        "home": [Run("x", "coop", "toy/imagenet", 16)],
        "half": [Run("x", "coop", "toy/dtd", 16, target="new")],
    }
    table = claims.asked(arms)[["arm", "dataset", "half"]]
    assert table.to_numpy().tolist() == [["moved", "dtd", "all"], ["home", "imagenet", "all"], ["half", "dtd", "new"]]


def stored(folder: Path, study: str, accuracy, file: str = "", stamp: str = "w", **more) -> Path:
    """Rows of CoOp and zero-shot at 16 shots in folder/FILE-toy.jsonl; `accuracy(arm, dataset, seed)` gives them."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{file or study}-toy.jsonl"
    lines = []
    for label, asked in studies.study(study).arms(studies.profile_of("toy")).items():
        for one in asked:
            if label in ("CoOp", "Zero-shot CLIP") and one.shots in (0, 16):
                row = {
                    "key": one.key,
                    "stamp": stamp,
                    "accuracy": accuracy(label, one.dataset, one.seed),
                    "seconds_fit": 2.0,
                }
                row |= {
                    name: getattr(one, name) for name in ("experiment", "method", "dataset", "shots", "seed", "profile")
                }
                lines.append(json.dumps(row | {"backbone": "toy", "pretrained": None, "selection": "fixed"} | more))
    path.write_text("\n".join(lines) + "\n")
    return path


def level(label: str, dataset: str, seed: int) -> float:
    return 50.0 if label == "Zero-shot CLIP" else 51.0 + len(dataset) % 3 + 0.1 * seed


@pytest.fixture
def same_weights(monkeypatch):
    monkeypatch.setattr(runs, "stamp", lambda one: "w")


def test_rows_of_today_are_found_in_any_file_and_others_do_not_count(tmp_path, same_weights):
    stored(tmp_path / "a", "method_table", level, file="other")
    found = claims.measured("method_table", "toy", tmp_path / "a")
    assert found["accuracy"].notna().sum() == 11 + 33 and set(found["arm"]) >= {"CoOp", "CLIP-LoRA"}
    stored(tmp_path / "b", "method_table", level, stamp="older")
    assert claims.measured("method_table", "toy", tmp_path / "b")["accuracy"].notna().sum() == 0
    assert claims.measured("method_table", "paper", tmp_path / "a")["accuracy"].notna().sum() == 0


def test_times_are_read_from_their_own_file_alone(tmp_path, same_weights):
    stored(tmp_path, "method_table", level)
    assert claims.measured("training_time", "toy", tmp_path)["accuracy"].notna().sum() == 0
    stored(tmp_path, "training_time", level, training_images=8, seconds_fit=4.0)
    found = claims.measured("training_time", "toy", tmp_path).set_index("arm")
    assert found.loc["CoOp", "seconds_per_image"].tolist() == [0.5] * 3
    (tmp_path / "training_time-toy.jsonl").unlink()
    stored(tmp_path, "training_time", level, training_images=0)
    assert claims.measured("training_time", "toy", tmp_path)["seconds_per_image"].isna().all()


def test_an_experiments_own_rows_come_first(tmp_path, same_weights):
    stored(tmp_path, "method_table", level, file="a-first-name")
    stored(tmp_path, "method_table", lambda *place: 99.0)
    found = claims.measured("method_table", "toy", tmp_path)
    assert set(found["accuracy"].dropna()) == {99.0}


# -- from one row to the README ---------------------------------------------------------------------------------------

README = "<!-- rows: begin -->\n<!-- rows: end -->\n<!-- claims: begin -->\n<!-- claims: end -->\n"
FRONT = "<!-- claims: begin -->\n<!-- claims: end -->\n"


def drawn(figure) -> set[tuple[float, ...]]:
    """The ordinates of every line of a figure."""
    lines = [line for axis in figure.axes for line in axis.get_lines()]
    return {tuple(round(float(y), 6) for y in line.get_ydata()) for line in lines}


def test_changing_one_row_changes_table_figure_verdict_and_both_pages(tmp_path, same_weights):
    import readme

    front = [{"says": "A beats B.", "read": "here", "claims": ["a-beats-b"]}]
    file = written(tmp_path, {**ONE, "known": True}, front=front)
    path = stored(tmp_path / "results", "method_table", level)

    def pages() -> tuple[claims.Verdict, str, str]:
        readme.judged.cache_clear()
        (one,) = readme.judged(path.parent, file)[1]
        return one, readme.renewed(README, path.parent, file), readme.renewed_front(FRONT, path.parent, file)

    def shown() -> tuple[str, set, list[float]]:
        """The cell of the method table, the curves, and where the figure of the claims has its mark."""
        rows = Rows(path).frame()
        (axis,) = ledger.forest([readme.judged(path.parent, file)[1][0]]).axes
        marks = [line.get_xdata()[0] for line in axis.get_lines() if line.get_marker() not in ("None", "", None)]
        return report.method_table(rows, 16).loc["CoOp", "toy/dtd"], drawn(curves.shot_curves(rows)), marks

    before, text, front_page = pages()
    numbers, curve, marks = shown()
    rows_table = text.partition("<!-- rows: end -->")[0]
    assert before.here.verdict == HOLDS and before.paper.verdict == NOT_RUN
    assert "| all | 1 | 1 | 0 | 0 | 0 | 1 | 0 | 0 |" in text
    assert f"| A beats B | – | {before.here.number} | holds | holds |" in text
    link = '<a href="../notebooks/claims.html#claim-a-beats-b" title="A beats B">'
    assert f"| A beats B. | here | {link}holds</a> | {link}holds</a> |" in front_page

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changed = next(row for row in lines if row["method"] == "coop" and row["dataset"] == "toy/dtd" and row["seed"] == 2)
    changed["accuracy"] -= 45
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    after, text, front_page = pages()
    assert after.here.effect.mean == pytest.approx(before.here.effect.mean - 45 / 33)
    assert after.here.verdict == UNDECIDED and after.here.number in text
    assert "| all | 1 | 0 | 0 | 1 | 0 |" in text and f"{link}undecided</a>" in front_page
    numbers_after, curve_after, marks_after = shown()
    assert float(numbers_after.split()[0]) == pytest.approx(float(numbers.split()[0]) - 15, abs=0.06)
    ((moved,),) = curve_after - curve  # one point of one curve
    assert moved == pytest.approx(float(numbers_after.split()[0]), abs=0.06)
    assert marks_after == pytest.approx([marks[0] - 45 / 33])
    assert text.partition("<!-- rows: end -->")[0] != rows_table

    path.write_text("\n".join(json.dumps(row) for row in lines if row is not changed) + "\n")
    partial, text, front_page = pages()
    assert (
        partial.here.verdict == NOT_RUN
        and partial.here.rows == 43
        and "(43 of 44 rows: no verdict)" in partial.here.text
    )
    assert "| all | 1 | 0 | 0 | 0 | 1 |" in text and f"{link}not run</a>" in front_page
    readme.judged.cache_clear()


def test_the_front_page_shows_the_verdicts_of_the_rows():
    import readme

    text = (ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    assert readme.renewed_front(text) == text, "run python book/readme.py"


# -- the page ---------------------------------------------------------------------------------------------------------

PAPERS = {"key": "Paper", "two": "Second"}


def several() -> list[claims.Verdict]:
    return [
        verdict(),
        verdict(a=42, id="fails", title="A fails", published=frame(50, 51, noise=3)),
        verdict(a=51, noise=2.5, id="open", title="A open", paper="two", page="shot_curves", cell="draw-the-panels"),
        verdict(id="none", title="A none", test={**ONE["test"], "of": {"arm": "nobody", "shots": 16}}),
        verdict(id="wide", title="A wide", test={**ONE["test"], "above": 5}, noise=4),
    ]


def verdict_of(one: claims.Verdict) -> str:
    return one.here.verdict


def test_verdicts_are_what_the_next_tests_take_them_for():
    assert [one.here.verdict for one in several()] == [HOLDS, FAILS, UNDECIDED, NOT_RUN, UNDECIDED]
    assert [one.here.on_these.verdict for one in several()] == [HOLDS, FAILS, HOLDS, NOT_RUN, HOLDS]


def test_count_has_a_line_per_paper_and_one_for_all():
    table = ledger.count(several(), PAPERS)
    assert list(table.index) == ["Paper", "Second", "all"]
    assert table.loc["all"].tolist() == ["5", "1", "1", "2", "1", "3", "1", "0"]
    assert table.loc["Second"].tolist() == ["1", "0", "0", "1", "0", "1", "0", "0"]
    assert ledger.count(several()[:1], PAPERS).index.tolist() == ["Paper", "all"]


def test_overview_shows_effects_rules_and_what_is_not_run():
    table = ledger.overview(several(), PAPERS)
    assert (
        table.loc["A beats B", "effect (toy) [95 %]"].startswith("+8.2 [+6.")
        and table.loc["A beats B", "holds"] == "> 0"
    )
    assert table.loc["A wide", "holds"] == "> 5" and table.loc["A none", "verdict (toy)"] == NOT_RUN
    assert table.loc["A fails", "published"].startswith("−0.8 [") and table.loc["A beats B", "published"] == "–"
    assert set(table["paper scale"]) == {"not run here"}


def test_rule_says_where_the_interval_must_lie():
    ratio = claim(
        test={"kind": "ratio", "of": {"arm": "CoOp", "shots": 16}, "to": {"arm": "CoOp", "shots": 16}, "above": 5.2}
    )
    assert ledger.rule(claims.judge(ratio, frame(50, 50))) == "> 5.2×"
    assert ledger.rule(verdict(test={**ONE["test"], "above": -1}).here) == "> −1"
    assert ledger.rule(verdict(test={**ONE["test"], "below": 0}).here) == "< 0"


def test_an_entry_has_a_place_of_its_own_words_numbers_and_a_link():
    said = ledger.Entries(several())._repr_html_()
    assert said.count("<tr id=") == 5 and '<tr id="claim-a-beats-b">' in said
    assert 'Shown in <a href="method_table.html#wins-and-losses">The method table</a>: Wins and losses' in said
    assert "A is better than B." in said and "Decided by: Eleven data sets." in said
    assert "by the same rule: undecided" in said and said.count("not run here") == 5
    assert "<strong>does not hold</strong>" in said and "on these data sets: holds" in said
    scale = verdict(scale=frame(70, 50))
    assert "+20.2 [" in ledger.Entries([scale])._repr_html_() and ": holds" in ledger.Entries([scale])._repr_html_()


def test_statement_counts_and_names():
    said = ledger.statement(several())
    assert "Of 5 claims, on data sets like these: 1 hold, 1 do not hold, 2 undecided, 1 not run." in said
    assert "On these data sets, over seeds: 3 hold, 1 do not hold, 1 not run." in said
    assert "**Does not hold** (toy): A fails." in said and "**Not run** (toy): A none." in said
    assert "No claim has rows at paper scale here" in said
    assert "1 of 1 claims have rows at paper scale" in ledger.statement([verdict(scale=frame(70, 50))])
    assert ledger.statement([]) == "No claim is asked for."


def test_forest_draws_towards_the_claim():
    """Right of the line speaks for a claim, whichever its sign and threshold; what is not run has no mark."""
    below = verdict(a=42, id="below", title="A below", test={**ONE["test"], "below": 0})
    figure = ledger.forest([*several(), below])
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()][::-1] == [
        "A beats B", "A fails", "A open", "A none", "A wide", "A below",
    ]  # fmt: skip
    marks = {line.get_ydata()[0]: line for line in axis.get_lines() if line.get_marker() not in ("None", "", None)}
    assert sorted(marks) == [0, 1, 3, 4, 5]  # from below; the fourth was not run
    assert marks[5].get_xdata()[0] == pytest.approx(8.2) and marks[0].get_xdata()[0] == pytest.approx(7.8)
    assert marks[4].get_xdata()[0] == pytest.approx(-7.8) and marks[1].get_xdata()[0] == pytest.approx(3.2)
    assert len({marks[5].get_marker(), marks[4].get_marker(), marks[3].get_marker()}) == 3
    bars = [
        line for line in axis.get_lines() if len(line.get_xdata()) == 2 and line.get_ydata()[0] == line.get_ydata()[1]
    ]
    assert len(bars) == 10  # two intervals each
    assert any("not run" in text.get_text() for text in axis.texts)


def test_forest_has_a_panel_of_its_own_for_times_and_none_for_nothing():
    test = {
        "kind": "ratio",
        "of": {"arm": "CoOp", "shots": 16},
        "to": {"arm": "Zero-shot CLIP", "shots": 16},
        "below": 1,
    }
    figure = ledger.forest([verdict(), verdict(test=test)])
    assert len(figure.axes) == 2 and "times" in figure.axes[1].get_xlabel()
    assert len(ledger.forest([]).axes) == 1


def test_place_names_what_is_missing():
    assert ledger.place("method_table", "count-the-wins") == ("The method table", "Wins and losses", "wins-and-losses")
    with pytest.raises(FewshotError, match="no notebook method_tabel"):
        ledger.place("method_tabel", "x")
    with pytest.raises(FewshotError, match="has no cell 'wins'"):
        ledger.place("method_table", "wins")


def test_csv_has_ratios_as_ratios_and_empty_cells_where_nothing_is():
    test = {
        "kind": "ratio",
        "of": {"arm": "CoOp", "shots": 16},
        "to": {"arm": "Zero-shot CLIP", "shots": 16},
        "above": 2,
    }
    table = claims.as_frame([*several(), verdict(id="times", test=test)], PAPERS).set_index("id")
    assert table.loc["times", "here_effect"] == pytest.approx(1) and table.loc["times", "threshold"] == pytest.approx(2)
    assert table.loc["a-beats-b", "here_effect"] == pytest.approx(8.2) and table.loc["open", "paper"] == "Second"
    assert table.loc["open", "here_verdict"] == UNDECIDED and table.loc["open", "here_on_these_verdict"] == HOLDS
    assert pd.isna(table.loc["none", "here_effect"]) and pd.isna(table.loc["a-beats-b", "published_effect"])
