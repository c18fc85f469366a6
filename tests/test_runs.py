"""A grid never loses a finished run, never repeats one, and says what went wrong. (The training itself is replaced here.)"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import fewshot.runs as module
from fewshot.errors import FewshotError
from fewshot.grids import grid, run_grid, spot_check
from fewshot.rows import Rows
from fewshot.runs import Profile, Run, load_profile

PROFILE = Profile("toy", methods={"coop": {"epochs": 2}})


def some(n: int) -> list[Run]:
    return [Run("x", "coop", "toy/pets", 1, seed) for seed in range(1, n + 1)]


def made(one: Run, clip: str = "w") -> dict:
    """The row a real run would give, without running."""
    fields = {
        "experiment": one.experiment,
        "method": one.method,
        "dataset": one.dataset,
        "shots": one.shots,
        "seed": one.seed,
    }
    origin = {"backbone": one.backbone, "pretrained": one.pretrained, "profile": one.profile}
    asked = {"overrides": one.config, "config": one.config, "selection_asked": one.selection, "selection": "fixed"}
    done = {"key": one.key, "clip": clip, "stamp": clip, "split_hash": "s", "accuracy": 50.0 + one.seed}
    done["seconds_fit"] = float(one.seed)
    return fields | origin | asked | done


def same_weights(one: Run) -> str:
    return "w"


def shared(grid_runs, path, run_one=made, **more):
    return run_grid(grid_runs, path, progress=False, run_one=run_one, stamp_of=same_weights, **more)


def lines(path) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


# The key


def test_names_do_not_change_the_key_and_everything_else_does():
    one = Run("a", "coop", "toy/pets", 4, 1, {"epochs": 3})
    assert replace(one, experiment="b").key == one.key == replace(one, profile="paper").key
    changed = {
        "method": "clip_lora",
        "dataset": "toy/food",
        "shots": 8,
        "seed": 2,
        "config": {"epochs": 4},
        "backbone": "RN50",
        "pretrained": "openai",
        "selection": "fewval",
    }
    keys = {replace(one, **{name: value}).key for name, value in changed.items()}
    assert len(keys | {one.key}) == len(changed) + 1


def test_the_key_is_the_same_in_every_process_and_for_every_order_of_the_options():
    one = Run("a", "coop", "toy/pets", 4, 1, {"epochs": 3, "n_ctx": 4})
    assert replace(one, config={"n_ctx": 4, "epochs": 3}).key == one.key
    assert one.key == "189d9036989cf4d1"


def test_nothing_is_drawn_for_zero_shots_so_the_seed_is_not_in_the_key():
    assert Run("a", "zero_shot", "toy/pets", 0, 1).key == Run("a", "zero_shot", "toy/pets", 0, 2).key


@pytest.mark.parametrize(
    ("method", "shots"), [("zero_shot", 1), ("coop", 0), ("coop", -2), ("coop", True), ("coop", 1.5)]
)
def test_impossible_shots_are_refused(method, shots):
    with pytest.raises(FewshotError, match="shots"):
        Run("a", method, "toy/pets", shots)


def test_a_run_survives_its_row_and_the_table(tmp_path):
    for one in (
        Run("x", "coop", "toy/pets", 4, 2, {"epochs": 3}, selection="fewval"),
        Run("x", "zero_shot", "toy/pets", 0),
    ):
        rows = Rows(tmp_path / f"{one.method}.jsonl")
        rows.append(made(one))
        assert Run.from_row(rows.frame().iloc[0].to_dict()) == one == Run.from_row(rows.get(one.key))


# Profiles and grids


@pytest.mark.parametrize("name", ["toy", "paper", "smoke"])
def test_the_profiles_load_and_every_option_exists(name):
    from fewshot.methods import get_method
    from fewshot.methods.method import make_config

    profile = load_profile(name)
    assert profile.name == name
    for method, overrides in profile.methods.items():
        make_config(get_method(method), overrides)


def test_the_paper_profile_changes_nothing_but_the_backbone():
    assert load_profile("paper") == Profile("paper", "ViT-B-16-quickgelu", "openai", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: {copp: {}}", "unknown method 'copp'; did you mean 'coop'"),
        ("method: {}", "unknown field of the profile p.yaml 'method'; did you mean 'methods'"),
        ("methods: {coop: {lr: 1e-3}}", "coop.lr is the text '1e-3', not a number; write 0.001"),
        ("methods: [", "is not valid YAML"),
        ("- coop", "p.yaml is not a mapping"),
        ("methods: [coop]", "p.yaml: methods is not a mapping"),
        ("methods: {coop: 3}", "p.yaml: coop is not a mapping"),
    ],
)
def test_a_faulty_profile_is_one_clear_sentence(tmp_path, text, message):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(FewshotError, match=message.replace("[", r"\[")):
        load_profile(path)


def test_an_unknown_profile_is_named_with_the_nearest_one():
    with pytest.raises(FewshotError, match="unknown profile 'papr'; did you mean 'paper'"):
        load_profile("papr")


def test_a_grid_is_every_combination_with_zero_shot_once_per_data_set():
    runs = grid("x", ["zero_shot", "coop"], ["toy/pets", "toy/food"], (1, 4), (1, 2), PROFILE, selection="fewval")
    assert len(runs) == len({one.key for one in runs}) == 2 * (1 + 2 * 2)
    assert Counter((one.method, one.shots) for one in runs) == {("zero_shot", 0): 2, ("coop", 1): 4, ("coop", 4): 4}
    assert all(one.config == ({"epochs": 2} if one.method == "coop" else {}) for one in runs)
    assert {one.selection for one in runs if one.method == "coop"} == {"fewval"}
    assert {one.dataset for one in runs} == {"toy/oxford_pets", "toy/food101"}  # short names have one key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["copp"]}, "unknown method 'copp'; did you mean 'coop'"),
        ({"datasets": ["toy/oxford_pet"]}, "unknown data set 'toy/oxford_pet'; did you mean 'toy/oxford_pets'"),
        ({"shots": [0]}, "shots must be positive whole numbers, not 0"),
        ({"shots": ["4"]}, "not '4'"),
        ({"seeds": [1.5]}, "seeds must be whole numbers, not 1.5"),
        ({"selection": "oracel"}, "unknown selection 'oracel'; did you mean 'oracle'"),
    ],
)
def test_a_typo_in_a_grid_is_found_before_anything_runs(change, message):
    ask = {"methods": ["coop"], "datasets": ["toy/pets"], "shots": [1], "seeds": [1], "profile": PROFILE}
    with pytest.raises(FewshotError, match=message):
        grid("x", **ask | change)


# The grid at work


def test_a_finished_run_is_never_run_again(tmp_path):
    path, calls = tmp_path / "r.jsonl", []

    def counted(one):
        calls.append(one.seed)
        return made(one)

    shared(some(3), path, counted)
    frame = shared([*reversed(some(5)), some(5)[0]], path, counted)
    assert calls == [1, 2, 3, 5, 4] and list(frame["seed"]) == [5, 4, 3, 2, 1]


def test_only_the_asked_rows_come_back_and_other_experiments_share_theirs(tmp_path):
    path = tmp_path / "r.jsonl"
    shared(some(3), path)
    frame = shared([replace(one, experiment="y") for one in some(2)], path, None)
    assert list(frame["seed"]) == [1, 2] and set(frame["experiment"]) == {"x"}


def test_a_row_made_with_other_weights_is_not_done(tmp_path):
    path = tmp_path / "r.jsonl"
    shared(some(2), path)
    frame = run_grid(some(2), path, progress=False, run_one=lambda one: made(one, "new"), stamp_of=lambda one: "new")
    assert set(frame["clip"]) == {"new"} and len(frame) == 2
    assert len(lines(path)) == 4
    run_grid(some(2), path, progress=False, run_one=None, stamp_of=lambda one: "new")


def test_rows_are_taken_as_they_are_where_the_weights_cannot_be_had(tmp_path):
    path = tmp_path / "r.jsonl"
    shared(some(2), path)
    assert len(run_grid(some(2), path, progress=False, run_one=None, stamp_of=lambda one: None)) == 2


def fails_on_two(one):
    if one.seed == 2:
        raise RuntimeError("no luck")
    return made(one)


@pytest.mark.parametrize("pool", [None, ThreadPoolExecutor, ProcessPoolExecutor])
def test_a_failing_run_is_reported_not_stored_and_the_others_go_on(tmp_path, pool):
    path = tmp_path / "r.jsonl"
    executor = pool and pool(2)
    with pytest.raises(
        FewshotError, match=r"1 of 4 runs failed .* first coop on toy/pets, 1 shots, seed 2 \(RuntimeError: no luck\)"
    ):
        shared(some(4), path, fails_on_two, executor=executor)
    assert sorted(line["seed"] for line in lines(path)) == [1, 3, 4]
    (trace,) = (tmp_path / "r.failed").iterdir()
    assert "fails_on_two" in trace.read_text() and "no luck" in trace.read_text()
    assert len(shared(some(4), path)) == 4  # the next attempt runs it
    assert not trace.exists()
    if executor:
        executor.shutdown()


def dies_on_two(one):
    if one.seed == 2:
        os._exit(1)
    return made(one)


def test_a_worker_process_that_dies_costs_no_finished_run_and_the_rest_can_be_resumed(tmp_path):
    path = tmp_path / "r.jsonl"
    with (
        ProcessPoolExecutor(1) as executor,
        pytest.raises(FewshotError, match="a worker process died, and 3 of 4 runs did not finish"),
    ):
        shared(some(4), path, dies_on_two, executor=executor)
    assert [line["seed"] for line in lines(path)] == [1]
    assert list(shared(some(4), path)["seed"]) == [1, 2, 3, 4]


# Killed, interrupted, shared: real processes

SCRIPT = textwrap.dedent("""
    import sys, time
    sys.path.insert(0, {tests!r})
    from test_runs import made, same_weights, some
    from fewshot.grids import run_grid

    def slow(one):
        with open({log!r}, "a") as log:
            log.write(f"{{one.seed}}\\n")
        time.sleep({seconds})
        return made(one)

    run_grid(some({n}), {path!r}, progress=False, run_one=slow, stamp_of=same_weights)
