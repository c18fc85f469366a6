"""The tables, intervals and statements of the experiment with sentences say what its rows say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

from fewshot import fit, runs, studies
from fewshot.errors import FewshotError
from fewshot.published import published
from fewshot.rows import Rows
from fewshot.runs import Profile, Run
from fewshot.studies import converted
from fewshot.studies import llm_text_adapter as study
from fewshot.studies.llm_text_adapter import EVERY, IMAGE, IMAGE_FEW, TEXT

ROOT = Path(__file__).resolve().parent.parent


def row(
    arm: str, accuracy: float, seed: int = 1, shots: int = 1, dataset: str = "toy/cub", texts=None, m: int = 5
) -> dict:
    return {
        "arm": arm, "method": "text_adapter", "dataset": dataset, "shots": shots, "seed": seed, "accuracy": accuracy,
        "config": {"texts": 0 if arm in (IMAGE, IMAGE_FEW) else texts}, "chosen": {"texts": m, "converter_saw": 20},
        "parameters": 1000, "profile": "toy", "backbone": "toy", "pretrained": None,
    }  # fmt: skip


def pairs_of(gains, shots: int = 1, dataset: str = "toy/cub", arm: str = TEXT) -> list[dict]:
    """Image rows that climb with the seed, and the same plus a gain, in the other order."""
    image = [row(IMAGE, 50 + 5 * s, s, shots, dataset) for s in range(len(gains))]
    text = [row(arm, 50 + 5 * s + gain, s, shots, dataset) for s, gain in enumerate(gains)]
    return [*image, *reversed(text)]


# -- intervals ---------------------------------------------------------------------------------------------------------------


def test_gains_are_taken_seed_by_seed():
    found = study.effects(pd.DataFrame(pairs_of([1, 1, 1, 1, 1.5])))
    assert found.loc[0, "mean"] == pytest.approx(1.1) and found.loc[0, "n"] == 5
    assert found.loc[0, "high"] - found.loc[0, "low"] < 1  # the seeds differ by 20 points, the gains by half a one
    half = 2.7764451 * 0.05**0.5 / 5**0.5
    assert found.loc[0, "low"] == pytest.approx(1.1 - half)


def test_statement_follows_the_rows():
    gains = {1: [2, 2.1, 2.2, 1.9, 2], 3: [1, -1, 0.5, -0.4, 0], 5: [-2, -2.1, -2.2, -1.9, -2]}
    said = study.statement(pd.DataFrame([one for k, g in gains.items() for one in pairs_of(g, k)]))
    assert max(map(len, said.splitlines())) <= 90
    said = " ".join(said.split())
    assert said.startswith("toy/cub (toy), shots: sentences help at 1 (+2.0 [")
    assert "undecided at 3 (" in said and "hurt at 5 (−2.0 [" in said and "(5)" in said
    other = study.statement(pd.DataFrame([one for k, g in gains.items() for one in pairs_of([-x for x in g], k)]))
    assert "hurt at 1" in other and "help at 5" in other


def test_few_seeds_make_no_statement():
    said = study.statement(pd.DataFrame(pairs_of([2, 2.1, 2.2, 1.9])))
    assert "no statement: 4 of 5 seeds" in said
    assert "nothing can be said" in study.statement(pd.DataFrame(pairs_of([1])[:0], columns=row(TEXT, 0).keys()))


def test_statement_is_about_one_converter():
    simple = f"{TEXT}, {study.SIMPLE}"
    rows = pd.DataFrame([*pairs_of([-1] * 5), *(row(simple, 60 + 5 * s, s) for s in range(5))])
    assert "hurt at 1 (−1.0" in study.statement(rows)
    assert "help at 1 (+10.0" in study.statement(rows, simple)


def test_rows_of_other_settings_do_not_enter():
    rows = [*pairs_of([1] * 5), row("converter mlp", 0, 0), row("loss printed", 0, 0), row(EVERY, 0, 0, texts=3)]
    assert study.effects(pd.DataFrame(rows)).loc[0, "mean"] == pytest.approx(1)
    with pytest.raises(FewshotError, match="mix settings"):
        study.effects(pd.DataFrame([*rows, row(IMAGE, 9, 0)]))


# -- tables ------------------------------------------------------------------------------------------------------------------


def test_table_1_shows_seeds_choice_and_the_papers_numbers():
    fixed = [row(EVERY, 60 + m, s, texts=m) for m in (1, 5, 30) for s in range(5)]
    table = study.table1(pd.DataFrame([*pairs_of([1] * 5), *fixed]), "toy/cub", published("text_adapter"))
    column = table["1 shot"]
    assert column["image"] == "60.0 ± 7.1 (5)" and column["image + text, m by validation"] == "61.0 ± 7.1 (5)"
    assert column["m chosen (a seed each)"] == "5, 5, 5, 5, 5" and column["difference [95 %]"].startswith("+1.0 [")
    assert column["image + text, the paper's m"] == "65.0 ± 0.0 (5), m = 5"
    assert column["image + text, best m on the test (optimistic)"] == "90.0 ± 0.0 (5), m = 30"
    assert column["paper, real pictures: image"] in ("68.5", "68.4")
    assert column["paper, real pictures: image + text"] == "73.4, m = 5" and column["paper: difference"] == "+5.0"
    assert "toy world" in table.caption


def test_a_partial_table_1_says_what_was_not_run():
    table = study.table1(pd.DataFrame([row(IMAGE, 50), row(EVERY, 60, texts=1)]), "toy/cub", published("text_adapter"))
    column = table["1 shot"]
    assert column["image"] == "50.0 (1)" and column["image + text, m by validation"] == "not run"
    assert column["difference [95 %]"] == "–" and column["image + text, the paper's m"] == "–"


def test_count_table_marks_the_best_of_a_column():
    rows = [row(IMAGE, 50, s) for s in range(2)] + [
        row(EVERY, v, s, texts=m) for m, v in ((1, 70), (5, 60)) for s in range(2)
    ]
    table = study.count_table(pd.DataFrame([*rows, row(EVERY, 99), row(TEXT, 99)]), "toy/cub")
    assert list(table.index) == [0, 1, 5] and table.marks == {(1, "1 shot"): "strong"}
    assert table.loc[5, "1 shot"] == "60.0 ± 0.0 (2)"


def test_option_table_compares_one_option():
    few = [{**one, "arm": IMAGE_FEW} for one in pairs_of([1] * 5)[:5]]
    rows = [*few, *(row("converter qformer", 51 + 5 * s, s) for s in range(5)), row("loss printed", 1, 0)]
    rows += [row("converter mlp", 55 + 5 * s, s) for s in range(5)]
    table = study.option_table(pd.DataFrame(rows), "converter")
    assert list(table.index) == [IMAGE, *study.OPTIONS["converter"]]
    assert table.loc["mlp", "gain [95 %]"] == "+5.0 [+5.0, +5.0] (5)" and table.loc["mlp", "pictures seen"] == "20"
    assert table.loc["qformer", "gain [95 %]"].startswith("+1.0 [") and table.loc["linear", "accuracy"] == "not run"
    assert study.option_table(pd.DataFrame(rows), "loss", "mlp").loc["printed", "accuracy"] == "not run"


def test_baselines_have_a_line_even_where_nothing_was_run():
    zero = {**row("Zero-shot CLIP, sentences", 70), "method": "zero_shot", "shots": 0}
    table = study.baseline_table(pd.DataFrame([*pairs_of([1] * 5), zero]), "toy/cub")
    assert table.loc["zero-shot, the sentences", "1 shot"] == "70.0 (1)"
    assert table.loc["cross-modal probe", "1 shot"] == table.loc["zero-shot, template", "1 shot"] == "not run"


# -- runs --------------------------------------------------------------------------------------------------------------------


def test_a_shared_training_gives_the_rows_of_trainings_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))
    monkeypatch.setattr(runs, "_clip", lambda *names: tiny.clip())
    monkeypatch.setattr(runs, "_fingerprint", lambda *names: tiny.clip().fingerprint)  # a kept one would stay in use
    monkeypatch.setattr(runs, "_dataset", lambda name: tiny.dataset(tiny.clip().image_size))
    trained, original = [], study._fit

    def counted(one, *rest):
        trained.append(one)
        return original(one, *rest)

    monkeypatch.setattr(study, "_fit", counted)
    for m, bias in ((3, True), (None, True), (1, True), (0, True), (3, False)):
        config = {**tiny.QUICK["text_adapter"], "bias": bias} | ({} if m is None else {"texts": m})
        one = Run("x", "text_adapter", "tiny", 4, 1, config)
        alone, shared = runs.run(one), study.run_one(one)
        same = ("key", "stamp", "chosen", "config", "parameters", "accuracy")
        assert {n: alone[n] for n in same} == {n: shared[n] for n in same}
    assert len(trained) == 3  # a stack with biases, the head without texts, a stack without biases


def test_a_stack_that_is_damaged_is_trained_again(monkeypatch, tmp_path):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))
    monkeypatch.setattr(runs, "_clip", lambda *names: tiny.clip())
    monkeypatch.setattr(runs, "_fingerprint", lambda *names: tiny.clip().fingerprint)  # a kept one would stay in use
    monkeypatch.setattr(runs, "_dataset", lambda name: tiny.dataset(tiny.clip().image_size))
    one = Run("x", "text_adapter", "tiny", 4, 1, {**tiny.QUICK["text_adapter"]})
    first = study.run_one(one)
    (path,) = (tmp_path / "models").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    again = study.run_one(one)
    assert (first["accuracy"], first["chosen"]) == (again["accuracy"], again["chosen"]) and path.stat().st_size > 100


def test_every_stored_row_is_asked_for_and_the_first_of_a_training_comes_before_the_others():
    runs_asked = studies.runs_of(study.arms(studies.profile_of("toy")))
    asked = {one.key for one in runs_asked}
    stored = [
        json.loads(line)["key"] for line in (ROOT / "results/llm_text_adapter-toy.jsonl").read_text().splitlines()
    ]
    assert len(stored) >= 600 and not set(stored) - asked

    def training(one: Run):
        options = {name: v for name, v in one.config.items() if name != "texts"}
        return None if one.method != "text_adapter" or one.config.get("texts") == 0 else (
            one.dataset, one.shots, one.seed, repr(sorted(options.items()))
        )  # fmt: skip

    # processes take the runs in this order: none of the first so many waits for a training that another has begun
    trainings = [training(one) for one in runs_asked if training(one)]
    assert len(set(trainings[:30])) == 30 and set(trainings[30:60]) <= set(trainings[:30])


def test_the_toy_length_of_stage_1_is_what_the_rule_gives_for_the_stored_rows():
    frame = Rows(ROOT / "results/llm_text_adapter-toy.jsonl").frame()
    rows = studies.labelled(frame, study.arms(studies.profile_of("toy")))
    assert study.misprint.enough(rows, study.misprint.TOY_LENGTHS) == study.CHANGED["toy"]["converter_steps"]
    assert set(study.misprint.trained(rows[rows["arm"] == TEXT])) == {True}


def test_grid_asks_for_no_more_sentences_than_ship():
    assert study.counts("cub")[-1] == 10 and study.counts("toy/oxford_pets")[-1] == 30
    usual = study.CHANGED["toy"]["converter_steps"]
    arms = study.arms(studies.profile_of("toy"), ["toy/cub"], [1], [1, 2], elsewhere=[1], lengths=[usual, 7])
    assert [one.config.get("texts") for one in arms[EVERY] if one.seed == 1] == [None, *study.counts("toy/cub")]
    assert [one.config["texts"] for one in arms[IMAGE]] == [0, 0]
    chosen = {one.key for one in arms[TEXT]}
    assert chosen == {one.key for one in arms[EVERY] if "texts" not in one.config}
    # a default is left out, so that the run is table 1's
    for arm in ("converter qformer", "loss swapped", "pairs fewshot_class", f"corrected, {usual} steps"):
        assert {one.key for one in arms[arm]} == chosen
    assert arms["loss printed, mlp"][0].config.items() >= {"loss": "printed", "converter": "mlp"}.items()
    assert arms["as printed, 7 steps"][0].config.items() >= {"loss": "printed", "converter_steps": 7}.items()


def test_paper_profile_is_the_papers_grid_and_shortens_nothing():
    paper = Profile("paper", "ViT-B-16-quickgelu", "openai")
    assert study.table_sets(paper) == (["cub", "oxford_pets"], [1, 2, 3, 4, 5, 10, 15])
    assert study.variant(paper).methods == {"text_adapter": {}}
    assert study.arms(paper)[TEXT][0].config == {}


# -- what the converter saw, and where its features lie ----------------------------------------------------------------------


def fitted(**config):
    return fit("text_adapter", tiny.clip(), tiny.task(), progress=False, **{**tiny.QUICK["text_adapter"], **config})


def test_seen_counts_planted_pictures():
    model, task, dataset = fitted(), tiny.task(), tiny.dataset(tiny.clip().image_size)
    found = converted.seen(model, task, dataset)
    assert found["converter saw"] == found["of the support"] == 16
    assert found["test pictures"] == found["extra training pictures"] == found["validation pictures"] == 0
    extra = next(i for i in dataset.train.ids if i not in set(task.train.ids))
    model.saw = (*model.saw, dataset.test.ids[0], dataset.val.ids[0], extra)
    found = converted.seen(model, task, dataset)
    assert [found[n] for n in ("test pictures", "validation pictures", "extra training pictures")] == [1, 1, 1]


def test_closeness_tells_own_class_from_others():
    model, images = fitted(converter="mean_shift"), tiny.task().val
    from fewshot.data.features import image_features

    x = image_features(model.clip, images, progress=False)
    x = x / x.norm(dim=1, keepdim=True)
    own = [
        float(made @ x[i]) for i, label in enumerate(images.labels) for made in model.converted(1)[0][label : label + 1]
    ]
    assert converted.closeness(model, images)["own class"] == pytest.approx(np.mean(own), abs=1e-5)


def test_projection_is_that_of_the_principal_components():
    from sklearn.decomposition import PCA

    x = np.random.default_rng(0).normal(size=(40, 6)) * [5, 3, 1, 1, 1, 1]
    points, shares = converted.project(x)
    theirs = PCA(2).fit(x)
    assert np.allclose(np.abs(points), np.abs(theirs.transform(x))) and np.allclose(
        shares, theirs.explained_variance_ratio_
    )


def test_figures_show_every_series():
    rows = [row(EVERY if m else IMAGE, 50 + m, s, k, texts=m) for m in (0, 1, 5) for s in range(2) for k in (1, 3)]
    axis = study.count_curves(pd.DataFrame(rows), ["toy/cub"]).axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["1 shot (2 seeds)", "3 shots (2 seeds)"]
    found = study.effects(pd.DataFrame([*pairs_of([1] * 5), *pairs_of([2] * 5, dataset="toy/oxford_pets")]))
    assert len(study.effect_curves(found).axes[0].containers) == 2
    legend = converted.gap_figure(fitted(), tiny.task().val, 2).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["pictures", "sentences", "converted"]
