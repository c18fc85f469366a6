"""What choosing on the test buys: the experiment's runs, its tables and sentences on invented rows, one fitted model."""

from __future__ import annotations

import pandas as pd
import pytest
import tiny

from fewshot import fit, studies
from fewshot.methods import METHODS, get_method
from fewshot.methods.method import Method
from fewshot.report import TITLES
from fewshot.studies import optimism, selection

TOY = studies.profile_of("toy")
TWO = ("gda", "tip_adapter")
SETS = ("toy/dtd", "toy/eurosat")


def row(method: str, how: str, accuracy: float, dataset: str = "toy/dtd", seed: int = 1, shots: int = 4) -> dict:
    return {
        "arm": selection.label(method, how) if how else TITLES[method], "method": method, "dataset": dataset,
        "shots": shots, "seed": seed, "accuracy": accuracy, "n_test": 300, "profile": "toy", "backbone": "toy",
        "pretrained": None, "selection": how or "fixed",
    }  # fmt: skip


def rows_of(method: str, fixed: float, fewval: float, oracle: float, **more) -> list[dict]:
    """Two data sets, three seeds; the second data set twenty points higher, the oracle a little different by seed."""
    found = []
    for i, dataset in enumerate(SETS):
        for seed in (1, 2, 3):
            up = 20 * i + 5 * seed
            values = (fixed + up, fewval + up, oracle + up + 0.2 * i)
            found += [
                row(method, how, value, dataset, seed, **more)
                for how, value in zip(("fixed", "fewval", "oracle"), values, strict=True)
            ]
    return found


FRAME = pd.DataFrame([*rows_of("gda", 50, 60, 61), *rows_of("tip_adapter", 55, 54, 57)])


# -- the runs ----------------------------------------------------------------------------------------------------------


def test_methods_that_choose_are_those_with_a_choose_of_their_own():
    found = selection.choosers()
    assert {"linear_probe", "lpplusplus", "tip_adapter", "tip_adapter_f"} <= set(found)
    assert "coop" not in found and "text_adapter" not in found  # the latter is about other data sets
    for name in set(METHODS) - {"text_adapter"}:
        assert (name in found) == (get_method(name).choose is not Method.choose)


def test_every_way_of_choosing_is_an_arm_and_named_in_its_runs():
    arms = selection.arms(TOY, TWO, ["dtd"], [1, 16], [1, 2])
    assert list(arms) == ["GDA, fixed", "GDA, fewval", "GDA, oracle"] + [
        f"Tip-Adapter, {how}" for how in ("fixed", "fewval", "oracle")
    ]
    for label, runs in arms.items():
        assert len(runs) == 4 and {one.selection for one in runs} == {label.rpartition(", ")[2]}
    whole = selection.arms(TOY)
    assert len(whole) == 3 * len(selection.choosers())
    assert len(studies.runs_of(whole)) == len(whole) * 11 * 3 * 3  # no two arms share a run


def test_no_row_that_leaves_the_way_open_stands_for_one_of_them():
    from fewshot.studies import method_table

    keys = {one.key for one in studies.runs_of(method_table.arms(TOY, ["gda"], ["toy/dtd"], [4], [1]))}
    assert not keys & {one.key for one in studies.runs_of(selection.arms(TOY, ["gda"], ["toy/dtd"], [4], [1]))}


# -- differences -------------------------------------------------------------------------------------------------------


def test_differences_are_taken_run_by_run():
    table = optimism.change(FRAME, "gda", optimism.OPTIMISM, 4)
    assert table.shape == (2, 3) and table.loc["toy/dtd"].tolist() == pytest.approx([1, 1, 1])
    assert table.loc["toy/eurosat"].tolist() == pytest.approx([1.2, 1.2, 1.2])
    assert optimism.change(FRAME, "gda", optimism.GAIN, 4).to_numpy().ravel() == pytest.approx([10] * 6)
    assert optimism.change(FRAME, "gda", optimism.OPTIMISM, 16).empty
    both = optimism.over_methods(FRAME, optimism.OPTIMISM, 4, TWO)
    assert both.loc["toy/dtd"].tolist() == pytest.approx([2, 2, 2])  # of 1 and 3


