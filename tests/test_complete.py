"""Rows of the project and rows of the user together: nothing is run twice, nothing stored is touched."""

from __future__ import annotations

import itertools

from test_runs import made, same_weights, some

from fewshot.grids import complete, run_grid
from fewshot.rows import Rows
from fewshot.runs import results_folder


def completed(runs, own, stored=(), run_one=made, stamp_of=same_weights, **more):
    return complete(runs, own, stored, progress=False, run_one=run_one, stamp_of=stamp_of, **more)


def stored_file(path, runs):
    run_grid(runs, path, progress=False, run_one=made, stamp_of=same_weights)
    return path


def test_only_what_is_not_stored_is_run_and_kept_in_the_users_file(tmp_path):
    runs = some(4)
    stored = stored_file(tmp_path / "stored.jsonl", runs[:3])
    before = stored.read_bytes()
    frame = completed(runs, tmp_path / "own.jsonl", [stored])
    assert list(frame["key"]) == [one.key for one in runs]
    assert Rows(tmp_path / "own.jsonl").keys() == {runs[3].key} and stored.read_bytes() == before


def test_with_everything_stored_no_file_appears_and_nothing_runs(tmp_path):
    stored = stored_file(tmp_path / "stored.jsonl", some(2))
    frame = completed(some(2), tmp_path / "own.jsonl", [tmp_path / "none.jsonl", stored], run_one=None)
    assert len(frame) == 2 and not (tmp_path / "own.jsonl").exists()


def test_a_stored_row_of_other_weights_does_not_count(tmp_path):
    stored = stored_file(tmp_path / "stored.jsonl", some(2))
    frame = completed(some(2), tmp_path / "own.jsonl", [stored], lambda one: made(one, "new"), lambda one: "new")
    assert set(frame["clip"]) == {"new"} and len(Rows(tmp_path / "own.jsonl")) == 2


def test_when_the_minutes_are_over_the_rest_is_left_out_and_run_the_next_time(tmp_path, monkeypatch):
    clock = itertools.count(step=30)  # every look at the clock is half a minute later
    monkeypatch.setattr("fewshot.grids.time.monotonic", lambda: next(clock))
    first = completed(some(5), tmp_path / "own.jsonl", minutes=1.2)
    assert 0 < len(first) < 5
    assert len(completed(some(5), tmp_path / "own.jsonl")) == 5


def test_without_minutes_nothing_is_run_and_the_columns_are_there(tmp_path):
    frame = completed(some(2), tmp_path / "own.jsonl", minutes=0)
    assert frame.empty and {"method", "dataset", "shots", "accuracy"} <= set(frame)


def test_progress_is_told_run_by_run(tmp_path):
    told = []
    complete(
        some(3), tmp_path / "own.jsonl", progress=lambda *now: told.append(now), run_one=made, stamp_of=same_weights
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_results_folder_can_be_another_one(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_RESULTS", str(tmp_path))
    assert results_folder() == tmp_path
    monkeypatch.delenv("FEWSHOT_RESULTS")
    assert results_folder().name == "results"
