"""The zero-shot gate: agrees, off, not comparable and why, not run; and one line that says it."""

from __future__ import annotations

import pandas as pd
import pytest

from fewshot.published import zero_shot_values
from fewshot.report import gate, gate_verdict

VALUES = zero_shot_values()
PAPER = {
    "backbone": "ViT-B-16-quickgelu",
    "pretrained": "openai",
    "weights": "openai",
    "profile": "paper",
    "limit": None,
}


def rows(*accuracies: tuple[str, str, float], **more) -> pd.DataFrame:
    """zero-shot rows of (data set, template set, accuracy)."""
    return pd.DataFrame(
        [
            {"method": "zero_shot", "dataset": name, "accuracy": accuracy, "config": {"templates": templates}}
            | PAPER
            | more
            for name, templates, accuracy in accuracies
        ]
    )


def verdict(name: str, templates: str, accuracy: float, **more) -> str:
    return gate(rows((name, templates, accuracy), **more), VALUES).loc[name, "verdict"]


@pytest.mark.parametrize(("accuracy", "said"), [(89.9, "agrees"), (88.2, "agrees"), (60.0, "off by −29.1")])
def test_on_the_papers_model_points_decide(accuracy, said):
    assert verdict("oxford_pets", "task", accuracy) == said  # 89.1 in the CLIP-LoRA paper


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"weights": "random weights"}, "random weights"),
        ({"weights": "weights w.pt"}, "weights w.pt"),
        ({"pretrained": "laion2b", "weights": "laion2b"}, "weights laion2b"),
        ({"backbone": "ViT-L-14-quickgelu"}, "backbone ViT-L-14-quickgelu"),
        ({"backbone": "toy", "pretrained": None, "weights": None}, "toy"),
        ({"limit": 37}, "37 test pictures"),
    ],
)
def test_another_model_or_fewer_pictures_are_not_compared(more, why):
    assert verdict("oxford_pets", "task", 89.1, **more) == f"not comparable: {why}"


def test_a_published_value_counts_for_its_templates_and_its_backbone():
    assert verdict("oxford_flowers", "photo", 67.5) == "agrees"  # 71.4 with the flower template, 67.4 with this one
    assert verdict("oxford_flowers", "task", 67.5) == "off by −3.9"
    assert verdict("oxford_pets", "photo", 85.0) == "not run"  # the one with a published value was not
    assert verdict("imagenet", "ensemble", 60.3, backbone="RN50-quickgelu") == "agrees"
    assert verdict("cub", "task", 50.0) == "not comparable: nothing published"


def test_the_one_line_names_what_is_off_and_what_is_missing():
    found = rows(("oxford_pets", "task", 89.0), ("eurosat", "task", 37.5))
    said = gate_verdict(found, VALUES, ["oxford_pets", "eurosat", "dtd"])
    assert said.startswith(
        "Zero-shot gate: 1 of 3 data sets agrees (oxford_pets); 1 of 3 data sets off: eurosat (off by −10.0)"
    )
    assert "1 of 3 data sets not run (dtd)" in said and said.endswith("Find out why before trusting the numbers below.")
    assert gate_verdict(rows(("oxford_pets", "task", 89.0)), VALUES) == "Zero-shot gate: 1 of 1 data sets agrees."
    assert gate_verdict(found[:0], VALUES, ["dtd"]) == "Zero-shot gate: 1 of 1 data sets not run."


def test_every_eleven_data_sets_have_a_value_for_both_backbones():
    assert VALUES.groupby("backbone")["dataset"].nunique().to_dict() == {"RN50-quickgelu": 11, "ViT-B-16-quickgelu": 11}
