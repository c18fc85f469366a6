"""LP++, where the fixture cannot look: unequal classes, both ways of stepping alpha, the epoch that is kept."""

import pytest
import tiny
import torch
import torch.nn.functional as F

from fewshot.clip import unit
from fewshot.data import features as feature_cache
from fewshot.data.views import View
from fewshot.errors import FewshotError
from fewshot.methods import lpplusplus
from fewshot.methods.lpplusplus import LPPlusPlus
from fewshot.methods.method import Names, load_method
from fewshot.methods.zero_shot import ENSEMBLE
from fewshot.training import fit

LABELS = torch.tensor([0, 0, 0, 0, 1, 2, 2])  # classes of four, one and two pictures


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))


def names(count=3, dataset="x"):
    return Names(dataset, tuple(f"thing {i}" for i in range(count)), "a {} here.")


def made(labels=LABELS, count=3, **config):
    """A model that holds noisy features, and the unit features."""
    model = LPPlusPlus(tiny.clip(), names(count), LPPlusPlus.Config(**config))
    gen = torch.Generator().manual_seed(0)
    centres = torch.randn(count, 32, generator=gen)
    features = 3 * centres[labels] + torch.randn(len(labels), 32, generator=gen)
    model.take(features, labels)
    return model, unit(features)


def test_the_start_on_classes_of_unequal_size():
    model, f = made()
    lr_w, lr_alpha = model.start()
    groups = [f[LABELS == c] for c in range(3)]
    assert torch.allclose(model.weight, torch.stack([g.sum(0) for g in groups]), atol=1e-6)  # sums, not means
    cosines = [float((g @ model.text[c]).mean()) for c, g in enumerate(groups)]
    assert torch.allclose(model.alpha, torch.full((3,), 250 * sum(cosines) / 3), rtol=1e-5)  # a class counts once
    assert lr_w == pytest.approx(4 * 7 / float(torch.linalg.matrix_norm(f.double(), 2)) ** 2, rel=1e-5)
    assert lr_alpha == pytest.approx(7 / (4 * max(float((f @ t).square().sum()) for t in model.text)), rel=1e-5)


@pytest.mark.parametrize("accumulate", [True, False])
def test_the_descent_is_that_of_torchs_sgd_with_alpha_on_the_side(accumulate):
    model, f = made(epochs=25, accumulate_alpha=accumulate)
    lr_w, lr_alpha = model.start()
    head = torch.nn.Linear(32, 3)
    head.weight.data, head.bias.data = model.weight.clone(), model.bias.clone()
    alpha = model.alpha.clone().requires_grad_()
    optimizer = torch.optim.SGD(head.parameters(), lr=lr_w, momentum=0.9)
    losses = []
    for epoch in range(1, 26):
        loss = F.cross_entropy(head(f) + alpha * (f @ model.text.t()), LABELS)
        optimizer.zero_grad()
        if not accumulate:
            alpha.grad = None
        loss.backward()
        optimizer.step()
        if epoch % 10 == 0:
            alpha.data -= lr_alpha * alpha.grad
        losses.append(loss.detach())
    assert torch.allclose(torch.stack(list(model.descend())), torch.stack(losses), rtol=1e-4, atol=1e-5)
    for ours, theirs in ((model.weight, head.weight), (model.bias, head.bias), (model.alpha, alpha)):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_pass_in_parts_gives_the_gradients_of_a_whole_one(monkeypatch):
    model, f = made()
    model.start()
    loss, whole = model.gradient(f, LABELS)
    monkeypatch.setattr(lpplusplus, "ROWS", 3)  # parts of 3, 3 and 1 pictures
    in_parts, parts = model.gradient(f, LABELS)
    for a, b in zip((loss, *whole), (in_parts, *parts), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-6 * float(a.abs().max()))


def test_the_two_ways_of_stepping_alpha_differ():
    ends = []
    for accumulate in (True, False):
        model, _ = made(epochs=10, accumulate_alpha=accumulate)
        list(model.descend())
        ends.append(model.alpha)
    start = made()[0]
    start.start()
    moved = [(end - start.alpha).abs().max() for end in ends]
    assert moved[0] > 2 * moved[1] > 0  # ten gradients that mostly agree against one


