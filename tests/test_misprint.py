"""Equation (4) corrected and as printed, by length: what its rows say."""

import pandas as pd
import pytest
import torch

from fewshot.pair_losses import pair_loss
from fewshot.runs import Profile
from fewshot.studies import misprint

BOTH = ["toy/cub", "toy/oxford_pets"]


def row(arm, accuracy, seed, dataset="toy/cub", shots=1, ended=None, pictures=20):
    loss = "printed" if arm.startswith("as printed") else "swapped"
    return {
        "config": {"loss": loss, "converter_batch": 128},
        "chosen": {"converter_saw": pictures} | ({} if ended is None else {"converter_loss": ended}),
        "arm": arm, "method": "text_adapter", "dataset": dataset, "shots": shots, "seed": seed, "accuracy": accuracy,
        "profile": "toy", "backbone": "toy", "pretrained": None,
    }  # fmt: skip


def rows_of(leads, steps, dataset="toy/cub"):
    """Printed rows that climb with the seed, corrected ones ahead of them by `leads`; the latter in the other order."""
    printed = [row(misprint.label("printed", steps), 40 + 5 * s, s, dataset) for s in range(len(leads))]
    right = [row(misprint.label("swapped", steps), 40 + 5 * s + x, s, dataset) for s, x in enumerate(leads)]
    return [*printed, *reversed(right)]


def test_arms_differ_in_loss_and_length_alone():
    profile = Profile("toy", methods={"text_adapter": {"converter_steps": 300, "hidden": 64}})
    arms = misprint.arms(profile, BOTH, 1, [1, 2], [300, 9])
    assert list(arms) == ["corrected, 300 steps", "corrected, 9 steps", "as printed, 300 steps", "as printed, 9 steps"]
    assert all(len(runs) == 4 for runs in arms.values())
    assert arms["corrected, 300 steps"][0].config == {"converter_steps": 300, "hidden": 64}
    assert arms["as printed, 9 steps"][0].config == {"converter_steps": 9, "hidden": 64, "loss": "printed"}


def test_lead_is_taken_seed_by_seed():
    frame = pd.DataFrame(rows_of([2, 2, 2, 2, 2.5], 300))
    one = misprint.lead(frame, "toy/cub", 300)
    assert one.mean == pytest.approx(2.1) and one.n == 5 and one.high - one.low < 1  # the seeds differ by 20 points
    assert misprint.lead(frame, "toy/cub", 1000).n == misprint.lead(frame, "toy/oxford_pets", 300).n == 0


def test_statement_says_where_the_corrected_loss_is_ahead():
    frame = pd.DataFrame([*rows_of([-2, -2.1, -1.9], 300), *rows_of([1, -1, 0.2], 1000), *rows_of([5, 5.1, 4.9], 2000)])
    said = misprint.statement(frame, BOTH, (300, 1000, 2000, 5000))
    assert max(map(len, said.splitlines())) <= 90
    said = " ".join(said.split())
    assert "behind after 300 steps (−2.0 [" in said and "neither ahead nor behind for certain after 1000 steps" in said
    assert "; ahead after 2000 steps (+5.0 [" in said and "not run after 5000 steps." in said
    assert said.count("3 seeds") == 3
    assert "toy/oxford_pets (toy), the corrected loss against the printed one: not run after 300 steps" in said


def test_table_has_every_length_and_pictures_alone():
    frame = pd.DataFrame([*rows_of([3, 3, 3], 300), row("image", 70, 0), row("image", 99, 0, shots=5)])
    table = misprint.table(frame, BOTH, "image", [300, 1000])
    line = table.loc["toy/cub, 300 steps"]
    assert line["corrected"] == "48.0 ± 4.1 (3)" and line["as printed"] == "45.0 ± 4.1 (3)"
    assert line["corrected − as printed [95 %]"] == "+3.0 [+3.0, +3.0]" and line["pictures alone"] == "70.0 (1)"
    assert line["trained"] == "not run"  # rows without a training loss say nothing about it
    assert set(table.loc["toy/oxford_pets, 1000 steps"]) == {"not run"}
    assert "1 shot" in table.caption and "5 shots" not in table.caption and "toy world" in table.caption


def test_figure_has_a_line_per_loss_with_bars():
    frame = pd.DataFrame([*rows_of([3, 3, 3], 300), *rows_of([4, 5, 6], 1000), row("image", 70, 0)])
    figure = misprint.figure(frame, BOTH, "image", [300, 1000])
    axis, empty = figure.axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["pictures alone", "corrected", "as printed"]
    assert len(axis.containers) == 2 and not empty.containers
    assert "standard deviation over 3 seeds" in figure._suptitle.get_text()


@pytest.mark.parametrize("shots", [1, 2])
def test_a_converter_that_is_near_no_picture_pays_what_is_said(shots):
    classes = 3
    images = torch.eye(8)[: classes * shots]
    labels = torch.arange(classes).repeat(shots)
    apart = torch.eye(8)[7].expand(len(images), -1)  # at a right angle to all pictures
    loss = pair_loss(images, apart, labels, same_class="ignore")
    assert float(loss) == pytest.approx(misprint.nothing(len(images), shots))


def test_in_a_batch_of_some_of_the_pictures_the_level_is_that_of_the_mean_batch():
    images, labels = torch.eye(31)[:30], torch.arange(30) // 3
    apart, rng = torch.eye(31)[30].expand(12, -1), torch.Generator().manual_seed(0)
    rows = [torch.randperm(30, generator=rng)[:12] for _ in range(400)]
    losses = [float(pair_loss(images[some], apart, labels[some], same_class="ignore")) for some in rows]
    assert sum(losses) / 400 == pytest.approx(misprint.nothing(30, 3, batch=12), rel=0.01)
    assert misprint.nothing(30, 3, batch=99) == misprint.nothing(30, 3) == pytest.approx(1 / 28)


def test_the_rule_is_the_shortest_length_after_which_every_training_is_below_the_level():
    right = [row(misprint.label("swapped", n), 50, s, ended=loss) for n, losses in
             {300: (0.0499, 0.03), 1000: (0.04, 0.049), 2000: (0.01, 0.01)}.items() for s, loss in enumerate(losses)]  # fmt: skip
    printed = [row(misprint.label("printed", n), 50, 1, ended=0.0001) for n in (300, 1000)]
    frame = pd.DataFrame([*right, *printed])
    assert misprint.enough(frame) == 1000 and misprint.enough(frame, [300]) is None
    assert list(misprint.trained(frame)) == [False, True, True, True, True, True, None, None]
    said = " ".join(misprint.rule(frame).split())
    assert "1 of 2 after 300 steps, 2 of 2 after 1000 steps, 2 of 2 after 2000 steps" in said and "are: 1000 steps" in said
    assert "No length tried is enough" in " ".join(misprint.rule(frame, [300]).split())
    assert misprint.table(frame, BOTH, "image").loc["toy/cub, 300 steps", "trained"] == "1 of 2"


def test_course_shows_the_loss_and_the_level():
    axis = misprint.course([0.2, 0.1, 0.05], 0.1).axes[0]
    assert list(axis.lines[0].get_xdata()) == [50, 100, 150] and set(axis.lines[1].get_ydata()) == {0.1}


def test_a_loss_at_the_level_is_said_to_be_there():
    said = misprint.reached({300: 0.0504, 900: 0.0499, 2000: 0.045}, 0.05).splitlines()
    assert said[0] == "Near no picture: 0.0500" and said[3] == "after 2000 steps: 0.0450, 10 % below it"
    assert "still there" in said[1] and "still there" in said[2] and "still there" not in said[3]
