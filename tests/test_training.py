"""The training loop: batches, learning rates, selection, and the user's mistakes."""

import numpy as np
import pytest
import tiny
import torch

from fewshot import select
from fewshot.errors import FewshotError
from fewshot.evaluation import evaluate
from fewshot.methods import get_method
from fewshot.methods.coop import CoOp
from fewshot.methods.method import coop_lr, cosine_lr, make_config
from fewshot.training import fit


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (dict(method="copo"), "did you mean 'coop'"),
        (dict(n_cxt=4), "did you mean 'n_ctx'"),
        (dict(epochs=0), "epochs of coop must be a whole number from 1 on"),
        (dict(lr=-1.0), "lr of coop"),
        (dict(n_ctx=0), "n_ctx of coop must be 1 or more"),
        (dict(class_token_position="ends"), "did you mean 'end'"),
        (dict(selection="fewvall"), "did you mean 'fewval'"),
        (dict(selection="oracle"), "fit never sees the test pictures"),
        (dict(ctx_init="a photo of a hippopotamusphone"), "must be a single token"),
        (dict(n_ctx=74), "has 7[0-9] tokens and the text encoder reads 77|tokens and the text encoder reads 77"),
    ],
)
def test_a_mistake_in_the_call_is_one_sentence(given, says):
    given = {"method": "coop", **given}
    with pytest.raises(FewshotError, match=says) as caught:
        fit(given.pop("method"), tiny.clip(), tiny.task(), progress=False, **given)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_finite_stops_with_the_remedy():
    with pytest.raises(FewshotError, match="loss of CoOp is not finite .* lower lr"):
        fit("coop", tiny.clip(), tiny.task(), progress=False, epochs=4, lr=1e30)


def record(monkeypatch, cls, **config):
    """The (features, labels, lr) of every step of a fit."""
    steps = []
    original = cls.backward

    def spy(self, x, labels):
        steps.append((x.clone(), labels.clone()))
        return original(self, x, labels)

    rates = []
    lr = cls.lr
    monkeypatch.setattr(cls, "backward", spy)
    monkeypatch.setattr(cls, "lr", lambda self, *a: rates.append(lr(self, *a)) or rates[-1])
    fit(cls.name, tiny.clip(), tiny.task(), progress=False, **config)
    return steps, rates


def test_coop_drops_the_last_batch_and_changes_its_rate_per_epoch(monkeypatch):
    steps, rates = record(monkeypatch, CoOp, epochs=3, batch_size=6)  # 16 pictures: two batches of 6 per epoch
    assert [len(y) for _, y in steps] == [6] * 6
    assert rates == [coop_lr(0.002, e, 3) for e in (0, 0, 1, 1, 2, 2)]
    assert rates[0] == 1e-5 and rates[2] == 0.002


def test_coop_keeps_the_only_batch_when_the_set_is_smaller(monkeypatch):
    steps, _ = record(monkeypatch, CoOp, epochs=2, batch_size=100)
    assert [len(y) for _, y in steps] == [16, 16]


def test_clip_lora_counts_steps_and_keeps_the_last_batch(monkeypatch):
    cls = get_method("clip_lora")
    steps, rates = record(monkeypatch, cls, iterations=5, batch_size=6)
    assert [len(y) for _, y in steps] == [6, 6, 4, 6, 6]
    assert rates == [cosine_lr(2e-4, s, 5, 1e-6) for s in range(5)]
    assert sorted(torch.cat([y for _, y in steps[:3]]).tolist()) == sorted(tiny.task().train.labels.tolist())


def test_each_epoch_sees_a_new_view_unless_their_number_is_given(monkeypatch):
    def epochs(**given):
        with monkeypatch.context() as patch:
            steps, _ = record(patch, CoOp, epochs=3, batch_size=100, **given)
        return [x[y.argsort(stable=True)].sum(1).sort().values for x, y in steps]

    fresh, two = epochs(), epochs(views=2)
    assert not torch.allclose(fresh[0], fresh[1]) and not torch.allclose(fresh[0], fresh[2])
    assert torch.allclose(two[0], two[2]) and not torch.allclose(two[0], two[1])
    assert torch.allclose(two[0], fresh[0])


