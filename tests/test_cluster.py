"""Grids on a Dask cluster: two workers and a scheduler in processes of their own, which are killed as well."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from distributed import Client
from test_runs import lines, made, same_weights, shared, some
from test_workers import attempts, noting, seeds

import fewshot.workers
from fewshot.__main__ import main
from fewshot.errors import FewshotError
from fewshot.grids import grid, run_grid
from fewshot.runs import Run

TESTS = Path(__file__).parent
CLUSTER = """
import os, sys
from distributed import LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1") as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""
OWN = {"seconds_fit", "seconds_evaluate", "peak_memory_mb", "finished", "hardware"}  # of a row: who computed it, and when


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """(the process of the scheduler, its address). Its workers have another working folder than the tests."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "cluster.py").write_text(CLUSTER)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    environment |= {"FEWSHOT_CACHE": str(folder / "cache")}
    command = [sys.executable, str(folder / "cluster.py")]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process, process.stdout.readline().strip()
    process.stdin.close()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


@pytest.fixture
def address(cluster) -> str:
    """Of the scheduler, once both workers are there (again)."""
    with Client(cluster[1], set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
    return cluster[1]


def where(one):
    time.sleep(0.05)
    return made(one) | {"pid": os.getpid(), "folder": os.getcwd()}


def test_workers_that_do_not_see_the_rows_share_the_runs_and_none_is_lost_or_doubled(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # of this process alone
    frame = shared(some(12), "r.jsonl", where, executor=address)
    assert list(frame["seed"]) == list(range(1, 13)) and seeds("r.jsonl") == list(range(1, 13))
    assert frame["pid"].nunique() == 2 and os.getpid() not in set(frame["pid"])
    (folder,) = set(frame["folder"])
    assert not Path(folder, "r.jsonl").exists() and not Path(folder, ".r.jsonl.locks").exists()
    assert len(shared(some(12), "r.jsonl", None, executor="tcp://127.0.0.1:1")) == 12  # nothing left to compute


def test_real_runs_give_the_rows_that_they_give_here(address, tmp_path):
    runs = grid("x", ["zero_shot", "tip_adapter", "coop"], ["toy/eurosat"], [1], [1], "smoke")
    here = run_grid(runs, tmp_path / "here.jsonl", progress=False).drop(columns=OWN)
    there = run_grid(runs, tmp_path / "there.jsonl", address, progress=False).drop(columns=OWN)
    assert len(here) == 3
    # what was cached before may come from more threads and differ in its last digits (tests/test_determinism.py)
    sums = ["nll", "reliability"]
    assert here.drop(columns=sums).to_dict("records") == there[here.columns].drop(columns=sums).to_dict("records")
    assert list(here["nll"]) == pytest.approx(list(there["nll"]), rel=1e-5)
    assert np.allclose(here["reliability"].tolist(), there["reliability"].tolist(), rtol=1e-4, atol=1e-3)


def test_the_command_and_the_notebooks_take_an_address(address, tmp_path, capsys):
    command = ["run", "--methods", "zero_shot", "--datasets", "toy/eurosat", "--shots", "1", "--scheduler", address]
    assert main([*command, "--rows", str(tmp_path / "a.jsonl")]) == 0 and len(lines(tmp_path / "a.jsonl")) == 1
    assert main([*command, "--rows", str(tmp_path / "b.jsonl"), "--workers", "2"]) == 2
    assert "give one of the two" in capsys.readouterr().err and not (tmp_path / "b.jsonl").exists()


def test_a_killed_worker_costs_no_row(address, tmp_path):
    run_one = functools.partial(noting, log=tmp_path / "log", trouble={2: "kill once"})
    assert len(shared(some(6), tmp_path / "r.jsonl", run_one, executor=address)) == 6
    assert seeds(tmp_path / "r.jsonl") == [1, 2, 3, 4, 5, 6] and len(attempts(tmp_path / "log")[2]) == 2


def test_a_failing_run_is_tried_on_another_worker_and_then_told(address, tmp_path):
    run_one = functools.partial(noting, log=tmp_path / "log", trouble={2: "disk", 4: "mistake"})
    with pytest.raises(FewshotError, match="2 of 5 runs failed"):
        shared(some(5), tmp_path / "r.jsonl", run_one, executor=address)
    tried = attempts(tmp_path / "log")
    assert {seed: len(pids) for seed, pids in tried.items()} == {1: 1, 2: 3, 3: 1, 4: 1, 5: 1}
    assert len(set(tried[2])) == 2 and seeds(tmp_path / "r.jsonl") == [1, 3, 5]
    traces = {path.read_text() for path in (tmp_path / "r.failed").iterdir()}
    assert len(traces) == 2 and any("in noting" in text and "a disk went away" in text for text in traces)


def refused(runs, path, address, **more) -> str:
    with pytest.raises(FewshotError) as caught:
        run_grid(runs, path, address, progress=False, **more)
    assert "\n" not in str(caught.value) and not path.exists()
    return str(caught.value)


def test_what_stands_in_the_way_is_said_before_anything_starts(address, tmp_path, monkeypatch):
    path, runs = tmp_path / "r.jsonl", [Run("x", "zero_shot", "toy/eurosat", 0)]
    monkeypatch.setattr(fewshot.workers, "CONNECT", 0.5)
    assert "no Dask scheduler answers at tcp://127.0.0.1:1 (" in refused(runs, path, "tcp://127.0.0.1:1")
    assert "no Dask scheduler answers at nowhere at all (" in refused(runs, path, "nowhere at all")
    monkeypatch.setattr(fewshot.workers, "CONNECT", 10)
    (tmp_path / "mine" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    said = refused([Run("x", "zero_shot", "./mine", 0)], path, address)
    assert said.startswith("on the worker tcp://") and "the folder ./mine does not exist" in said
    with monkeypatch.context() as patch:
        patch.setattr(fewshot.workers, "source_digest", lambda: "another")
        assert "has another version of this package; install the same version there" in refused(runs, path, address)
    with monkeypatch.context() as patch:
        patch.setattr(fewshot.workers.Cluster, "_workers", lambda self: {"tcp://a:1": 4})
        assert "tcp://a:1 has 4 threads" in refused(runs, path, address)
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "a scheduler needs Dask; install it with `pip install '.[cluster]'`" in refused(runs, path, address)


def snippets() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (TESTS.parent / "book" / "cluster.md").read_text(), re.S | re.M)


def test_the_programs_of_the_page_are_programs_and_the_one_for_this_machine_runs(tmp_path):
    for text in snippets():
        compile(text, "cluster.md", "exec")
    (local,) = [text for text in snippets() if "LocalCluster(" in text]
    (tmp_path / "local.py").write_text(local)
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "FEWSHOT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "local.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(lines(tmp_path / "rows.jsonl")) == 3 and done.stdout.count("tip_adapter") == 2


@pytest.mark.parametrize("path", sorted(TESTS.parent.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_every_notebook_that_runs_a_grid_takes_an_address_and_passes_it_on(path):
    code = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    asked = any(re.search(r"complete\(|measured\(|run_grid\(", text) for text in code)
    wanted = asked and path.stem != "training_time"  # its seconds are compared, so one machine makes all of them
    assert ('scheduler: str = ""' in code[0]) == any("cfg.scheduler" in text for text in code) == wanted


def test_a_killed_scheduler_is_said_the_rows_are_kept_and_the_rest_can_be_made(cluster, tmp_path):  # the last one
    process, address = cluster
    path = tmp_path / "r.jsonl"

    def kill(done: int, total: int) -> None:
        if done == 3:
            process.send_signal(signal.SIGKILL)

    with pytest.raises(FewshotError, match=f"the Dask scheduler at {address} is gone, and .* of 40 runs did not finish"):
        run_grid(some(40), path, address, kill, run_one=where, stamp_of=same_weights)
    kept = seeds(path)
    assert 3 <= len(kept) == len(set(kept)) < 40
    shared(some(40), path)
    assert seeds(path) == list(range(1, 41))
