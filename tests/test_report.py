"""Tables and figures say what the rows say, and no more."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from fewshot.errors import FewshotError
from fewshot.published import COLUMNS, published, training_times
from fewshot.report import TITLES, computing_seconds, method_table, paper_here, status_table, summary

NAMES = ("method", "dataset", "shots", "seed", "accuracy")


def frame(*lines, backbone="toy", pretrained=None, profile="toy", config=None) -> pd.DataFrame:
    rows = [
        dict(zip(NAMES, line, strict=True))
        | {"backbone": backbone, "pretrained": pretrained, "profile": profile, "selection": "fixed", "clip": "w"}
        | {
            "config": config or {},
            "seconds_fit": 1.0,
            "seconds_evaluate": 0.5,
            "parameters": 10,
            "peak_memory_mb": 100.0,
        }
        | {"hardware": "cpu", "versions": {"torch": "2"}, "finished": "2026-01-01T10:00:00+00:00"}
        for line in lines
    ]
    return pd.DataFrame(rows)


PETS, FOOD = "toy/oxford_pets", "toy/food101"
ROWS = frame(
    ("zero_shot", PETS, 0, 1, 50.0),
    ("zero_shot", FOOD, 0, 1, 60.0),
    *(("coop", PETS, 4, seed, 70.0 + seed) for seed in (1, 2, 3)),
    *(("coop", FOOD, 4, seed, 55.0 + seed) for seed in (1, 2, 3)),
    *(("clip_lora", PETS, 4, seed, 80.0) for seed in (1, 2)),
    *(("coop", PETS, 1, seed, 60.0 + seed) for seed in (1, 2, 3)),
)


def test_summary_is_mean_population_deviation_and_number_of_seeds():
    line = summary(ROWS).set_index(["method", "dataset", "shots"]).loc[("coop", PETS, 4)]
    assert (line["mean"], line["n"]) == (72.0, 3) and line["std"] == pytest.approx(np.std([71, 72, 73]))


def test_the_table_shows_mean_deviation_and_n_and_what_is_not_run():
    table = method_table(ROWS, 4, methods=["zero_shot", "coop", "clip_lora", "tip_adapter"])
    assert list(table.columns) == ["average", FOOD, PETS]
    assert table.loc["CoOp", PETS] == "72.0 ± 0.8 (3)" and table.loc["Zero-shot CLIP", PETS] == "50.0 (1)"
    assert table.loc["CLIP-LoRA", FOOD] == "not run" and list(table.loc["Tip-Adapter"]) == ["not run"] * 3


def test_an_average_covers_exactly_what_is_there_and_says_so():
    table = method_table(ROWS, 4)
    assert table.loc["CoOp", "average"] == "64.5 ± 0.8 (3)"
    assert table.loc["CLIP-LoRA", "average"] == "80.0 ± 0.0 (2), 1 of 2 sets"
    assert f"The average of CLIP-LoRA covers only {PETS}." in table.caption
    assert ("CLIP-LoRA", "average") not in table.marks and table.marks["CoOp", "average"] == "strong"


def test_an_average_deviates_over_seeds_not_over_data_sets():
    rows = frame(
        *(("coop", d, 1, s, a) for d, s, a in [("a", 1, 10.0), ("a", 2, 20.0), ("b", 1, 40.0), ("b", 2, 30.0)])
    )
    assert method_table(rows, 1).loc["CoOp", "average"] == "25.0 ± 0.0 (2)"


def test_the_best_is_bold_the_second_underlined_and_equal_numbers_are_equal():
    rows = frame(
        ("coop", "a", 1, 1, 70.04),
        ("clip_lora", "a", 1, 1, 70.01),
        ("linear_probe", "a", 1, 1, 60.0),
        ("tip_adapter", "a", 1, 1, 5.0),
    )
    soup = BeautifulSoup(method_table(rows, 1).html(), "html.parser")
    marks = {tr.th.text: tr.td.find(["strong", "u"]) for tr in soup.tbody.find_all("tr")}
    assert marks["CoOp"].name == marks["CLIP-LoRA"].name == "strong" and marks["Linear-probe CLIP"].name == "u"
    assert marks["Tip-Adapter"] is None
    assert soup.table["class"][0] == "sortable" and "toy world" in soup.caption.text


def test_html_escapes_names():
    table = method_table(frame(("coop", "<script>", 1, 1, 70.0)), 1)
    assert "<script>" not in table.html() and "&lt;script&gt;" in table._repr_html_()


def test_mixed_settings_are_never_averaged():
    mixed = pd.concat(
        [frame(("coop", PETS, 4, 1, 50.0)), frame(("coop", PETS, 4, 1, 60.0), profile="smoke", config={"epochs": 1})]
    )
    with pytest.raises(
        FewshotError, match="2 rows for coop on toy/oxford_pets with one seed differ in profile, config"
    ):
        method_table(mixed, 4)


def test_a_table_without_rows_says_so():
    with pytest.raises(FewshotError, match="no row with 2 shots"):
        method_table(frame(("coop", PETS, 4, 1, 50.0)), 2)


# Verdicts


def verdicts(rows, source="clip_lora") -> list[str]:
    return list(paper_here(rows, published(source))["verdict"])


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((60.0, 61.0), "same sign (toy)"),
        ((40.0, 41.0), "opposite sign (toy)"),
        ((45.0, 56.0), "undecided (toy gain within its noise)"),
        ((50.5,), "undecided (toy gain within its noise)"),
        ((52.0,), "same sign (toy)"),
    ],
)
def test_a_toy_verdict_compares_signs_only(accuracies, verdict):
    rows = frame(("zero_shot", PETS, 0, 1, 50.0), *(("clip_lora", PETS, 16, i, a) for i, a in enumerate(accuracies)))
    assert verdicts(rows) == ["not comparable: toy", verdict]


def test_a_published_loss_counts_as_negative():
    rows = frame(("zero_shot", FOOD, 0, 1, 50.0), ("clip_lora", FOOD, 1, 1, 40.0))  # 84.3 against 85.9 in the paper
    assert verdicts(rows) == ["not comparable: toy", "same sign (toy)"]


def test_without_zero_shot_there_is_no_sign():
    assert verdicts(frame(("clip_lora", PETS, 16, 1, 90.0))) == ["not comparable: zero_shot not run"]


@pytest.mark.parametrize(
    ("accuracy", "more", "verdict"),
    [
        (92.0, {}, "reproduced"),
        (80.0, {}, "off by −12.4"),
        (92.0, {"profile": "toy"}, "not comparable: profile toy"),
        (92.0, {"backbone": "RN50"}, "not comparable: backbone RN50"),
    ],
)
def test_on_the_papers_backbone_and_data_points_are_compared(accuracy, more, verdict):
    origin = {"backbone": "ViT-B-16-quickgelu", "pretrained": "openai", "profile": "paper"}
    assert verdicts(frame(("clip_lora", "oxford_pets", 16, 1, accuracy), **origin | more)) == [verdict]


def test_a_toy_data_set_on_a_real_backbone_is_still_toy():
    rows = frame(("clip_lora", PETS, 16, 1, 92.0), backbone="ViT-B-16-quickgelu", pretrained="openai", profile="paper")
    assert verdicts(rows) == ["not comparable: zero_shot not run"]


def test_coop_is_compared_with_the_variant_of_its_context_length():
    for n_ctx, paper in ((16, "92.0"), (4, "92.4")):
        rows = frame(("coop", PETS, 16, 1, 80.0), config={"n_ctx": n_ctx})
        assert list(paper_here(rows, published("clip_lora"))["paper (published)"]) == [paper]


def test_nothing_in_common_gives_an_empty_table_with_its_columns():
    table = paper_here(frame(("linear_probe", "mine", 4, 1, 80.0)), published())
    assert len(table) == 0 and "verdict" in table.columns and "<tbody>" in table.html()


# Published numbers


def test_published_numbers_have_one_shape_and_lie_between_0_and_100():
    table = published()
    assert (
        list(table.columns) == COLUMNS
        and not table[["source", "method", "dataset", "shots", "top1"]].isna().any().any()
    )
    plain = table[~table["variant"].str.contains("minus")]
    assert plain["top1"].between(0, 100).all() and set(table["classes"]) == {"all", "base", "new", "average"}
    assert not table.duplicated(["source", "variant", "dataset", "classes", "shots"]).any()
    assert (table["shots"] == 0).equals(table["method"] == "zero_shot")


def test_published_averages_are_those_of_their_eleven_data_sets():
    table = published("clip_lora")
    for _, group in table.groupby(["variant", "shots"]):
        top1 = group.set_index("dataset")["top1"]
        assert len(top1) == 12 and top1.drop("average").mean() == pytest.approx(top1["average"], abs=0.1)


def test_published_files_are_described_and_sources_named():
    from fewshot.runs import ROOT

    text = (ROOT / "published" / "README.md").read_text()
    assert all(f"`{path.name}`" in text for path in (ROOT / "published").glob("*.csv"))
    with pytest.raises(FewshotError, match="unknown source 'clip-lora'; did you mean 'clip_lora'"):
        published("clip-lora")
    assert training_times().set_index("method").loc["clip_lora", "minutes"] == 50


# Status


def test_status_counts_rows_and_seconds_per_method():
    table = status_table(ROWS)
    assert list(table.index) == ["Zero-shot CLIP", "CoOp", "CLIP-LoRA"]
    assert (
        list(table["rows"]) == [2, 9, 2]
        and set(table["seconds to fit"]) == {"1.0"}
        and set(table["versions"]) == {"torch 2"}
    )
    with pytest.raises(FewshotError, match="no row yet"):
        status_table(ROWS[:0])


def test_status_adds_up_the_minutes_and_counts_a_shared_training_once():
    rows = ROWS.assign(seconds_fit=[60.0 * i for i in range(len(ROWS))], seconds_evaluate=30.0)
    of = {title: computing_seconds(rows[rows["method"] == name]) for name, title in TITLES.items()}
    table = status_table(rows)
    assert list(table["minutes in all"]) == [f"{of[title] / 60:.1f}" for title in table.index]
    assert of["CoOp"] == rows.loc[rows["method"] == "coop", ["seconds_fit", "seconds_evaluate"]].to_numpy().sum()
    assert f"{computing_seconds(rows) / 60:.0f} minutes of computing in all" in table.caption
    one = rows[rows["method"] == "coop"].iloc[[0]].assign(seconds_fit=100.0)
    shared = pd.concat([one.assign(target=target) for target in ("base", "new", None)])
    assert computing_seconds(shared) == 100 + 100 + 3 * 30  # base and new share one training, the third is its own


def test_the_titles_are_those_of_the_methods():
    from fewshot.methods import METHODS, get_method

    assert {name: get_method(name).title for name in METHODS} == TITLES


def test_the_caption_says_whose_hyper_parameters_were_chosen_and_on_what():
    rows = frame(("tip_adapter", PETS, 4, 1, 70.0), ("coop", PETS, 4, 1, 60.0)).assign(selection=["fewval", "fixed"])
    assert "Hyper-parameters by fewval: Tip-Adapter; the others fixed." in method_table(rows, 4).caption
    assert "Hyper-parameters" not in method_table(ROWS, 4).caption
