"""Tip-Adapter's study: its runs, what its tables and sentences say of invented rows, and one fitted model looked at closely."""

from __future__ import annotations

import pandas as pd
import pytest
import tiny
import torch

from fewshot import evaluate, fit, studies
from fewshot.errors import FewshotError
from fewshot.published import tip_adapter_rn50
from fewshot.studies import method_table, surface, tip_curves
from fewshot.studies import tip_adapter_study as study

TOY = studies.profile_of("toy")
SETS = ("toy/dtd", "toy/eurosat")
ZERO, COOP, FREE, TUNED = study.MAIN


def row(arm: str, accuracy: float, dataset: str = "toy/dtd", seed: int = 1, shots: int = 16, **more) -> dict:
    method = study.MAIN.get(arm) or (
        "tip_adapter_f" if arm.startswith(TUNED) else "coop" if "CoOp" in arm else "tip_adapter"
    )
    return {
        "arm": arm, "method": method, "dataset": dataset, "shots": shots, "seed": seed, "accuracy": accuracy,
        "profile": "toy", "backbone": "toy", "pretrained": None, "selection": "fixed", "parameters": 100,
        "seconds_fit": 2.0, "config": {"epochs": None}, **more,
    }  # fmt: skip


def frame(**levels: float) -> pd.DataFrame:
    """Four arms on two data sets, three seeds, 1 and 16 shots; the second data set ten points higher, 16 shots twenty."""
    names = dict(zip(("zero", "coop", "free", "tuned"), study.MAIN, strict=True))
    found = [row(ZERO, levels["zero"] + 10 * i, d, 1, 0) for i, d in enumerate(SETS)]
    for name in ("coop", "free", "tuned"):
        found += [
            row(names[name], levels[name] + 10 * i + 5 * seed + (20 if k == 16 else 0), d, seed, k)
            for i, d in enumerate(SETS)
            for seed in (1, 2, 3)
            for k in (1, 16)
        ]
    return pd.DataFrame(found)


FRAME = frame(zero=40, coop=45, free=50, tuned=49)


# -- the runs ----------------------------------------------------------------------------------------------------------


def test_the_four_methods_are_the_method_tables_runs():
    arms = study.arms(TOY, ["toy/dtd"], [1, 16], [1, 2])
    keys = {one.key for label in study.MAIN for one in arms[label]}
    table = method_table.arms(TOY, ["zero_shot", "coop", "tip_adapter", "tip_adapter_f"], ["toy/dtd"], [1, 16], [1, 2])
    assert keys == {one.key for one in studies.runs_of(table)}
    assert len(arms[ZERO]) == 1 and len(arms[FREE]) == 4


def test_epochs_and_views_differ_in_nothing_else():
    arms = study.arms(TOY)
    assert [label for label in arms if label.startswith("Tip-Adapter-F, ")] == [
        study.epochs_label("tip_adapter_f", n) for n in study.EPOCHS
    ]
    for n in study.EPOCHS:
        runs = arms[study.epochs_label("tip_adapter_f", n)]
        assert {one.config["epochs"] for one in runs} == {n} and {one.shots for one in runs} == {16}
        assert {k: v for k, v in runs[0].config.items() if k != "epochs"} == TOY.methods["tip_adapter_f"]
        assert len(runs) == len(study.SOME) * 3
    assert {one.config["augment_epoch"] for one in arms["Tip-Adapter, 1 view"]} == {1}
    assert {one.config["epochs"] for one in arms["CoOp, 20 epochs"]} == {20}


def test_data_sets_that_are_left_out_are_left_out_of_the_variations():
    assert not any("epoch" in label for label in study.arms(TOY, ["toy/food101"], [1]))
    arms = study.arms(TOY, ["toy/food101"], [1, 2], [1], ["toy/food101"], [3], [])
    assert [one.shots for one in arms["Tip-Adapter-F, 3 epochs"]] == [2] and not any("view" in label for label in arms)


# -- differences, tables, sentences ------------------------------------------------------------------------------------


