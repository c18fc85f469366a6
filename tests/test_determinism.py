"""The same run gives the same row on one machine, bit for bit: again, in another order, resumed, in parallel.

With another number of threads sums are taken in another order, and the numbers agree within the tolerance of `fewshot.runs.run`.
"""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

import fewshot.runs as module
from fewshot.grids import grid, run_grid
from fewshot.methods import METHODS

CLOCKED = ("seconds_fit", "seconds_evaluate", "peak_memory_mb", "finished")  # what no two runs have in common
RUNS = grid("x", list(METHODS), ["toy/eurosat"], [1], [1], "smoke", limit=40)
SOME = [one for one in RUNS if one.method in ("zero_shot", "gda", "tip_adapter_f", "coop", "clip_lora")]


def numbers(path) -> dict[str, dict]:
    """key -> row, without what the clock says."""
    rows = map(json.loads, path.read_bytes().splitlines())
    return {row["key"]: {name: value for name, value in row.items() if name not in CLOCKED} for row in rows}


def measured(runs, path, **more) -> dict[str, dict]:
    run_grid(runs, path, progress=False, **more)
    return numbers(path)


def forgotten() -> None:
    """As in a new process: nothing that was loaded before is still there."""
    for cached in (module._dataset, module._clip, module._fingerprint):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def one_thread(tmp_path, monkeypatch):
    """And a cache of its own, so that nothing is taken from elsewhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    forgotten()
    yield
    torch.set_num_threads(before)
    forgotten()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, dict]:
    """The rows of a grid that nobody interfered with."""
    folder = tmp_path_factory.mktemp("undisturbed")
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_CACHE", str(folder / "cache"))
        forgotten()
        torch.set_num_threads(1)
        rows = measured(RUNS, folder / "r.jsonl")
        torch.set_num_threads(before)
    assert {row["method"] for row in rows.values()} == set(METHODS)
    return rows


def test_every_method_gives_its_row_again_in_another_order(undisturbed, tmp_path):
    assert measured(RUNS[::-1], tmp_path / "r.jsonl") == undisturbed


def test_a_grid_that_was_stopped_and_goes_on_gives_the_same_rows(undisturbed, tmp_path):
    path = tmp_path / "r.jsonl"
    measured(SOME[:2], path)
    forgotten()
    assert measured(SOME, path) == {one.key: undisturbed[one.key] for one in SOME}


def test_workers_give_the_same_rows(undisturbed, tmp_path):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, torch.set_num_threads, (1,)) as executor:
        found = measured(SOME, tmp_path / "r.jsonl", executor=executor)
    assert found == {one.key: undisturbed[one.key] for one in SOME}


def test_the_generators_of_the_caller_change_nothing(undisturbed, tmp_path):
    """Every draw has a generator of its own."""
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert measured(SOME, tmp_path / "r.jsonl") == {one.key: undisturbed[one.key] for one in SOME}
    assert torch.equal(torch.get_rng_state(), before)


def test_another_number_of_threads_gives_the_same_numbers_within_the_stated_tolerance(undisturbed, tmp_path):
    torch.set_num_threads(2)
    found = measured(RUNS, tmp_path / "r.jsonl")
    for key, expected in undisturbed.items():
        row = found[key]
        assert abs(row["accuracy"] - expected["accuracy"]) <= 100 / row["n_test"] + 1e-9, row["method"]
        assert row["nll"] == pytest.approx(expected["nll"], rel=1e-3), row["method"]