def test_a_class_without_a_picture_breaks_nothing():
    model, f = made(torch.tensor([0, 0, 2]), epochs=20)
    losses = list(model.descend())
    assert torch.isfinite(model.logits(f)).all() and losses[-1] < losses[0]


def test_the_bias_is_drawn_from_the_seed_or_zero_and_learned_either_way():
    random, again, zero = (made(bias=bias, epochs=2)[0] for bias in ("random", "random", "zero"))
    for model in (random, again, zero):
        model.start()
    assert torch.equal(random.bias, again.bias) and LPPlusPlus.Config().bias == "random"
    many = made(torch.arange(60), count=60)[0]
    many.start()
    bound = 32**-0.5
    assert -bound <= many.bias.min() < -0.8 * bound and 0.8 * bound < many.bias.max() <= bound
    assert not zero.bias.any()
    list(zero.descend())
    assert zero.bias.any()
    other = LPPlusPlus(tiny.clip(), names(), seed=2)
    other.take(*random.support)
    other.start()
    assert not torch.equal(other.bias, random.bias)


def test_the_last_of_the_best_epochs_is_kept():
    gen = torch.Generator().manual_seed(1)
    features, labels = torch.randn(40, 32, generator=gen), torch.arange(40) % 3
    model, _ = made(epochs=30)
    right, ends = [], []
    for _ in model.descend():
        right.append(int((model.logits(features).argmax(1) == labels).sum()))
        ends.append(model.logits(features))
    best = max(i for i, r in enumerate(right) if r == max(right))
    assert model.choose(features, labels) == {"epoch": best + 1} == model.chosen
    assert torch.equal(model.logits(features), ends[best])


def test_a_tie_over_all_epochs_keeps_the_last():
    model, f = made(epochs=12)
    list(model.descend())
    end = model.logits(f)
    assert (end.argmax(1) == LABELS).all()
    assert model.choose(f, LABELS)["epoch"] == 12 and torch.equal(model.logits(f), end)


def test_fixed_is_the_end_of_the_training_and_fewval_an_epoch_of_it():
    ends = {s: fit("lpplusplus", tiny.clip(), tiny.task(), selection=s, epochs=15) for s in ("fixed", "fewval")}
    fixed, chosen = ends["fixed"], ends["fewval"]
    assert fixed.chosen == {} and len(fixed.history) == 15
    final = fixed.weight.clone()
    for epoch, _ in enumerate(fixed.descend(), start=1):
        if epoch == chosen.chosen["epoch"]:
            assert torch.equal(fixed.weight, chosen.weight) and torch.equal(fixed.alpha, chosen.alpha)
    assert torch.equal(fixed.weight, final)
    assert fixed.learned() == 4 * (32 + 2)


def test_one_augmented_view_is_encoded_once(monkeypatch):
    seen, original = [], feature_cache.image_features

    def spy(clip, images, view=View(), **options):  # noqa: B008
        seen.append((view, len(images)))
        return original(clip, images, view, **options)

    monkeypatch.setattr(feature_cache, "image_features", spy)
    fit("lpplusplus", tiny.clip(), tiny.task(seed=3), epochs=5)
    assert seen == [(View("train", 0, 3, (0.5, 1.0)), 16), (View(), 16)]


def test_imagenet_has_seven_prompts_per_class_and_text_scores_have_no_temperature():
    clip = tiny.clip()
    model = LPPlusPlus(clip, names(dataset="toy/imagenet"))
    assert torch.equal(model.text, clip.zero_shot_weights(model.classnames, ENSEMBLE))
    model, f = made()
    model.alpha = torch.ones(3)  # W and b are still 0
    assert torch.allclose(model.logits(7 * f), f @ model.text.t(), atol=1e-6)


def test_what_cannot_work_is_refused(tmp_path):
    for config, said in ((dict(bias="randm"), "did you mean 'random'"), (dict(epochs=0), "one epoch or more")):
        with pytest.raises(FewshotError, match=said):
            LPPlusPlus(tiny.clip(), names(), LPPlusPlus.Config(**config))
    model, f = made()
    loaded = load_method(model.save(tmp_path / "m.safetensors"), tiny.clip())
    with pytest.raises(FewshotError, match="no support features"):
        loaded.choose(f, LABELS)
    with pytest.raises(FewshotError, match="one weight vector per class"):
        model.retarget(("a", "b", "c"))
