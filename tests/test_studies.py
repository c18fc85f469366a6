"""The experiments of the book: their runs, and how stored rows find the arms that asked for them."""

import json
import pkgutil
import re

import pandas as pd
import pytest

from fewshot import studies
from fewshot.errors import FewshotError
from fewshot.runs import Run

PROFILE = studies.profile_of("toy")


@pytest.mark.parametrize("name", studies.STUDIES)
def test_every_experiment_has_arms_of_runs(name):
    arms = studies.study(name).arms(PROFILE)
    runs = studies.runs_of(arms)
    assert runs and all(isinstance(one, Run) for one in runs)
    assert all(label and asked for label, asked in arms.items())
    assert all(one.dataset.startswith("toy/") for one in runs)
    paper = studies.runs_of(studies.study(name).arms(studies.profile_of("paper")))
    assert not any(one.dataset.startswith("toy/") for one in paper)


def test_the_package_says_which_module_belongs_to_which_experiment():
    modules = {module.name for module in pkgutil.iter_modules(studies.__path__)}
    assert modules >= set(studies.STUDIES)
    for name in modules:
        assert re.search(rf"\b{name}\b", studies.__doc__), f"the docstring of fewshot.studies does not name {name}"


def test_unknown_experiment_names_the_likely_one():
    with pytest.raises(FewshotError, match="base_to_new"):
        studies.study("base_to_knew")


def test_a_row_stands_once_for_every_arm_that_has_it():
    one, two = (Run("x", "coop", "toy/dtd", 1, seed) for seed in (1, 2))
    frame = pd.DataFrame([{"key": run.key, "seed": run.seed} for run in (two, one)])
    found = studies.labelled(frame, {"both": [one, two], "first": [one], "none": []})
    assert list(zip(found["arm"], found["seed"], strict=True)) == [("both", 1), ("both", 2), ("first", 1)]


def test_where_nothing_was_run_there_is_an_empty_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FEWSHOT_RESULTS", str(tmp_path))
    own = str(tmp_path / "own" / "mine.jsonl")
    found = studies.measured(
        "x", {"a": [Run("x", "zero_shot", "toy/dtd", 0)]}, PROFILE, rows=own, minutes=0, progress=False
    )
    assert found.empty and {"arm", "dataset", "accuracy"} <= set(found)
    assert "0 of 1 rows are there" in capsys.readouterr().out


def test_rows_of_any_experiment_are_found_and_the_rest_is_said(tmp_path, monkeypatch, capsys):
    one, two = (Run("x", "zero_shot", name, 0) for name in ("toy/dtd", "toy/eurosat"))
    from fewshot.runs import stamp

    row = {"key": one.key, "stamp": stamp(one), "accuracy": 50.0, "method": "zero_shot", "dataset": "toy/dtd"}
    (tmp_path / "other-toy.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setenv("FEWSHOT_RESULTS", str(tmp_path))
    found = studies.measured(
        "x", {"a": [one, two]}, PROFILE, rows=str(tmp_path / "own" / "mine.jsonl"), minutes=0, progress=False
    )
    assert list(found["dataset"]) == ["toy/dtd"]
    assert "1 of 2 rows are there; 1 not run" in capsys.readouterr().out


def test_an_experiment_with_conditions_of_its_own_neither_reads_nor_lends_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_RESULTS", str(tmp_path))
    for name in ("method_table-toy", "training_time-toy", "method_table-paper"):
        (tmp_path / f"{name}.jsonl").touch()
    assert [path.name for path in studies.stored_files("training_time", PROFILE)] == ["training_time-toy.jsonl"]
    assert [path.name for path in studies.stored_files("transfer", PROFILE)] == ["method_table-toy.jsonl"]
