"""The tables, intervals and statements of the LLM-text experiment say what its rows say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tiny

from fewshot import fit, runs, text_report
from fewshot.errors import FewshotError
from fewshot.published import published
from fewshot.runs import Profile, Run, load_profile

BASE = {"converter": "qformer", "loss": "swapped", "pairs": "fewshot_class"}


def row(accuracy: float, texts, seed: int = 1, shots: int = 1, dataset: str = "toy/cub", m: int = 5, **config) -> dict:
    return {
        "method": "text_adapter", "dataset": dataset, "shots": shots, "seed": seed, "accuracy": accuracy,
        "config": {**BASE, "texts": texts, **config}, "chosen": {"texts": m, "converter_saw": 20}, "parameters": 1000,
        "profile": "toy", "backbone": "toy", "pretrained": None,
    }  # fmt: skip


def pairs_of(gains, shots: int = 1, dataset: str = "toy/cub") -> list[dict]:
    """Image rows that climb with the seed, and the same plus a gain, in the other order."""
    image = [row(50 + 5 * s, 0, s, shots, dataset) for s in range(len(gains))]
    text = [row(50 + 5 * s + gain, None, s, shots, dataset) for s, gain in enumerate(gains)]
    return [*image, *reversed(text)]


# -- intervals ---------------------------------------------------------------------------------------------------------------


def test_interval_is_students():
    mean, low, high = text_report.t_interval([1, 2, 3, 4, 5])
    half = 2.7764451 * (2.5 / 5) ** 0.5
    assert (mean, low, high) == pytest.approx((3, 3 - half, 3 + half))
    assert text_report.t_interval([2.0])[1:] == (float("-inf"), float("inf"))


def test_gains_are_taken_seed_by_seed():
    found = text_report.effects(pd.DataFrame(pairs_of([1, 1, 1, 1, 1.5])))
    assert found.loc[0, "mean"] == pytest.approx(1.1) and found.loc[0, "n"] == 5
    assert found.loc[0, "high"] - found.loc[0, "low"] < 1  # the seeds differ by 20 points, the gains by half a one


def test_statement_follows_the_rows():
    gains = {1: [2, 2.1, 2.2, 1.9, 2], 3: [1, -1, 0.5, -0.4, 0], 5: [-2, -2.1, -2.2, -1.9, -2]}
    said = text_report.statement(pd.DataFrame([one for k, g in gains.items() for one in pairs_of(g, k)]))
    assert said.startswith("toy/cub (toy), shots: sentences help at 1 (+2.0 [")
    assert "undecided at 3 (" in said and "hurt at 5 (−2.0 [" in said and "(5)" in said
    other = text_report.statement(pd.DataFrame([one for k, g in gains.items() for one in pairs_of([-x for x in g], k)]))
    assert "hurt at 1" in other and "help at 5" in other


def test_few_seeds_make_no_statement():
    assert "no statement: 4 of 5 seeds" in text_report.statement(pd.DataFrame(pairs_of([2, 2.1, 2.2, 1.9])))
    assert "nothing can be said" in text_report.statement(pd.DataFrame(pairs_of([1])[:0], columns=row(1, 0).keys()))


def test_statement_is_about_one_converter():
    rows = pd.DataFrame([*pairs_of([-1] * 5), *(row(60 + 5 * s, None, s, converter="mean_shift") for s in range(5))])
    assert "hurt at 1 (−1.0" in text_report.statement(rows)
    assert "help at 1 (+10.0" in text_report.statement(rows, "mean_shift")


def test_rows_of_other_settings_do_not_enter():
    rows = [*pairs_of([1, 1, 1, 1, 1]), row(0, None, 0, converter="mlp"), row(0, None, 0, loss="printed")]
    assert text_report.effects(pd.DataFrame(rows)).loc[0, "mean"] == pytest.approx(1)
    with pytest.raises(FewshotError, match="mix settings"):
        text_report.effects(pd.DataFrame([*rows, row(9, 0, 0, steps=7)]))


# -- tables ------------------------------------------------------------------------------------------------------------------


def test_table_1_shows_seeds_choice_and_the_papers_numbers():
    fixed = [row(60 + m, m, s) for m in (1, 5, 30) for s in range(5)]
    table = text_report.table1(pd.DataFrame([*pairs_of([1] * 5), *fixed]), "toy/cub", published("text_adapter"))
    column = table["1 shot"]
    assert column["image"] == "60.0 ± 7.1 (5)" and column["image + text, m by validation"] == "61.0 ± 7.1 (5)"
    assert column["m chosen (a seed each)"] == "5, 5, 5, 5, 5" and column["difference [95 %]"].startswith("+1.0 [")
    assert column["image + text, the paper's m"] == "65.0 ± 0.0 (5), m = 5"
    assert column["image + text, best m on the test (optimistic)"].endswith("m = 30")
    assert column["paper, real pictures: image"] == "68.5" or column["paper, real pictures: image"] == "68.4"
    assert column["paper, real pictures: image + text"] == "73.4, m = 5" and column["paper: difference"] == "+5.0"
    assert "toy world" in table.caption
    assert [c for c in table["1 shot"] if c == "not run"] == []


def test_count_table_marks_the_best_of_a_column():
    rows = [row(value, m, s) for m, value in ((0, 50), (1, 70), (5, 60)) for s in range(2)]
    table = text_report.count_table(pd.DataFrame([*rows, row(99, None)]), "toy/cub")
    assert list(table.index) == [0, 1, 5] and table.marks == {(1, "1 shot"): "strong"}
    assert table.loc[5, "1 shot"] == "60.0 ± 0.0 (2)"


def test_option_table_compares_one_option():
    rows = [*pairs_of([1] * 5), *(row(55 + 5 * s, None, s, converter="mlp") for s in range(5)),
            row(1, None, 0, loss="printed")]  # fmt: skip
    table = text_report.option_table(pd.DataFrame(rows), "toy/cub", 1, "converter")
    assert list(table.index) == ["image", "qformer", "mlp"]
    assert table.loc["mlp", "gain [95 %]"] == "+5.0 [+5.0, +5.0] (5)" and table.loc["mlp", "pictures seen"] == "20"


def test_baselines_have_a_line_even_where_nothing_was_run():
    zero = {**row(70, None), "method": "zero_shot", "shots": 0, "config": {"templates": "sentences"}}
    table = text_report.baseline_table(pd.DataFrame([*pairs_of([1] * 5), zero]), "toy/cub")
    assert table.loc["zero-shot, the sentences", "1 shot"] == "70.0 (1)"
    assert table.loc["cross-modal probe", "1 shot"] == table.loc["zero-shot, template", "1 shot"] == "not run"


# -- runs --------------------------------------------------------------------------------------------------------------------


def test_a_shared_training_gives_the_rows_of_trainings_of_their_own(monkeypatch):
    monkeypatch.setattr(runs, "_clip", lambda *names: tiny.clip())
    monkeypatch.setattr(runs, "_dataset", lambda name: tiny.dataset(tiny.clip().image_size))
    text_report._stack.clear()
    trained, original = [], text_report._fit

    def counted(one, *rest):
        trained.append(one)
        return original(one, *rest)

    monkeypatch.setattr(text_report, "_fit", counted)
    for m in (None, 1, 3, 0):
        config = {**tiny.QUICK["text_adapter"]} | ({} if m is None else {"texts": m})
        one = Run("x", "text_adapter", "tiny", 4, 1, config)
        alone, shared = runs.run(one), text_report.run_one(one)
        same = ("key", "stamp", "chosen", "config", "parameters", "accuracy")
        assert {n: alone[n] for n in same} == {n: shared[n] for n in same}
    assert len(trained) == 2  # the stack, and the head without texts


def test_grid_asks_for_no_more_sentences_than_ship():
    assert text_report.counts("cub")[-1] == 10 and text_report.counts("toy/oxford_pets")[-1] == 30
    profile = load_profile("toy")
    some = text_report.table_runs(["toy/cub"], [1], [1, 2], profile)
    assert sum(one.method == "zero_shot" for one in some) == 2
    ours = [one.config.get("texts") for one in some if one.method == "text_adapter" and one.seed == 1]
    assert ours == [0, None, *text_report.counts("toy/cub"), None]
    varied = text_report.other_runs("toy/cub", 1, [1], profile, converter=("qformer", "mlp"))
    assert varied[0].key in {one.key for one in some} and varied[1].config["converter"] == "mlp"


def test_paper_profile_is_the_papers_grid_and_shortens_nothing():
    paper = Profile("paper", "ViT-B-16-quickgelu", "openai")
    assert text_report.defaults(paper) == (["cub", "oxford_pets"], [1, 2, 3, 4, 5, 10, 15])
    assert text_report.variant(paper).methods == {"text_adapter": {}}


# -- what the converter saw, and where its features lie ----------------------------------------------------------------------


def fitted(**config):
    return fit("text_adapter", tiny.clip(), tiny.task(), progress=False, **{**tiny.QUICK["text_adapter"], **config})


def test_seen_counts_planted_pictures():
    model, task, dataset = fitted(), tiny.task(), tiny.dataset(tiny.clip().image_size)
    found = text_report.seen(model, task, dataset)
    assert found["converter saw"] == found["of the support"] == 16
    assert found["test pictures"] == found["extra training pictures"] == found["validation pictures"] == 0
    extra = next(i for i in dataset.train.ids if i not in set(task.train.ids))
    model.saw = (*model.saw, dataset.test.ids[0], dataset.val.ids[0], extra)
    found = text_report.seen(model, task, dataset)
    assert [found[n] for n in ("test pictures", "validation pictures", "extra training pictures")] == [1, 1, 1]


def test_closeness_tells_own_class_from_others():
    model, images = fitted(converter="mean_shift"), tiny.task().val
    from fewshot.data.features import image_features

    x = image_features(model.clip, images, progress=False)
    x = x / x.norm(dim=1, keepdim=True)
    own = [
        float(made @ x[i]) for i, label in enumerate(images.labels) for made in model.converted(1)[0][label : label + 1]
    ]
    assert text_report.closeness(model, images)["own class"] == pytest.approx(np.mean(own), abs=1e-5)


def test_projection_is_that_of_the_principal_components():
    from sklearn.decomposition import PCA

    x = np.random.default_rng(0).normal(size=(40, 6)) * [5, 3, 1, 1, 1, 1]
    points, shares = text_report.project(x)
    theirs = PCA(2).fit(x)
    assert np.allclose(np.abs(points), np.abs(theirs.transform(x))) and np.allclose(
        shares, theirs.explained_variance_ratio_
    )


def test_figures_show_every_series():
    rows = pd.DataFrame([row(50 + m, m, s, k) for m in (0, 1, 5) for s in range(2) for k in (1, 3)])
    axis = text_report.count_curves(rows, ["toy/cub"]).axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["1 shot (2 seeds)", "3 shots (2 seeds)"]
    found = text_report.effects(pd.DataFrame([*pairs_of([1] * 5), *pairs_of([2] * 5, dataset="toy/oxford_pets")]))
    assert len(text_report.effect_curves(found).axes[0].containers) == 2
    legend = text_report.gap_figure(fitted(), tiny.task().val, 2).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["pictures", "sentences", "converted"]