def test_differences_are_paired_and_zero_shot_stands_beside_all_shots():
    table = study.difference(FRAME, FREE, COOP, 16)
    assert table.shape == (2, 3) and set(table.to_numpy().ravel()) == {5.0}
    assert study.difference(FRAME, FREE, ZERO, 1).mean(axis=1).tolist() == pytest.approx([20, 20])  # 50 + 10 - 40
    found = study.differences(FRAME).set_index(["pair", "shots"])
    assert found.loc[("Tip-Adapter-F − Tip-Adapter", 16), "mean"] == pytest.approx(-1)
    assert study.difference(FRAME[FRAME["arm"] != COOP], FREE, COOP, 16).empty


def test_the_published_numbers_are_the_logs():
    paper = tip_adapter_rn50()
    assert len(paper) == 11 * (1 + 5 + 5)
    found = paper.set_index(["method", "shots", "dataset"])["top1"]
    assert found["tip_adapter", 16, "imagenet"] == 62.01 and found["tip_adapter_f", 16, "eurosat"] == 84.54
    means = paper.groupby(["method", "shots"])["top1"].mean().round(2)
    assert means["zero_shot", 0] == 58.89 and means["tip_adapter", 1] == 62.33 and means["tip_adapter_f", 16] == 75.83
    assert all(paper.loc[paper["shots"] > 0, "protocol"].str.contains("test set"))


def test_accuracies_stand_above_the_published_ones_and_say_what_is_missing():
    table = study.accuracy_table(FRAME, [1, 8, 16], SETS)
    assert table.loc[FREE, "16 shots"] == "85.0 ± 4.1 (3)" and table.loc[ZERO, "8 shots"] == "45.0 (1)"
    assert table.loc[FREE, "8 shots"] == "not run"
    assert table.loc["Tip-Adapter, RN50 (published)", "1 shot"] == "62.3"
    assert "RN50, one seed" in table.caption and "test sets" in table.caption
    part = FRAME[FRAME["dataset"] == "toy/dtd"]
    assert study.accuracy_table(part, [16], SETS).loc[FREE, "16 shots"] == "80.0 ± 4.1 (3), 1 of 2 sets"


def test_difference_table_compares_published_with_published():
    table = study.difference_table(FRAME, [1, 16])
    assert table.loc["Tip-Adapter − CoOp", "16 shots"] == "+5.0 [+5.0, +5.0]"
    line = "Tip-Adapter-F − Tip-Adapter, RN50 (published)"
    assert table.loc[line, "16 shots"].startswith("+5.5 [") and table.loc[line, "1 shot"].startswith("+2.3 [")
    assert not any("CoOp" in name and "published" in name for name in table.index)  # no CoOp in that log


def test_statement_follows_the_rows():
    said = study.statement(FRAME, [1, 16]).splitlines()
    assert said[0] == "1 shot: Tip-Adapter − CoOp +5.0 [+5.0, +5.0] points over 2 data sets: better than trained CoOp."
    assert said[3].endswith("worse than no training.")
    other = study.statement(frame(zero=40, coop=60, free=50, tuned=55), [16])
    assert "−10.0" in other and "worse than trained CoOp" in other and "worth its training" in other
    mixed = FRAME.assign(accuracy=FRAME["accuracy"] + 20 * ((FRAME["arm"] == COOP) & (FRAME["dataset"] == SETS[0])))
    assert "undecided" in study.statement(mixed, [16])
    one = FRAME[(FRAME["dataset"] == "toy/dtd") & (FRAME["seed"] == 1)]
    assert "+5.0 (1 seed, no interval): undecided." in study.statement(one, [16])
    assert study.statement(FRAME[:0], [16]).splitlines()[0] == "16 shots: Tip-Adapter − CoOp not run."


def epochs_frame() -> pd.DataFrame:
    short, brief = (study.epochs_label(m, 20) for m in ("tip_adapter_f", "coop"))
    more = [row(short, 80 + s, d, s, config={"epochs": 20}) for d in SETS for s in (1, 2, 3)]
    more += [row(brief, 60 + s, d, s, config={"epochs": 20}) for d in SETS for s in (1, 2, 3)]
    return pd.concat([FRAME, pd.DataFrame(more)], ignore_index=True)


