"""What is missing stops a grid before its first run, and the plan says what is known and what is not."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from test_runs import made

import fewshot.plan as module
import fewshot.runs
from fewshot.__main__ import main
from fewshot.data import ImageArrays
from fewshot.errors import FewshotError
from fewshot.grids import run_grid
from fewshot.methods import METHODS
from fewshot.plan import feature_bytes, make_plan, missing_weights, require
from fewshot.rows import Rows
from fewshot.runs import ROOT, Run, limited, load_profile

HERE = "Processor, 1 threads"
ONE = Run("x", "coop", "toy/oxford_pets", 1)
PETS = (16, 480, 720)


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """No rows, no data, no weights on this disk; sixteen classes in every toy data set."""
    monkeypatch.setenv("FEWSHOT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module, "pictures", lambda name: PETS if name.startswith("toy/") else (37, 2944, 3669))
    monkeypatch.setattr(module, "_hardware", lambda: HERE)
    monkeypatch.setattr(module, "stamp", lambda one: "w")
    monkeypatch.setattr(module, "_cached", lambda tag: False)


def row(one: Run, fit: float = 10.0, test: float = 2.0, **more) -> dict:
    cost = {"seconds_fit": fit, "seconds_evaluate": test, "n_test": PETS[2], "hardware": HERE, "peak_memory_mb": 1024.0}
    return made(one) | cost | {"peak_memory_of": "process (ru_maxrss)"} | more


def stored(path, *rows: dict) -> str:
    file = Rows(path)
    for one in rows:
        file.append(one)
    return str(path)


def line(runs, path, method: str = "coop"):
    return next(line for line in make_plan(runs, path).lines if line.method == method)


def test_done_runs_are_counted_from_the_file_and_from_results(tmp_path):
    runs = [replace(ONE, seed=seed) for seed in (1, 2, 3)]
    stored(tmp_path / "results" / "a.jsonl", row(runs[0], stamp="w"))
    plan = make_plan(runs, stored(tmp_path / "own.jsonl", row(runs[1], stamp="w")))
    assert (plan.lines[0].done, plan.lines[0].todo) == (2, [runs[2]])
    assert "1 of the runs done are in results/ only" in plan.notes[0]


def test_a_row_of_other_weights_is_not_done(tmp_path):
    assert line([ONE], stored(tmp_path / "own.jsonl", row(ONE, stamp="other"))).todo == [ONE]


def test_measured_seconds_are_taken_and_others_are_scaled_from_the_nearest_shots(tmp_path):
    path = stored(tmp_path / "r.jsonl", row(ONE), row(replace(ONE, shots=16), fit=400.0))
    found = line([replace(ONE, seed=2)], path)
    assert (found.seconds, found.memory) == (12.0, 1024.0) and found.source == "1 measured from 2 rows of 1 threads"
    found = line(
        [replace(ONE, shots=2, dataset="oxford_pets")], path
    )  # 37 classes for 16, 2 shots for 1, 3669 tests for 720
    assert found.seconds == pytest.approx(10 * 37 * 2 / 16 + 2 * 3669 / 720) and "1 scaled" in found.source


@pytest.mark.parametrize("other", [{"hardware": "GPU"}, {"backbone": "RN50"}, {"overrides": {"epochs": 1}}])
def test_rows_of_another_machine_backbone_or_budget_say_nothing(tmp_path, other):
    found = line([replace(ONE, seed=2)], stored(tmp_path / "r.jsonl", row(ONE, **other)))
    assert found.seconds is None and found.source == "no row of it on this hardware"
    assert "hours unknown (no row for coop)" in make_plan([replace(ONE, seed=2)], tmp_path / "r.jsonl").text()


def test_features_are_counted_once_per_picture_and_draw():
    zero = Run("x", "zero_shot", "oxford_pets", 0, backbone="ViT-B-16-quickgelu", pretrained="openai")
    tip = replace(zero, method="tip_adapter", shots=2)
    per_test = 4 * 512 * 3669
    assert feature_bytes([zero, zero]) == per_test
    assert feature_bytes([zero, tip, replace(tip, config={"alpha": 2.0})]) == per_test + 4 * 512 * 37 * (2 + 2 + 10 * 2)
    assert feature_bytes([replace(zero, limit=10)]) == 4 * 512 * 10
    assert feature_bytes([replace(tip, method="clip_lora")]) == 0  # its image encoder changes


def test_a_full_disk_is_missing_too(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_free", lambda: 10)
    assert "set FEWSHOT_CACHE to a larger disk" in make_plan([ONE]).missing[0]


def test_a_named_data_set_that_is_not_here_stops_the_grid_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(fewshot.runs, "_fit", lambda *_: pytest.fail("a run was started"))
    runs = [ONE, replace(ONE, dataset="oxford_pets"), replace(ONE, dataset="eurosat")]
    with pytest.raises(
        FewshotError, match=r"nothing was started: oxford_pets is not on this disk.*fetch oxford_pets.*1 more"
    ):
        run_grid(runs, tmp_path / "r.jsonl", progress=False)
    assert not (tmp_path / "r.jsonl").exists()


def test_weights_that_cannot_be_had_stop_the_grid_before_anything_runs(tmp_path):
    with pytest.raises(FewshotError, match=r"nothing was started: the weight file .*none.pt does not exist"):
        require([ONE, replace(ONE, backbone="ViT-B-16-quickgelu", pretrained=str(tmp_path / "none.pt"))])


def test_a_target_is_looked_for_and_a_test_only_data_set_cannot_be_learned(monkeypatch):
    with pytest.raises(FewshotError, match="imagenet_v2 is not on this disk"):
        require([replace(ONE, target="imagenet_v2")])
    from fewshot.data.check import State

    monkeypatch.setattr("fewshot.data.check.check", lambda name: State(name, "found", "here"))
    with pytest.raises(FewshotError, match="imagenet_v2 has test pictures only"):
        require([replace(ONE, dataset="imagenet_v2")])
    require([replace(ONE, target="imagenet_v2")])


def test_weights_are_looked_for_without_loading_them(tmp_path, monkeypatch):
    assert missing_weights("toy", None) is None
    assert "are not on this disk: load_clip('RN50-quickgelu', 'openai')" in missing_weights("RN50-quickgelu", "openai")
    (tmp_path / "w.pt").touch()
    assert missing_weights("RN50-quickgelu", str(tmp_path / "w.pt")) is None
    assert "did you mean 'openai'" in missing_weights("RN50-quickgelu", "openal")
    monkeypatch.setattr(module, "_cached", lambda tag: True)
    assert missing_weights("RN50-quickgelu", "openai") is None


def test_the_command_prints_the_plan_and_exits_with_2_when_something_is_missing(capsys, tmp_path):
    ask = ["plan", "--methods", "zero_shot", "coop", "--shots", "1", "--seeds", "1", "--datasets"]
    assert main([*ask, "toy/pets"]) == 0
    assert "2 runs to do, hours unknown" in capsys.readouterr().out
    assert main([*ask, "oxford_pets", "--profile", "paper"]) == 2
    out, err = capsys.readouterr()
    assert re.search(r"download +oxford_pets: 811", out) and "598.5 MB in memory" in out
    assert err.count("\n") == 1 and "fewshot data fetch oxford_pets" in err and "1 more above" in err
    assert "missing: the weights 'openai' of ViT-B-16-quickgelu" in out


# Few test pictures


def test_limited_takes_as_many_of_one_class_as_of_another():
    labels = [0] * 10 + [1] * 10 + [2] * 2
    images = ImageArrays(np.zeros((22, 3, 2, 2), "uint8"), labels)
    assert limited(images, 6).ids == ("0", "1", "10", "11", "20", "21")
    assert limited(images, 2).labels.tolist() == [0, 1]
    assert limited(images, None) is images is limited(images, 22)


def test_a_limit_is_part_of_the_key_and_survives_the_row():
    few = replace(ONE, limit=7)
    assert few.key != ONE.key == replace(ONE, limit=None).key and "7 test pictures" in str(few)
    assert Run.from_row(json.loads(json.dumps(made(few) | {"limit": 7}))) == few
    with pytest.raises(FewshotError, match="limit must be a number of test pictures"):
        replace(ONE, limit=0)


# The paper's settings


def test_the_paper_profile_explains_every_method_whose_setting_had_to_be_chosen():
    text = (ROOT / "profiles" / "paper.yaml").read_text()
    assert all(re.search(rf"\b{method}\b", text) for method in METHODS)
    assert load_profile("paper").pretrained == "openai"


@pytest.mark.parametrize(
    ("text", "message"),
    [("profile: toy", "profile must be 'p'"), ("{weights: a, pretrained: b}", "two words for one thing")],
)
def test_a_profile_names_itself_and_its_weights_once(tmp_path, text, message):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(FewshotError, match=message):
        load_profile(tmp_path / "p.yaml")
