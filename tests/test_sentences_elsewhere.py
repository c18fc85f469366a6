"""Sentences in other methods: what is compared, and what the rows say."""

import pandas as pd
import pytest

from fewshot.runs import load_profile
from fewshot.studies import sentences_elsewhere as elsewhere
from fewshot.studies.sentences_elsewhere import label

CUB = "toy/cub"


def row(method, words, accuracy, seed=1, shots=1, dataset=CUB):
    return {
        "arm": label(method, words), "method": method, "dataset": dataset, "shots": 0 if method == "zero_shot" else shots,
        "seed": seed, "accuracy": accuracy, "profile": "toy", "backbone": "toy", "pretrained": None,
    }  # fmt: skip


def pairs_of(method, gains, shots=1, words="sentences"):
    plain = [row(method, "task", 50 + 5 * s, s, shots) for s in range(len(gains))]
    return [*plain, *reversed([row(method, words, 50 + 5 * s + gain, s, shots) for s, gain in enumerate(gains)])]


ZERO = [row("zero_shot", "task", 40), row("zero_shot", "sentences", 47)]


def test_every_arm_differs_from_its_control_in_the_sentences_alone():
    arms = elsewhere.arms(load_profile("toy"), [CUB])
    for method, option in elsewhere.OPTION.items():
        plain = arms[label(method, "task")]
        assert option not in plain[0].config
        for words in elsewhere.KINDS:
            for one in arms[label(method, words)]:
                assert one.config[option] == words
                rest = {name: value for name, value in one.config.items() if name != option}
                assert any(rest == two.config and (one.shots, one.seed) == (two.shots, two.seed) for two in plain)
    assert arms[label("clip_lora", "task")][0].config["encoder"] == "vision"
    assert "encoder" not in arms[elsewhere.BOTH][0].config


def test_the_slow_method_has_three_seeds_and_in_the_toy_world_few_shots():
    arms = elsewhere.arms(load_profile("toy"), [CUB])
    assert {one.seed for one in arms[label("tip_adapter", "sentences")]} == {1, 2, 3, 4, 5}
    assert {one.seed for one in arms[label("clip_lora", "sentences")]} == {1, 2, 3}
    assert {one.shots for one in arms[label("tip_adapter", "sentences")]} == {1, 4, 16}
    assert {one.shots for one in [*arms[label("clip_lora", "sentences")], *arms[elsewhere.BOTH]]} == {1, 4}
    paper = elsewhere.arms(load_profile("paper"), ["cub"])
    assert {one.shots for one in paper[label("clip_lora", "sentences")]} == {1, 4, 16}
    assert elsewhere.BOTH not in elsewhere.arms(load_profile("toy"), [CUB], [16])  # an arm has runs


def test_gains_are_taken_seed_by_seed_and_zero_shot_has_one_value():
    frame = pd.DataFrame([*pairs_of("tip_adapter", [1, 1, 1, 1, 1.5]), *ZERO])
    found = elsewhere.gains(frame, [CUB]).set_index("method")
    assert found.loc["Tip-Adapter", "mean"] == pytest.approx(1.1) and found.loc["Tip-Adapter", "n"] == 5
    assert found.loc["Tip-Adapter", "high"] - found.loc["Tip-Adapter", "low"] < 1
    assert found.loc["Zero-shot CLIP", "mean"] == 7 and found.loc["Zero-shot CLIP", "shots"] == 0
    assert len(found) == 2


def test_table_sets_gains_beside_and_says_what_was_not_run():
    frame = pd.DataFrame([*pairs_of("tip_adapter", [2, 2, 2]), *ZERO])
    table = elsewhere.table(frame, CUB, [1, 4])
    line = table.loc["Tip-Adapter, sentences"]
    assert line["1 shot"] == "57.0 ± 4.1 (3)" and line["over the template, 1 shot"] == "+2.0 [+2.0, +2.0]"
    assert line["4 shots"] == line["over the template, 4 shots"] == "not run"
    assert table.loc["Zero-shot CLIP, sentences", "over the template, 4 shots"] == "+7.0"  # whatever the shots
    assert table.loc["Tip-Adapter, template", "over the template, 1 shot"] == "–"
    assert table.loc[elsewhere.BOTH, "1 shot"] == "not run" and "toy world" in table.caption


def test_statement_follows_the_rows():
    better, worse, both = [3, 3.1, 2.9], [-3, -3.1, -2.9], [1, -1, 0.1]
    rows = [*pairs_of("tip_adapter", better, 1), *pairs_of("tip_adapter", worse, 4), *pairs_of("tip_adapter", both, 16)]
    rows += [row("zero_shot", "task", 40), row("zero_shot", "sentences", 37)]
    said = elsewhere.statement(pd.DataFrame(rows), [CUB])
    assert max(map(len, said.splitlines())) <= 90
    said = " ".join(said.split())
    assert "Tip-Adapter, sentences against the template: better (1 shot: +3.0 [" in said
    assert "worse (4 shots: −3.0 [" in said and "neither for certain (16 shots: +0.0 [" in said
    assert "Zero-shot CLIP, sentences against the template: worse (−3.0)." in said
    assert "CLIP-LoRA, sentences against the template: not run." in said


def test_figure_has_a_panel_per_data_set_and_kind_and_an_entry_per_method():
    rows = [
        *pairs_of("tip_adapter", [1, 2, 3]),
        *pairs_of("clip_lora", [1, 2, 3]),
        *pairs_of("tip_adapter", [4, 5, 6], 4),
    ]
    rows += [*ZERO]
    figure = elsewhere.figure(pd.DataFrame(rows), [CUB, "toy/oxford_pets"], [1, 4])
    assert [axis.get_title() for axis in figure.axes] == [
        f"{name}, {words}" for words in ("sentences", "named sentences") for name in (CUB, "toy/oxford_pets")
    ]
    assert len(figure.axes[0].containers) == 2 and not figure.axes[1].containers
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["Zero-shot CLIP (no interval)", "Tip-Adapter", "CLIP-LoRA (image encoder)"]