def test_a_run_without_its_partner_does_not_count():
    lone = FRAME[~((FRAME["arm"] == "GDA, oracle") & (FRAME["seed"] == 3))]
    assert list(optimism.change(lone, "gda", optimism.OPTIMISM, 4).columns) == [1, 2]
    assert optimism.over_methods(FRAME, optimism.OPTIMISM, 4, [*TWO, "lpplusplus"]).empty


def test_differences_and_points_as_tables_to_download():
    found = optimism.differences(FRAME, TWO, [4, 16]).set_index(["method", "difference"])
    assert len(found) == 4 and set(found["shots"]) == {4}
    assert found.loc[("Tip-Adapter", optimism.NAMES[optimism.GAIN]), "mean"] == pytest.approx(-1)
    points = optimism.points(FRAME, TWO, [4])
    assert len(points) == 8 and set(points["seeds"]) == {3}


def test_margins_are_between_neighbours():
    assert optimism.margins(pd.Series({"a": 60.0, "b": 50.0, "c": 57.0})).tolist() == pytest.approx([7, 3])


# -- tables and sentences ----------------------------------------------------------------------------------------------


def test_choice_table_shows_the_three_ways_and_says_what_is_missing():
    table = selection.choice_table(FRAME, 4, TWO, SETS)
    assert table.loc["GDA", "fixed"] == "70.0 ± 4.1 (3)" and table.loc["GDA", "fewval"] == "80.0 ± 4.1 (3)"
    gain, more = (optimism.NAMES[pair] for pair in (optimism.GAIN, optimism.OPTIMISM))
    assert table.loc["GDA", gain] == "+10.0 [+10.0, +10.0]" and table.loc["Tip-Adapter", gain].startswith("−1.0")
    assert table.loc["Tip-Adapter", more].startswith("+3.1 [")  # the mean of 3.0 and 3.2
    assert "toy world" in table.caption and "2 data sets" in table.caption
    partial = FRAME[(FRAME["dataset"] == "toy/dtd") | (FRAME["method"] == "gda")]
    partial = partial[partial["arm"] != "GDA, oracle"]
    table = selection.choice_table(partial, 4, TWO, SETS)
    assert table.loc["Tip-Adapter", "fixed"].endswith(", 1 of 2 sets")
    assert table.loc["GDA", "oracle"] == table.loc["GDA", more] == "not run"
    assert set(selection.choice_table(FRAME[:0], 4, TWO, SETS).to_numpy().ravel()) == {"not run"}


def others(**accuracies) -> pd.DataFrame:
    return pd.DataFrame([row(m, "", a, d, s) for m, a in accuracies.items() for d in SETS for s in (1, 2)])


def test_a_place_is_counted_among_the_others_of_the_method_table():
    frame = others(gda=80.0, tip_adapter=74.0, coop=75.5, clip_lora=90.0)
    table = selection.places(FRAME, frame, 4, TWO, SETS)
    assert table.loc["Tip-Adapter", ["fewval", "place by fewval"]].tolist() == ["74.0", "4"]
    assert table.loc["Tip-Adapter", ["oracle", "place by oracle"]].tolist() == ["77.1", "3"]  # past CoOp, not past GDA
    assert table.loc["Tip-Adapter", "margin to the next better"] == "1.5 (CoOp)"
    assert table.loc["GDA", "place by fewval"] == table.loc["GDA", "place by oracle"] == "2"
    assert "4 methods" in table.caption
    best = selection.places(FRAME, others(coop=10.0), 4, ["gda"], SETS)
    assert best.loc["GDA", "margin to the next better"] == "–" and best.loc["GDA", "place by fewval"] == "1"


def test_a_method_that_lacks_a_data_set_has_no_place():
    frame = others(coop=75.5, clip_lora=90.0)
    frame = frame[~((frame["method"] == "clip_lora") & (frame["dataset"] == "toy/dtd"))]
    assert "1 method" in selection.places(FRAME, frame, 4, TWO, SETS).caption
    none = selection.places(FRAME, frame[:0], 4, TWO, SETS)
    assert none.loc["GDA", "place by fewval"] == "not run" and none.loc["GDA", "fewval"] == "80.0"


