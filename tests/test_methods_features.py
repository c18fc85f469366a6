"""Zero-shot, the linear probe and both Tip-Adapters, where the fixtures cannot look."""

import numpy as np
import pytest
import tiny
import torch

from fewshot.clip import unit
from fewshot.errors import FewshotError
from fewshot.methods import tip_adapter
from fewshot.methods.linear_probe import SWEEP, Fit, LinearProbe, logistic, search
from fewshot.methods.method import Names
from fewshot.methods.tip_adapter import PAPER, TipAdapter, paper_setting
from fewshot.methods.tip_adapter_f import TipAdapterF
from fewshot.methods.zero_shot import ENSEMBLE, ZeroShot


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))


def names(count=4, template="a {} here."):
    return Names("x", tuple(f"thing {i}" for i in range(count)), template, shots=1)


def test_the_three_choices_of_templates():
    clip = tiny.clip()
    for choice, templates in (("task", ["a {} here."]), ("photo", ["a photo of a {}."]), ("ensemble", ENSEMBLE)):
        model = ZeroShot(clip, names(), ZeroShot.Config(templates=choice))
        assert torch.equal(model.weights, clip.zero_shot_weights(model.classnames, templates))
    with pytest.raises(FewshotError, match="did you mean 'ensemble'"):
        ZeroShot(clip, names(), ZeroShot.Config(templates="ensembl"))


def blobs(classes, n=12, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return rng.normal(size=(classes, 5))[labels] * 3 + rng.normal(size=(n, 5)), labels


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_logistic_regression_for_any_number_of_classes(classes):
    features, labels = blobs(classes)
    fit = logistic(features, labels, C=10.0, classes=classes + 1)  # and one class without an example
    assert fit.coef.shape == (classes + 1, 5)
    scores = features @ fit.coef.T + fit.intercept
    assert (scores[:, classes] == -np.inf).all()
    assert fit.accuracy(features, labels) > 0.9
    if classes == 2:  # the binary model's own probability
        from sklearn.linear_model import LogisticRegression

        proba = LogisticRegression(C=10.0, max_iter=1000).fit(features, labels).predict_proba(features)
        assert np.allclose(torch.tensor(scores).softmax(1)[:, :2], proba)


def test_the_search_prefers_large_c_in_the_sweep_and_the_left_end_after():
    def flat(c):
        return Fit(np.zeros((2, 1)), np.array([1.0, 0.0]), 1)

    steps = search(flat, (np.zeros((3, 1)), np.zeros(3, dtype=int)))
    assert len(steps) == 8
    assert steps[0].left == pytest.approx(0.1 * SWEEP[0]) and steps[0].right == pytest.approx(10 * SWEEP[0])
    assert all(s.C == steps[0].left for s in steps)
    assert steps[1].right == pytest.approx(SWEEP[0])


def test_a_loaded_probe_has_no_support_to_refit_on():
    model = LinearProbe(tiny.clip(), names())
    with pytest.raises(FewshotError, match="no support features"):
        model.choose(torch.zeros(2, 32), torch.zeros(2, dtype=torch.long))


def test_the_cache_is_normalised_after_the_mean_of_the_views():
    model = TipAdapter(tiny.clip(), names())
    gen = torch.Generator().manual_seed(0)
    views = [torch.randn(6, 32, generator=gen) * s for s in (1, 10)]
    model.fill(views, torch.tensor([0, 1, 2, 0, 1, 2]))  # class 3 has no picture
    assert torch.allclose(model.keys, unit((views[0] + views[1]) / 2))
    x = torch.randn(5, 32, generator=gen)
    affinity = unit(x) @ model.keys.t()
    votes = torch.exp(-model.beta * (1 - affinity))
    want = 100 * unit(x) @ model.weights.t()
    want[:, 0] += model.alpha * (votes[:, 0] + votes[:, 3])
    want[:, 1] += model.alpha * (votes[:, 1] + votes[:, 4])
    want[:, 2] += model.alpha * (votes[:, 2] + votes[:, 5])
    assert torch.allclose(model.logits(x), want, atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 7, 64, 96])
def test_the_affinity_is_the_product_with_every_key_whatever_their_number(count, monkeypatch):
    monkeypatch.setattr(tip_adapter, "MANY", 6)
    model = TipAdapter(tiny.clip(), names())
    gen = torch.Generator().manual_seed(0)
    model.fill([torch.randn(count, 32, generator=gen)], torch.zeros(count, dtype=torch.int64))
    f = unit(torch.randn(5, 32, generator=gen))
    assert torch.allclose(model.affinity(f), model.keys @ f.t(), atol=1e-6)


def test_settings_of_the_paper_are_found_under_any_of_a_data_sets_names():
    for name in ("dtd", "toy/dtd", "DescribableTextures", "describable_textures"):
        assert paper_setting(name) == PAPER["dtd"]
    assert (
        paper_setting("toy/oxford_pets") == paper_setting("OxfordPets") == paper_setting("pets") == PAPER["oxford_pets"]
    )
    assert paper_setting("toy/fgvc_aircraft") == PAPER["fgvc_aircraft"]
    assert paper_setting("my photos") == PAPER["imagenet"]
    model = TipAdapter(tiny.clip(), Names("eurosat", ("a", "b"), "a {}."), TipAdapter.Config(alpha=0.5))
    assert (model.alpha, model.beta, model.search_scale) == (0.5, 1, (12, 10))


def test_training_the_keys_leaves_the_training_free_cache_alone():
    free, trained = TipAdapter(tiny.clip(), names()), TipAdapterF(tiny.clip(), names())
    views, labels = [torch.randn(4, 32)], torch.arange(4)
    free.fill(views, labels)
    trained.fill(views, labels)
    trained.set_keys(free.keys)
    before = free.keys.clone()
    optimizer = trained.optimizer()
    trained.backward(torch.randn(3, 32), torch.tensor([0, 1, 2]))
    optimizer.step()
    assert torch.equal(free.keys, before) and not torch.equal(trained.keys, before)
