"""What is learned on one set of classes and tested on another: halves, other data sets, shifts."""

import pytest
import tiny
import torch

import fewshot.runs as module
import fewshot.training
from fewshot.errors import FewshotError
from fewshot.evaluation import evaluate
from fewshot.grids import grid
from fewshot.runs import Run, run
from fewshot.training import fit

COOP = dict(epochs=2, views=1, n_ctx=4)


@pytest.fixture
def fits(tmp_path, monkeypatch):
    """An empty cache, and the tasks that were fitted."""
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))
    seen, original = [], fewshot.training.fit

    def spy(method, clip, task, **settings):
        seen.append(task)
        return original(method, clip, task, **settings)

    monkeypatch.setattr(fewshot.training, "fit", spy)
    return seen


def test_base_and_new_share_one_training_on_the_base_half(fits):
    base, new = (run(Run("x", "coop", "toy/oxford_pets", 1, config=COOP, target=t)) for t in ("base", "new"))
    assert len(fits) == 1 and len(fits[0].classnames) == 8
    assert base["n_test"] == new["n_test"] == 240
    assert base["split_hash"] == new["split_hash"] and base["seconds_fit"] == new["seconds_fit"]
    assert base["key"] != new["key"]
    again = run(Run("x", "coop", "toy/oxford_pets", 1, config=COOP, target="base"))
    assert again["accuracy"] == base["accuracy"] and len(fits) == 1


def test_the_new_half_is_judged_by_its_own_names_alone(fits):
    new = run(Run("x", "zero_shot", "toy/oxford_pets", 0, target="new"))
    task = module._dataset("toy/oxford_pets").without_support().half("new")
    here = fit("zero_shot", module._clip("toy", None), task)
    assert evaluate(here, task.test).accuracy == new["accuracy"]


def test_another_seed_or_setting_is_trained_again(fits):
    for seed, config in ((1, COOP), (2, COOP), (1, COOP | {"epochs": 3})):
        run(Run("x", "coop", "toy/oxford_pets", 1, seed, config=config, target="base"))
    assert len(fits) == 3


def test_a_shift_scores_only_the_classes_of_the_target_even_for_a_classifier_bound_to_its_classes(fits):
    rows = [run(Run("x", m, "toy/imagenet", 1, target="toy/imagenet_a")) for m in ("tip_adapter", "linear_probe")]
    assert [row["n_test"] for row in rows] == [540, 540]
    source, target = (module._dataset(f"toy/{name}") for name in ("imagenet", "imagenet_a"))
    assert set(target.classnames) < set(source.classnames)
    assert all(row["accuracy"] > 100 / 18 for row in rows)


def test_a_classifier_bound_to_its_classes_does_not_transfer(fits):
    with pytest.raises(FewshotError, match="Tip-Adapter cannot change its classes"):
        run(Run("x", "tip_adapter", "toy/imagenet", 1, target="toy/eurosat"))


def test_some_classes_alone_are_scored_as_a_problem_of_their_own():
    clip, task = tiny.clip(), tiny.task()
    model = fit("zero_shot", clip, task)
    kept = (tiny.NAMES[2], tiny.NAMES[0])
    rows = [i for i, label in enumerate(task.test.labels) if tiny.NAMES[label] in kept]
    images = task.test.subset(rows)
    images = images.relabel([kept.index(tiny.NAMES[label]) for label in images.labels])
    got = evaluate(model, images, kept)
    with torch.no_grad():
        alone = evaluate(model.retarget(kept), images)
    assert (got.predictions == alone.predictions).all()
    with pytest.raises(FewshotError, match="'lake' is no class of this Zero-shot CLIP"):
        evaluate(model, images, ("lake",))


def test_runs_that_share_a_training_follow_each_other_and_have_keys_of_their_own():
    runs = grid("x", ["zero_shot", "coop"], ["toy/dtd"], [1, 2], [1, 2], targets=("base", "new"))
    assert [r.target for r in runs] == ["base", "new"] * 5
    assert len({r.key for r in runs}) == 10
    assert all(a.method == b.method and a.seed == b.seed for a, b in zip(runs[::2], runs[1::2], strict=True))
    for one in runs:
        assert Run.from_row({**vars(one), "overrides": one.config, "selection_asked": None}) == one


def test_a_run_without_a_target_keeps_the_key_it_had_before_targets_existed():
    assert Run("x", "coop", "toy/pets", 1).key == Run("y", "coop", "toy/pets", 1, target=None).key
    assert Run("x", "coop", "toy/pets", 1).key == "6f0f6864b286bcae"


@pytest.mark.parametrize("target", ["toy/petz", "bases"])
def test_an_unknown_target_is_named(target):
    with pytest.raises(FewshotError, match=f"unknown target '{target}'"):
        grid("x", ["coop"], ["toy/dtd"], [1], targets=(target,))


def test_oracle_has_no_meaning_with_a_target():
    with pytest.raises(FewshotError, match="oracle chooses on the test"):
        Run("x", "tip_adapter", "toy/dtd", 1, selection="oracle", target="base")


def test_processes_start_with_different_trainings():
    from fewshot.grids import _spread, grid

    runs = grid("x", ["coop", "kgcoop"], ["toy/dtd"], [1], [1, 2], targets=("base", "new", None, "toy/eurosat"))
    first = [(one.method, one.seed, one.target) for one in _spread(runs)]
    trainings = {(m, s, t) for m in ("coop", "kgcoop") for s in (1, 2) for t in ("base", None)}
    assert set(first[:8]) == trainings and sorted(one.key for one in _spread(runs)) == sorted(one.key for one in runs)