def test_margins_stand_beside_the_optimism_and_the_published_ones():
    paper = pd.DataFrame(
        [("a", 4, "average", 70.0), ("b", 4, "average", 70.4), ("c", 4, "average", 72.0), ("z", 0, "average", 60.0),
         ("a", 4, "dtd", 1.0)], columns=["variant", "shots", "dataset", "top1"],
    )  # fmt: skip
    frame = others(gda=80.0, coop=79.0, clip_lora=70.0)
    table = selection.margin_table(FRAME, frame, paper, [4, 8], TWO, SETS)
    line = table.loc["4 shots"]
    assert line["optimism, mean of the methods"] == "+2.1"
    assert line["the largest"].endswith("(Tip-Adapter)")
    assert line["median margin between neighbours"] == "5.0"  # of 1 and 9
    assert line["neighbours closer than the mean optimism"] == "1 of 2"
    assert line["median margin, published"] == "1.6 (4 methods)"
    assert table.loc["8 shots", "median margin, published"] == "–"
    assert table.loc["8 shots", "optimism, mean of the methods"] == "not run"


def test_statement_follows_the_rows():
    said = selection.statement(FRAME, TWO, [4])
    assert said.splitlines()[0].startswith("4 shots: choosing on the test set adds +2.1 [")
    assert "over 2 methods, most to Tip-Adapter (+3.1 [" in said
    assert "surely more than nothing for 1 of 2 methods, surely less for 1." in said
    assert "below fewval" not in said
    worse = FRAME.assign(accuracy=FRAME["accuracy"] - 5 * (FRAME["arm"] == "GDA, oracle"))
    said = selection.statement(worse, TWO, [4])
    assert "GDA in 6 of 6" in said and "for 1 of 2" in said.splitlines()[0]
    assert selection.statement(FRAME[:0], TWO, [4]) == "4 shots: not run."


def test_the_noise_of_a_test_is_that_of_its_size():
    assert "300 to 300 pictures" in selection.noise(FRAME) and "2.9 to 2.9 points" in selection.noise(FRAME)
    assert "1.6" in selection.noise(FRAME.assign(n_test=1000)) and "nothing can be said" in selection.noise(FRAME[:0])


def test_figures_are_drawn_of_whole_partial_and_no_rows():
    for frame in (FRAME, FRAME[FRAME["method"] == "gda"], FRAME[FRAME["seed"] == 1], FRAME[:0]):
        selection.difference_curves(frame, TWO, [4, 16]).canvas.draw()
        selection.dataset_dots(frame, TWO, [4, 16], SETS).canvas.draw()
    figure = selection.dataset_dots(FRAME, TWO, [4], SETS)
    left = figure.axes[0].get_lines()[0].get_xdata()
    assert list(left) == pytest.approx([1, 1.2])
    assert "not run" in [t.get_text() for t in selection.dataset_dots(FRAME, ["lpplusplus"], [4], SETS).axes[0].texts]


# -- one model, more ways ----------------------------------------------------------------------------------------------


def test_ways_begin_with_the_fixed_settings_and_end_on_the_test_itself():
    clip = tiny.clip()
    dataset = tiny.dataset(clip.image_size)
    task = dataset.task(4, 1)
    model = fit("tip_adapter", clip, task, selection="fixed", progress=False, augment_epoch=1, search_step=(5, 5))
    from fewshot import evaluate, select

    fixed = evaluate(model, task.test).accuracy
    found = optimism.ways(model, task, dataset)
    assert found["accuracy"].iloc[0] == pytest.approx(fixed)
    assert found["pictures"].tolist() == [0, len(task.val), len(dataset.val), len(task.test) // 2, len(task.test)]
    assert found["accuracy"].iloc[-1] >= found["accuracy"].iloc[1]  # the same grid, seen whole
    select.oracle(model, task.test)
    assert found["accuracy"].iloc[-1] == pytest.approx(evaluate(model, task.test).accuracy)


def test_way_table_pairs_seeds_with_fewval():
    ways = ["nothing: fixed", "few validation pictures: fewval", "the test itself: oracle"]
    lines = [(w, 9, a + 5 * s, s) for w, a in zip(ways, (40, 50, 52), strict=True) for s in (1, 2, 3)]
    table = selection.way_table(pd.DataFrame(lines, columns=["way", "pictures", "accuracy", "seed"]), "toy/dtd")
    assert table["over fewval"].tolist() == ["−10.0 [−10.0, −10.0]", "–", "+2.0 [+2.0, +2.0]"]
    assert table["accuracy"].iloc[1] == "60.0 ± 4.1 (3)" and "toy/dtd" in table.caption
