"""Training time: equal conditions for every run, and that every number shown is that of its rows or of a published table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from fewshot import published
from fewshot.cache import cache_dir
from fewshot.report import TITLES
from fewshot.rows import FIRST
from fewshot.runs import Run
from fewshot.studies import alone, method_table, profile_of, runs_of
from fewshot.studies import time_figures as figures
from fewshot.studies import training_time as study

TOY = profile_of("toy")
A = "toy/imagenet"
COOP, LORA, PROGRAD, PLOT, HEAD, ZERO = (
    TITLES[m] for m in ("coop", "clip_lora", "prograd", "plotpp", "linear_probe", "zero_shot")
)
METHOD = {title: name for name, title in TITLES.items()}


def row(arm: str, seconds: float, seed: int = 1, **more) -> dict:
    trained = arm not in (HEAD, ZERO)
    return {
        "arm": arm, "method": METHOD[arm], "dataset": A, "seed": seed, "shots": 0 if arm == ZERO else 16, "accuracy": 60.0 + seed,
        "seconds_fit": seconds, "seconds_evaluate": 2.0, "n_test": 500, "steps": 100 * trained, "training_images": 3200 * trained,
        "n_classes": 60, "seconds_text": None if arm == HEAD else 0.5, "parameters": 2048, "peak_memory_mb": 1200.0, "load": 1.0,
        "peak_memory_of": "process of this run (VmHWM)", "profile": "toy", "backbone": "toy", "pretrained": None,
    } | more  # fmt: skip


ROWS = pd.DataFrame(
    [row(arm, mean + shift, seed) for arm, mean in {COOP: 20, LORA: 10, PROGRAD: 30, PLOT: 5, HEAD: 2}.items()
     for seed, shift in enumerate((-1, 0, 1), 1)] + [row(ZERO, 0.5, peak_memory_mb=1000.0)]
)  # fmt: skip
LABELS = [ZERO, HEAD, COOP, TITLES["cocoop"], PROGRAD, PLOT, LORA]


def costs(rows: pd.DataFrame = ROWS) -> pd.DataFrame:
    return study.costs(rows, A, LABELS)


# -- what is run, and how ----------------------------------------------------------------------------------------------


def test_the_runs_are_the_method_tables_own():
    arms = study.arms(TOY)
    assert list(arms) == [TITLES[m] for m in method_table.ALL_CLASS]
    assert {one.dataset for one in runs_of(arms)} == {A} and {one.shots for one in arms[COOP]} == {16}
    asked = {one.key for one in runs_of(method_table.arms(TOY))}
    assert all(one.key in asked for one in runs_of(arms))
    assert {one.dataset for one in runs_of(study.arms(profile_of("paper")))} == {"imagenet"}


def test_a_run_alone_pays_for_its_features_counts_its_steps_and_knows_its_own_memory(tmp_path, monkeypatch):
    """One real run: 2 epochs of CoOp on ten pictures."""
    drawn = cache_dir() / "toy"
    drawn.mkdir(exist_ok=True)
    (tmp_path / "toy").symlink_to(drawn, target_is_directory=True)
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    ballast = bytearray(1500 << 20)  # what the starting process holds is no memory of the run
    ballast[::4096] = b"x" * len(ballast[::4096])
    profile = profile_of("smoke")
    one = Run("x", "coop", "toy/eurosat", 1, 1, profile.methods["coop"], profile="smoke")
    found = alone.run_alone(one)
    assert found["steps"] == 2 and found["training_images"] == 20 and found["n_classes"] == 10
    assert found["seconds_text"] > 0 and found["key"] == one.key
    assert not (tmp_path / "features").exists()
    assert found["hardware"].endswith("1 threads") and "OMP_NUM_THREADS" not in os.environ
    if found["peak_memory_of"].endswith("(VmHWM)"):
        assert 200 < found["peak_memory_mb"] < 1500
    del ballast


STARTER = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from fewshot.workers import end_with_parent
if __name__ == "__main__":
    executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent)
    print(executor.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(os.name != "posix", reason="asks for a process by its number")
def test_the_process_of_a_run_ends_when_its_parent_is_killed(tmp_path):
    (tmp_path / "starter.py").write_text(STARTER)
    with subprocess.Popen([sys.executable, str(tmp_path / "starter.py")], stdout=subprocess.PIPE, text=True) as starter:
        worker = int(starter.stdout.readline())
        os.kill(worker, 0)  # it lives
        starter.kill()
    status = Path(f"/proc/{worker}/status")
    for _ in range(300):
        try:
            os.kill(worker, 0)
            if status.exists() and "State:\tZ" in status.read_text():  # ended, and nobody has asked how
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlives its parent")


def test_variables_of_the_environment_come_back(monkeypatch):
    monkeypatch.setenv("FEWSHOT_A", "1")
    monkeypatch.delenv("FEWSHOT_B", raising=False)
    with pytest.raises(KeyError), alone._environment(FEWSHOT_A=2, FEWSHOT_B=3):
        assert (os.environ["FEWSHOT_A"], os.environ["FEWSHOT_B"]) == ("2", "3")
        raise KeyError
    assert os.environ["FEWSHOT_A"] == "1" and "FEWSHOT_B" not in os.environ


# -- costs and tables --------------------------------------------------------------------------------------------------


def test_costs_are_means_over_the_seeds():
    found = costs().set_index("arm")
    coop = found.loc[COOP]
    assert coop["seconds"] == 20 and coop["ratio"] == 2 and coop["n"] == 3
    assert coop["seconds_std"] == pytest.approx((2 / 3) ** 0.5) and coop["ratio_std"] == pytest.approx(
        (2 / 3) ** 0.5 / 10
    )
    assert coop["ms_per_step"] == 200 and coop["ms_per_image"] == 6.25
    assert coop["tests_per_second"] == 250 and coop["classes_per_second"] == 120
    assert found.loc[PLOT, "images_per_second"] == pytest.approx((800 + 640 + 3200 / 6) / 3)
    assert pd.isna(found.loc[HEAD, ["ms_per_step", "ms_per_image", "classes_per_second"]]).all()
    assert list(found.index) == [ZERO, HEAD, COOP, PROGRAD, PLOT, LORA]  # CoCoOp was not run


def test_published_numbers_stand_beside_their_methods_alone():
    found = costs().set_index("arm")
    assert found.loc[COOP, "published_ratio"] == 2.4 and found.loc[PLOT, "published_ratio"] == 18.6
    assert found.loc[PROGRAD, "published_ms"] == 22 and pd.isna(found.loc[LORA, "published_ms"])
    assert pd.isna(found.loc[HEAD, "published_ratio"])
    ms = published.per_image_times().set_index("method")["ms_per_image"]
    assert ms.to_dict() == {"coop": 6, "kgcoop": 6, "prograd": 22, "cocoop": 160}


def test_other_data_sets_do_not_enter():
    more = pd.concat([ROWS, pd.DataFrame([row(COOP, 900, dataset="toy/dtd")])])
    assert costs(more).equals(costs())


def test_time_table():
    table = study.time_table(costs(), ROWS, LABELS)
    line = table.loc[COOP]
    assert line["seconds"] == "20.0 ± 0.8 (3)" and line["× CLIP-LoRA, here (toy)"] == "2.00 ± 0.08 (3)"
    assert (
        line["× CLIP-LoRA, published"] == "2.4" and line["steps"] == "100" and line["ms per picture, published"] == "6"
    )
    assert table.loc[HEAD, "ms per step"] == "–" and table.loc[HEAD, "steps"] == "–"
    assert set(table.loc[TITLES["cocoop"]]) == {"not run"}
    assert "16 shots per class" in table.caption and "toy world" in table.caption
    real = ROWS.assign(backbone="ViT-B-16-quickgelu", dataset="imagenet", pretrained="openai", profile="paper")
    assert "minutes" in study.time_table(study.costs(real, "imagenet", LABELS), real, LABELS).columns


def test_rates_table_puts_memory_beside_that_of_zero_shot():
    table = study.rates_table(costs(), ROWS, LABELS)
    assert table.loc[COOP, "peak memory, MB"] == "1,200" and table.loc[COOP, "above zero-shot, MB"] == "200"
    assert table.loc[COOP, "test pictures per second"] == "250 ± 0 (3)" and table.loc[HEAD, "classes per second"] == "–"
    assert "VmHWM" in table.caption
    without = ROWS[ROWS["arm"] != ZERO]
    assert study.rates_table(costs(without), without, LABELS).loc[COOP, "above zero-shot, MB"] == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [(44.254, "44.3"), (0.00634, "0.0063"), (124.6, "125"), (29189.0, "29,189"), (float("nan"), "–"), (0.0, "0")],
)
def test_three_digits_count(value, text):
    assert study.number(value) == text


def test_published_table_names_its_sources():
    table = study.published_table()
    assert dict(table["minutes"]) == {COOP: "120", TITLES["cocoop"]: "–", TITLES["kgcoop"]: "–"} | {
        PROGRAD: "200", PLOT: "930", LORA: "50",
    }  # fmt: skip
    assert table.loc[TITLES["cocoop"], "ms per picture"] == "160" and table.loc[LORA, "ms per picture"] == "–"
    assert (
        "KgCoOp README" in table.caption
        and "A100" in table.caption
        and "(CoOp, 16 context vectors; PLOT++, both stages)" in table.caption
    )


# -- sentences ---------------------------------------------------------------------------------------------------------


def test_statement_counts_the_pairs_in_the_published_order():
    said = study.statement(costs(), ROWS)
    assert "Published, times CLIP-LoRA's: CLIP-LoRA 1, CoOp 2.4, ProGrad 4, PLOT++ 18.6." in said
    assert "Here: PLOT++ 0.500, CLIP-LoRA 1.00, CoOp 2.00, ProGrad 3.00; 3 of 6 pairs" in said
    slow = ROWS.assign(seconds_fit=ROWS["seconds_fit"].where(ROWS["arm"] != PLOT, 100))
    assert "6 of 6 pairs" in study.statement(costs(slow), slow)


def test_statement_compares_pictures_with_the_readme_and_heads_with_clip_lora():
    said = study.statement(costs(), ROWS)
    assert "ProGrad, time per training picture: 1.50 times CoOp's; 3.67 times in KgCoOp's README." in said
    assert "1 methods run no encoder" not in said and "1 method runs no encoder" in said
    assert "the slowest of them, Linear-probe CLIP, takes 0.200 of CLIP-LoRA's time" in said
    assert "of CoOp's time" not in said
    more = pd.concat([ROWS, pd.DataFrame([row(TITLES["tip_adapter_f"], 3)])])
    said_more = study.statement(study.costs(more, A, [*LABELS, TITLES["tip_adapter_f"]]), more)
    assert "Tip-Adapter-F, its keys included, takes 0.150 of CoOp's time." in said_more
    assert "Quickest Linear-probe CLIP (2.00 s), slowest ProGrad (30.0 s): a factor of 15.0." in said


def test_statement_says_when_the_machine_was_busy_and_when_nothing_was_run():
    assert "at most 1.0, the machine was idle" in study.statement(costs(), ROWS)
    busy = ROWS.assign(load=[*ROWS["load"][:-1], 7.5])
    assert "at most 7.5, SOMETHING ELSE WAS RUNNING" in study.statement(costs(busy), busy)
    shared, own = ROWS.assign(waited=0.31), ROWS.assign(waited=[0.0] * (len(ROWS) - 1) + [0.004])
    assert "at most 31.0 % of their time: SOMETHING ELSE WAS RUNNING" in study.statement(costs(shared), shared)
    assert "at most 0.4 % of their time: each had one for itself" in study.statement(costs(own), own)
    assert study.statement(costs(ROWS.iloc[:0]), ROWS.iloc[:0]) == "Nothing was run, so nothing can be said."
    alone_here = ROWS[ROWS["arm"] == COOP]  # no CLIP-LoRA to compare with
    assert "times CLIP-LoRA's" not in study.statement(costs(alone_here), alone_here)


# -- figures -----------------------------------------------------------------------------------------------------------


def test_bars_are_the_ratios_with_their_errors_and_the_published_points():
    axis = figures.time_bars(costs(), ROWS).axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == [PROGRAD, COOP, LORA, PLOT, HEAD, ZERO]
    widths = [patch.get_width() for patch in axis.patches]
    assert widths == pytest.approx([3, 2, 1, 0.5, 0.2, 0.05])
    hollow = [line for line in axis.lines if line.get_marker() == "D"]
    assert sorted(float(line.get_xdata()[0]) for line in hollow) == pytest.approx([1, 2.4, 4, 18.6])
    assert axis.get_xscale() == "log" and [bool(patch.get_hatch()) for patch in axis.patches] == [0, 0, 1, 1, 0, 0]
    assert len([c for c in axis.containers if getattr(c, "errorbar", None)]) == 5  # zero-shot has one run


def test_points_of_the_second_figure():
    axis = figures.accuracy_against_time(costs(), ROWS).axes[0]
    points = {c.get_label(): (c[0].get_xdata()[0], c[0].get_ydata()[0]) for c in axis.containers}
    assert points[COOP] == (20, 62) and points[ZERO] == (0.5, 61) and len(points) == 6


def test_nothing_run_breaks_nothing():
    none = pd.DataFrame(columns=[*FIRST, "arm"])  # what `measured` gives
    found = costs(none)
    study.statement(found, none)
    assert set(study.time_table(found, none, LABELS).iloc[0]) == {"not run"}
    assert set(study.rates_table(found, none, LABELS).iloc[0]) == {"not run"}
    figures.time_bars(found, none)
    figures.accuracy_against_time(found, none)