def test_epochs_are_those_of_the_config_or_of_the_methods_rule():
    assert study.epochs_of(row(COOP, 1.0)) == 200 and study.epochs_of(row(COOP, 1.0, shots=1)) == 50
    assert study.epochs_of(row(COOP, 1.0, "toy/imagenet")) == 50
    assert study.epochs_of(row(TUNED, 1.0)) == 20 and study.epochs_of(row(TUNED, 1.0, "toy/eurosat")) == 100
    assert study.epochs_of(row(TUNED, 1.0, config={"epochs": 7})) == 7
    assert study.epochs_of(row(FREE, 1.0)) == study.epochs_of(row(ZERO, 1.0, shots=0)) == 0


def test_epoch_table_pairs_seeds_and_counts_coops_epochs():
    table = study.epoch_table(epochs_frame(), SETS, 16)
    line = table.loc["toy/dtd"]
    assert line["difference, equal epochs"] == "+20.0 [+20.0, +20.0]" and line["its own epochs are"] == "200"
    assert line["Tip-Adapter-F, 20 epochs"] == "82.0 ± 0.8 (3)" and line["CoOp, its own epochs"] == "75.0 ± 4.1 (3)"
    assert study.epoch_table(FRAME, SETS, 16).loc["toy/dtd", "difference, equal epochs"] == "not run"
    said = study.epoch_statement(epochs_frame(), SETS, 16)
    assert "toy/dtd: 20 epochs of Tip-Adapter-F, 200 of CoOp: 10 times fewer." in said
    assert "toy/eurosat: 100 epochs of Tip-Adapter-F, 200 of CoOp: 2 times fewer." in said
    assert "CoOp with 20 epochs: +20.0 [+20.0, +20.0] points over 2 data sets." in said
    assert "Each with its own number of epochs: +4.0 [+4.0, +4.0] points over 2 data sets." in said


def test_view_table_says_what_the_most_views_add():
    lines = [row(study.views_label(n), 50 + n + s, d, s) for n in (1, 10) for d in SETS for s in (1, 2)]
    table = study.view_table(pd.DataFrame(lines), SETS, [1, 2, 10])
    assert table.loc["1", "10 views add"] == "+9.0 [+9.0, +9.0]" and table.loc["10", "10 views add"] == "–"
    assert table.loc["2", "toy/dtd"] == "not run" and table.loc["10", "toy/dtd"] == "61.5 ± 0.5 (2)"


def test_budget_table_keeps_timed_seconds_apart_from_the_grids():
    timed = pd.DataFrame([row(FREE, 70.0, "toy/imagenet", s, seconds_fit=5.0 + s) for s in (1, 2)])
    table = study.budget_table(FRAME, timed, 16)
    assert table.loc[FREE].tolist() == ["0", "100", "6.5 ± 0.5 (2)", "2.0 ± 0.0 (3)"]
    assert table.loc[TUNED, "epochs"] == "20 – 100" and table.loc[TUNED, "seconds, timed alone"] == "not run"
    assert set(study.budget_table(FRAME[:0], FRAME[:0], 16).to_numpy().ravel()) == {"not run"}


def test_the_points_of_the_averages_are_numbers_of_three_sources():
    timed = pd.DataFrame([row(FREE, 70.0 + s, "toy/imagenet", s, seconds_fit=5.0 + s) for s in (1, 3)])
    points = tip_curves.average_points(FRAME, timed, [1, 16], SETS).set_index(["numbers", "arm", "shots"])
    assert points.loc[("here", FREE, 16), ["accuracy", "seconds", "n"]].tolist() == pytest.approx([85, 2, 3])
    assert points.loc[("here", FREE, 1), "accuracy_std"] == pytest.approx(5 * (2 / 3) ** 0.5)
    assert points.loc[("timed alone", FREE, 16)].tolist() == pytest.approx([72, 1, 7, 1, 2])
    assert {arm for numbers, arm, _ in points.index if numbers == "published"} == {ZERO, FREE, TUNED}
    lacking = FRAME[(FRAME["dataset"] != "toy/dtd") | (FRAME["arm"] != FREE)]
    points = tip_curves.average_points(lacking, timed[:0], [1, 16], SETS)
    assert FREE not in set(points.loc[points["numbers"] == "here", "arm"])  # an average has all the data sets


