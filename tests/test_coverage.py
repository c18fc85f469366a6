"""What of the papers is covered: every copied number has an entry, every entry a place, every place a page of the book."""

import json
import re
from pathlib import Path

import check
import covered
import pandas as pd
import pytest
import yaml

from fewshot import runs, studies
from fewshot.errors import FewshotError

ROOT = Path(__file__).resolve().parent.parent
ENTRIES = covered.entries()


def named(entry: dict) -> str:
    return f"{entry['paper']} {entry['item']}".replace(" ", "-")


def test_every_copied_number_belongs_to_an_item_and_every_item_names_numbers_that_exist():
    assert covered.uncovered() == []


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_the_place_of_an_item_exists_in_the_book(entry):
    assert f'href="../{entry["page"]}.html#' in covered.link(entry)
    assert entry["page"] in check.toc_pages(yaml.safe_load((ROOT / "_toc.yml").read_text()))


def test_the_page_itself_and_that_of_the_claims_are_pages_of_the_book():
    listed = check.toc_pages(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    assert {"book/coverage", "notebooks/claims"} <= set(listed)


def test_the_four_papers_are_there_with_their_tables_and_figures():
    there = {(entry["paper"], entry["item"]) for entry in ENTRIES}
    assert {paper for paper, _ in there} == {"CLIP-LoRA", "CoCoOp", "Tip-Adapter", "LLM-text adapter"}
    assert len(there) == len(ENTRIES)
    assert there >= {
        ("CLIP-LoRA", "table 1"), ("CLIP-LoRA", "tables 2 and 3"), ("CLIP-LoRA", "figure of the README"),
        ("CLIP-LoRA", "figure 3"), ("CoCoOp", "base-to-new table"), ("CoCoOp", "parameter control"),
        ("CoCoOp", "cross-dataset experiment"), ("CoCoOp", "domain generalisation"), ("CoCoOp", "training cost"),
        ("Tip-Adapter", "log of accuracies (exp.log)"), ("Tip-Adapter", "efficiency"), ("Tip-Adapter", "alpha and beta"),
        ("Tip-Adapter", "views in a key"), ("Tip-Adapter", "choice of the settings"), ("Tip-Adapter", "zero-shot column"),
        ("LLM-text adapter", "table 1"), ("LLM-text adapter", "figure 4"), ("LLM-text adapter", "equations 1 to 9"),
        ("LLM-text adapter", "equation 4"),
    }  # fmt: skip


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "study" in entry], ids=named)
def test_an_item_asks_for_rows_that_its_experiment_has(entry, monkeypatch):
    """With every row there the state is a plain number; an arm that does not exist is an error."""

    def full(study: str, profile: str, folder) -> pd.DataFrame:
        from fewshot import claims

        return claims.asked(studies.study(study).arms(studies.profile_of(profile))).assign(accuracy=50.0)

    monkeypatch.setattr(covered, "_frame", full)
    for profile in ("toy", "paper"):
        assert re.fullmatch(r"[1-9][0-9,]*", covered.state(entry, profile))


# -- planted faults ---------------------------------------------------------------------------------------------------

GOOD = {"paper": "P", "item": "table 1", "shows": "x", "page": "notebooks/method_table", "cell": "count-the-wins"}


def written(folder: Path, *entries: dict) -> Path:
    path = folder / "coverage.yaml"
    path.write_text(yaml.safe_dump(list(entries)))
    return path


@pytest.mark.parametrize("wrong", [{"pages": "x"}, {"shows": None}, {"cell": None}])
def test_a_field_that_is_unknown_or_missing_is_named(wrong, tmp_path):
    entry = {name: value for name, value in {**GOOD, **wrong}.items() if value}
    with pytest.raises(FewshotError, match=next(iter(wrong))):
        covered.entries(written(tmp_path, entry))
    assert covered.entries(written(tmp_path, GOOD)) == [GOOD]


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"page": "notebooks/nothing"}, "no notebook nothing"),
        ({"cell": "nothing"}, "no cell 'nothing'"),
        ({"page": "book/nothing", "heading": "x"}, "no heading 'x'"),
        ({"page": "book/protocol", "heading": "No such heading"}, "no heading 'No such heading'"),
    ],
)
def test_a_place_that_does_not_exist_is_named(wrong, said):
    with pytest.raises(FewshotError, match=said):
        covered.link({**GOOD, **wrong})


def test_a_copied_file_or_source_without_an_item_is_found(tmp_path):
    (tmp_path / "a.csv").write_text("method,top1\nx,1\n")
    (tmp_path / "b.csv").write_text("method,top1,source\nx,1,one\ny,1,two\n")
    file = written(tmp_path, {**GOOD, "csv": [{"file": "b.csv", "source": "one"}, {"file": "c.csv"}]})
    assert covered.uncovered(tmp_path, file) == ["a.csv (all of it)", "b.csv (two)", "c.csv (all of it)"]


def test_rows_are_counted_once_and_partial_grids_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "stamp", lambda one: "w")
    (tmp_path / "results").mkdir()
    path = tmp_path / "results" / "method_table-toy.jsonl"
    asked = studies.study("method_table").arms(studies.profile_of("toy"))["Zero-shot CLIP"]
    entry = {**GOOD, "study": "method_table", "of": {"arm": ["Zero-shot CLIP"]}}
    lines = [json.dumps({"key": one.key, "stamp": "w", "accuracy": 50.0, "seconds_fit": 1.0}) for one in asked]

    def said(number: int, **more) -> str:
        covered._frame.cache_clear()
        path.write_text("".join(line + "\n" for line in lines[:number]))
        return covered.state({**entry, **more}, "toy", path.parent)

    assert [said(0), said(4), said(11)] == ["not run here", "4 of 11", "11"]
    assert said(11, of={"arm": ["Zero-shot CLIP"], "shots": [16]}) == "11"  # zero-shot stands at every number of shots
    assert covered.state(GOOD, "toy") == "–"
    with pytest.raises(FewshotError, match="method_table has no arm 'CoOpp'"):
        said(11, of={"arm": ["CoOpp"]})
    covered._frame.cache_clear()


def test_the_table_has_a_line_per_item_and_a_changed_row_changes_it(tmp_path, monkeypatch):
    counts = {"toy": "33 of 66", "paper": "not run"}
    monkeypatch.setattr(covered, "state", lambda entry, profile, folder: counts[profile])
    file = written(tmp_path, GOOD, {**GOOD, "item": "table 2"})
    assert covered.table(file=file).splitlines()[2] == (
        '| P | table 1 | x | <a href="../notebooks/method_table.html#wins-and-losses">The method table</a>: Wins and losses '
        "| 33 of 66 | not run |"
    )
    counts["toy"] = "66"
    assert "| 66 | not run |" in covered.table(file=file) and len(covered.table(file=file).splitlines()) == 4


def test_the_page_shows_the_rows_that_are_there():
    text = (ROOT / "book" / "coverage.md").read_text(encoding="utf-8")
    assert covered.renewed(text) == text, "run python book/covered.py"