""")


def start(tmp_path, n: int, seconds: float, log: str = "log") -> subprocess.Popen:
    code = SCRIPT.format(
        tests=str(Path(__file__).parent), log=str(tmp_path / log), n=n, seconds=seconds, path=str(tmp_path / "r.jsonl")
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c)


def hears_ctrl_c() -> None:
    """Where the tests run in the background of a shell, they and their children ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_rows(path: Path, n: int) -> None:
    limit = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < n:
        assert time.monotonic() < limit
        time.sleep(0.005)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_or_interrupted_again_and_again_no_row_is_lost_repeated_or_torn(tmp_path, how):
    path, n, seen = tmp_path / "r.jsonl", 30, 0
    for kills in range(1, 4):
        process = start(tmp_path, n, 0.02)
        wait_for_rows(path, seen + 4)
        process.send_signal(how)
        _, message = process.communicate(timeout=60)
        seen = len(lines(path))  # every line parses
        assert 4 * kills <= seen < n and process.returncode != 0
        if how == signal.SIGINT:
            last = message.strip().splitlines()[-1]
            assert f"interrupted: {seen} of {n} runs are stored in {path}; start it again to go on." in last
    assert start(tmp_path, n, 0).wait(60) == 0
    assert sorted(line["seed"] for line in lines(path)) == list(range(1, n + 1))
    started = Counter((tmp_path / "log").read_text().split())
    assert len(started) == n and sum(started.values()) <= n + 3  # only what was under way is run again