def test_figures_are_drawn_of_whole_partial_and_no_rows():
    for some in (epochs_frame(), FRAME[FRAME["seed"] == 1], FRAME[FRAME["dataset"] == "toy/dtd"], FRAME[:0]):
        tip_curves.average_curves(some, [1, 16], SETS).canvas.draw()
        tip_curves.difference_curves(some, [1, 16]).canvas.draw()
        tip_curves.epoch_curves(some, SETS, study.EPOCHS, 16).canvas.draw()
        tip_curves.seconds_curves(some, FRAME[:0], [1, 16], SETS).canvas.draw()
    timed = pd.DataFrame([row(FREE, 70.0, "toy/imagenet", s, seconds_fit=5.0 + s) for s in (1, 2)])
    figure = tip_curves.seconds_curves(FRAME, timed, [1, 16], SETS)
    assert figure.axes[1].get_lines()[0].get_xdata()[0] == pytest.approx(6.5)
    here = tip_curves.average_curves(FRAME, [1, 16], SETS).axes[0]
    assert any(
        list(line.get_ydata()) == pytest.approx([65, 85]) for line in here.get_lines() if len(line.get_ydata()) == 2
    )


# -- one fitted model --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    clip = tiny.clip()
    task = tiny.dataset(clip.image_size).task(4, 1)
    options = {"augment_epoch": 2, "search_step": (6, 5)}
    return fit("tip_adapter", clip, task, selection="fixed", progress=False, **options), task


def test_surface_is_the_search(fitted):
    model, task = fitted
    before = (model.beta, model.alpha)
    table = surface.surface(model, task.val)
    assert table.shape == (6, 5) and (table.index.name, table.columns.name) == ("beta", "alpha")
    assert (model.beta, model.alpha) == before
    pair = surface.best_pair(table)
    chosen = fit(
        "tip_adapter", model.clip, task, selection="fewval", progress=False, augment_epoch=2, search_step=(6, 5)
    )
    assert pair == pytest.approx((chosen.beta, chosen.alpha))
    assert surface.pair_accuracy(model, task.test, *pair) == pytest.approx(evaluate(chosen, task.test).accuracy)


def test_of_equal_pairs_the_first_is_the_best():
    table = pd.DataFrame(
        [[1.0, 3.0], [3.0, 3.0]], pd.Index([0.1, 0.2], name="beta"), pd.Index([0.5, 0.9], name="alpha")
    )
    assert surface.best_pair(table) == (0.1, 0.9)


def test_pairs_are_compared_on_both_sets(fitted):
    model, task = fitted
    found = surface.pairs(model, task.val, task.test)
    on_val, on_test = (surface.surface(model, images) for images in (task.val, task.test))
    assert found.loc["best on validation", "validation"] == pytest.approx(on_val.to_numpy().max())
    assert found.loc["best on the test", "test"] == pytest.approx(on_test.to_numpy().max())
    initial = found.loc["initial (the authors')"]
    assert (initial["beta"], initial["alpha"]) == (model.beta, model.alpha)
    assert initial["test"] == pytest.approx(evaluate(model, task.test).accuracy)
    table = surface.pair_table(found, "tiny")
    assert table["below the best on test"].iloc[-1] == "+0.0"
    surface.heat_maps(on_val, on_test, found, "tiny").canvas.draw()