def test_views_are_kept_for_methods_that_take_pictures_too(monkeypatch):
    cls = get_method("clip_lora")
    steps, _ = record(monkeypatch, cls, iterations=2, batch_size=100, views=1)
    assert torch.equal(*(x.flatten(1).sum(1).sort().values for x, _ in steps))


def test_the_papers_number_of_steps():
    def steps(method, shots, dataset="x", per_epoch=3, **config):
        cls = get_method(method)
        names = tiny.task(shots=shots, name=dataset)
        return cls(tiny.clip(), names, make_config(cls, config)).iterations(per_epoch)

    assert [steps("coop", k) for k in (1, 2, 4, 8)] == [150, 300, 300, 600]
    assert steps("coop", 4, "toy/imagenet") == 150
    assert [steps("clip_lora", k) for k in (1, 2, 4)] == [500, 1000, 2000]
    assert steps("clip_lora", 4, epochs=2) == 6 and steps("clip_lora", 4, iterations=7) == 7
    assert steps("tip_adapter_f", 4) == 60 and steps("tip_adapter_f", 4, "toy/eurosat") == 300


def test_selection_is_made_on_validation_pictures_and_the_oracle_is_asked_for_by_name():
    clip, task = tiny.clip(), tiny.task()
    fixed = fit("tip_adapter", clip, task, selection="fixed", augment_epoch=2)
    assert fixed.chosen == {} and (fixed.alpha, fixed.beta) == (1.17, 1)
    few = fit("tip_adapter", clip, task, augment_epoch=2)
    assert evaluate(few, task.val).accuracy >= evaluate(fixed, task.val).accuracy
    assert few.chosen == {"alpha": few.alpha, "beta": few.beta}
    best = select.oracle(fixed, task.test)
    assert best == fixed.chosen
    assert evaluate(fixed, task.test).accuracy >= evaluate(few, task.test).accuracy
    assert select.oracle(fit("zero_shot", clip, task), task.test) == {}


def test_selection_without_validation_pictures_names_the_remedy():
    from dataclasses import replace

    task = tiny.task()
    task = replace(task, val=task.val.subset([]))
    with pytest.raises(FewshotError, match="no validation pictures .* selection='fixed'"):
        fit("linear_probe", tiny.clip(), task)
    assert fit("linear_probe", tiny.clip(), task, selection="fixed").chosen == {}


def test_evaluation_refuses_labels_the_model_does_not_know():
    model = fit("zero_shot", tiny.clip(), tiny.task().half("base"))
    with pytest.raises(FewshotError, match="labels go up to 3 and the model knows 2 classes"):
        evaluate(model, tiny.task().test)


def test_base_classes_train_and_new_ones_are_judged_with_the_same_vectors():
    task = tiny.task()
    model = fit("coop", tiny.clip(), task.half("base"), epochs=2, progress=False)
    ctx, new = model.ctx.clone(), task.half("new")
    assert evaluate(model.retarget(new.classnames), new.test).n == 20
    assert torch.equal(model.ctx, ctx)
    fresh = CoOp(tiny.clip(), new, model.config)
    fresh.ctx.data.copy_(ctx)
    with torch.no_grad():
        x = torch.randn(3, 32)
        assert torch.equal(fresh.eval().logits(x), model.logits(x))


def test_pictures_can_be_given_in_four_ways(tmp_path):
    from fewshot.data.views import View, load_batch

    model, test = fit("zero_shot", tiny.clip(), tiny.task()), tiny.task().test.subset(range(3))
    pictures = [test.pil(i) for i in range(3)]
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    want = model.predict_proba(test)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for given in (pictures, paths, load_batch(test, range(3), View(), model.clip)):
        assert torch.allclose(model.predict_proba(given), want, atol=1e-6)
    assert model.predict(pictures[0]) == model.predict(test)[:1]
    with pytest.raises(FewshotError, match="give pictures as"):
        model.predict([1, 2])
    assert np.allclose(want.sum(1), 1)