POOL = """
import multiprocessing, sys, time
sys.path.insert(0, {tests!r})
from concurrent.futures import ProcessPoolExecutor
from test_runs import made, shared, some
from fewshot.workers import start

def slow(one):
    time.sleep(0.05)
    return made(one)

if __name__ == "__main__":
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), start, (2,)) as executor:
        shared(some(400), {path!r}, slow, executor=executor)
"""


def test_ctrl_c_at_the_terminal_lets_workers_finish_the_run_under_way_and_stops(tmp_path):
    path, script = tmp_path / "r.jsonl", tmp_path / "script.py"
    script.write_text(POOL.format(tests=str(Path(__file__).parent), path=str(path)))
    process = subprocess.Popen(
        [sys.executable, script], stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hears_ctrl_c
    )
    wait_for_rows(path, 5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the parent and its workers
    _, message = process.communicate(timeout=60)
    assert process.returncode != 0 and message.count("Traceback") == 1
    stored = len(lines(path))
    assert 5 < stored == len({line["seed"] for line in lines(path)}) < 400
    # nothing is waited for where both runs had just come back
    assert message.startswith(("waiting for ", "Traceback")) and f"interrupted: {stored} of 400 runs are stored" in message


def test_a_row_torn_by_a_kill_is_run_again(tmp_path):
    path = tmp_path / "r.jsonl"
    shared(some(3), path)
    path.write_bytes(path.read_bytes()[:-20])
    frame = shared(some(3), path)
    assert list(frame["seed"]) == [1, 2, 3] and [line["seed"] for line in lines(path)] == [1, 2, 3]


def test_two_processes_on_one_file_share_the_runs_and_both_get_all_rows(tmp_path):
    first, second = start(tmp_path, 20, 0.05, "a"), start(tmp_path, 20, 0.05, "b")
    assert first.wait(60) == 0 and second.wait(60) == 0
    assert sorted(line["seed"] for line in lines(tmp_path / "r.jsonl")) == list(range(1, 21))
    ran = [(tmp_path / log).read_text().split() for log in "ab"]
    assert len(ran[0]) + len(ran[1]) == 20 and min(map(len, ran)) >= 3


def test_the_survivor_takes_over_what_a_killed_process_had_claimed(tmp_path):
    hanging = start(tmp_path, 1, 600)
    limit = time.monotonic() + 60
    while not (tmp_path / "log").exists() and time.monotonic() < limit:
        time.sleep(0.01)
    other = start(tmp_path, 2, 0, "other")
    wait_for_rows(tmp_path / "r.jsonl", 1)
    assert [line["seed"] for line in lines(tmp_path / "r.jsonl")] == [2] and other.poll() is None
    hanging.kill()
    hanging.communicate()
    assert other.wait(60) == 0
    assert [line["seed"] for line in lines(tmp_path / "r.jsonl")] == [2, 1]


# Does it still give the same number?


def test_the_spot_check_repeats_runs_of_every_method_and_notices_other_numbers_weights_and_splits(tmp_path):
    rows = Rows(tmp_path / "r.jsonl")
    for one in [*some(3), Run("x", "zero_shot", "toy/pets", 0)]:
        rows.append(made(one))
    good = spot_check(rows, n=2, run_one=made)
    assert list(good["method"].value_counts().sort_index()) == [2, 1] and good["agrees"].all()
    assert list(spot_check(rows, 2, seed=0, run_one=made)["seed"]) == list(good["seed"])
    for change in ({"accuracy": 40.0}, {"clip": "other"}, {"split_hash": "other"}):
        assert not spot_check(rows.frame(), run_one=lambda one, change=change: made(one) | change)["agrees"].any()
    assert len(rows) == 4
    assert set(spot_check(rows, 1, seconds=1.5, run_one=made)["seed"]) == {1}
    assert sorted(spot_check(rows, 2, seconds=0.5, run_one=made)["seed"]) == [
        1,
        1,
        2,
    ]  # the quickest, when all are slow
    with pytest.raises(FewshotError, match="no row to check"):
        spot_check(Rows(tmp_path / "none.jsonl"))


def test_the_spot_check_stays_at_one_place_where_methods_allow_it(tmp_path):
    rows = Rows(tmp_path / "r.jsonl")
    grid = [("coop", name, k, seed) for name in ("toy/pets", "toy/dtd") for k in (1, 4) for seed in (1, 2, 3)]
    grid += [(method, "toy/dtd", 4, seed) for method in ("gda", "lpplusplus") for seed in (1, 2, 3)]
    grid += [("taskres", "toy/dtd", 1, 1)]
    grid += [("zero_shot", name, 0, 1) for name in ("toy/pets", "toy/dtd")] + [("maple", "toy/pets", 1, 1)]
    for one in grid:
        rows.append(made(Run("x", *one)))
    drawn = set()
    for seed in range(12):
        found = spot_check(rows, seed=seed, run_one=made).set_index("method")
        assert set(found.index) == {one[0] for one in grid}
        assert len(found.loc[["coop", "gda", "lpplusplus"], ["dataset", "shots", "seed"]].drop_duplicates()) == 1
        assert found.loc[["zero_shot", "taskres"], "dataset"].tolist() == ["toy/dtd"] * 2  # the same pictures are tested
        assert found.loc["maple", "dataset"] == "toy/pets"  # it has no other row
        drawn.add(found.loc["coop", "seed"])
    assert drawn == {1, 2, 3}


# One real run


def test_a_real_run_gives_a_complete_row_whose_stamp_says_done(tmp_path):
    one = Run("x", "zero_shot", "toy/pets", 0)
    row = module.run(one)
    assert row["stamp"] == module.stamp(one) and row["clip"] and row["split_hash"] is None
    assert 0 < row["accuracy"] <= 100 and row["n_test"] > 0 and row["parameters"] == 0
    assert row["peak_memory_mb"] > 0 and row["versions"].keys() == {"python", "torch", "open_clip", "numpy", "fewshot"}
    rows = Rows(tmp_path / "r.jsonl")
    rows.append(row)
    assert len(run_grid([one], rows, progress=False, run_one=None)) == 1
    assert spot_check(rows)["agrees"].all()


def test_an_option_that_the_method_no_longer_has_stops_the_grid_before_anything_runs(tmp_path):
    one = Run("x", "zero_shot", "toy/pets", 0, config={"templats": "task"})
    Rows(tmp_path / "r.jsonl").append(made(one))
    with pytest.raises(FewshotError, match="'templats'; did you mean 'templates'"):
        run_grid([one], tmp_path / "r.jsonl", progress=False, run_one=None)


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ("toy/pest", "unknown data set 'toy/pest'; did you mean 'toy/pets'?"),
        ("/no/such/place", "folder /no/such/place does not"),
    ],
)
def test_a_data_set_that_is_not_there_is_named_with_the_remedy(dataset, said):
    with pytest.raises(FewshotError) as caught:
        grid("x", ["coop"], [dataset], [1])
    assert said in str(caught.value)