def test_distance_is_in_steps_points_and_ties():
    index, columns = pd.Index([0.1, 0.2, 0.3], name="beta"), pd.Index([0.5, 0.9], name="alpha")
    on_val = pd.DataFrame([[50.0, 50.0], [50.0, 50.0], [50.0, 60.0]], index, columns)
    on_test = pd.DataFrame([[70.0, 50.0], [70.0, 50.0], [50.0, 64.0]], index, columns)
    lines = {
        "initial (the authors')": (1.0, 1.0, 0.0, 0.0, 0.0), "best on validation": (0.3, 0.9, 60.0, 64.0, 100 / 6),
        "best on the test": (0.1, 0.5, 50.0, 70.0, 100.0),
    }  # fmt: skip
    found = pd.DataFrame.from_dict(lines, orient="index", columns=["beta", "alpha", "validation", "test", "top"])
    said = surface.distance(found, on_val, on_test)
    assert "2 of 2 (beta) and 1 of 1 (alpha) apart" in said and "6.0 points below the best" in said
    assert "Of 6 pairs 1 are as good" in said and "on the test 2 as good" in said
    assert "beta and alpha is the last that is tried" in said


def test_smaller_caches_drop_or_merge_pictures(fitted):
    model, task = fitted
    for how in (surface.DROPPED, surface.MERGED):
        keys, labels = surface.smaller(model, 2, how)
        assert keys.shape == (8, model.keys.shape[1]) and torch.bincount(labels).tolist() == [2] * 4
        assert keys.norm(dim=1).tolist() == pytest.approx([1] * 8, abs=1e-5)
    own = model.keys[model.labels == 0]
    merged = surface.smaller(model, 1, surface.MERGED)[0][0]
    assert torch.allclose(merged, torch.nn.functional.normalize(own.mean(dim=0), dim=0), atol=1e-6)
    dropped = surface.smaller(model, 1, surface.DROPPED)[0][0]
    assert (own - dropped).norm(dim=1).min() < 1e-5
    with pytest.raises(FewshotError, match="4 keys in the cache"):
        surface.smaller(model, 5, surface.DROPPED)


def test_smaller_caches_leave_the_model_as_it_was(fitted):
    model, task = fitted
    before = model.keys.clone(), model.beta, model.alpha, dict(model.chosen)
    found = surface.smaller_caches(model, task.val, task.test, (1, 4), draws=2)
    assert found.groupby(["how", "size"]).size().tolist() == [1 if size == 4 else 2 for _ in "12" for size in (1, 4)]
    whole = found[found["size"] == 4].set_index("how")["accuracy"]
    assert whole[surface.DROPPED] == pytest.approx(whole[surface.MERGED])  # all keys either way
    assert torch.equal(model.keys, before[0]) and (model.beta, model.alpha, model.chosen) == before[1:]
    table = surface.cache_table(found, {4: 61.25}, "tiny")
    assert list(table.index) == ["1", "4"] and table.iloc[1, -1] == "61.2" and table.iloc[0, -1] == "not run"


def test_rows_of_another_experiment_are_read_and_never_made(tmp_path, monkeypatch, capsys):
    import json

    from fewshot.runs import stamp
    from fewshot.studies.borrowed import borrowed

    monkeypatch.setenv("FEWSHOT_RESULTS", str(tmp_path))
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    arms = method_table.arms(TOY, ["zero_shot", "coop"], ["toy/dtd"], [1], [1])
    one = arms[ZERO][0]
    assert borrowed("method_table", arms, TOY).empty
    line = {"key": one.key, "stamp": stamp(one), "accuracy": 50.0, "method": "zero_shot", "dataset": "toy/dtd"}
    (tmp_path / "method_table-toy.jsonl").write_text(json.dumps(line) + "\n")
    assert borrowed("method_table", arms, TOY)["arm"].tolist() == [ZERO]
    assert "1 of 2 rows of method_table are there; nothing is run" in capsys.readouterr().out
    (tmp_path / "method_table-toy.jsonl").write_text(json.dumps(line | {"stamp": "other"}) + "\n")
    assert borrowed("method_table", arms, TOY).empty  # other weights or settings
    (tmp_path / "training_time-toy.jsonl").write_text(json.dumps(line) + "\n")
    assert borrowed("method_table", arms, TOY).empty and len(borrowed("training_time", arms, TOY)) == 1
