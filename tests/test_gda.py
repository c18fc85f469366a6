"""GDA against scikit-learn's discriminant analysis, against the authors' formula, and in its degenerate cases."""

import numpy as np
import pytest
import tiny
import torch

from fewshot.clip import unit
from fewshot.data import features as feature_cache
from fewshot.data.views import View
from fewshot.errors import FewshotError
from fewshot.methods.gda import ALPHAS, GDA
from fewshot.methods.method import Names
from fewshot.methods.zero_shot import ENSEMBLE
from fewshot.training import fit

LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))


def made(dataset="x", **config):
    return GDA(tiny.clip(), Names(dataset, ("one", "two", "three"), "a {} here."), GDA.Config(**config))


def some_views(labels=LABELS, count=4, spread=0.3, seed=0):
    """Raw features [n, 32] of each view: class centres far from 0, pictures around them, views around those."""
    gen = torch.Generator().manual_seed(seed)
    centres = 2 + torch.randn(3, 32, generator=gen)
    pictures = centres[labels] + 0.5 * torch.randn(len(labels), 32, generator=gen)
    return [pictures + spread * torch.randn(pictures.shape, generator=gen) for _ in range(count)]


def centred(scores):
    """The Gaussian scores of a picture mean something up to a constant of that picture."""
    return scores - scores.mean(axis=1, keepdims=True)


def precision(views, labels=LABELS):
    """The authors' shrunk inverse, plainly, in float64."""
    f, y = torch.cat([unit(v) for v in views]).double().numpy(), labels.repeat(len(views)).numpy()
    off = np.concatenate([f[y == c] - f[y == c].mean(axis=0) for c in np.unique(y)])
    cov = np.cov(off.T)
    return 32 * np.linalg.pinv((len(off) - 1) * cov + np.trace(cov) * np.eye(32)), f, y


def test_the_scores_are_those_of_scikit_learns_lda_with_the_same_covariance():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    class Given:
        def __init__(self, covariance_):
            self.covariance_ = covariance_

        def fit(self, x):
            return self

    views = some_views()
    inverse, f, y = precision(views)
    estimator = Given(np.linalg.inv(inverse))
    lda = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=estimator, priors=[1 / 3] * 3).fit(f, y)
    model = made()
    model.estimate(views, LABELS)
    x = unit(torch.randn(20, 32, generator=torch.Generator().manual_seed(5)) + 1)
    ours, theirs = model.parts(x)[1].double().numpy(), lda.decision_function(x.double().numpy())
    assert np.abs(theirs).max() > 1 and np.abs(centred(ours) - centred(theirs)).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("spread", [0.3, 1e-3])
def test_the_precision_is_the_authors_also_where_the_pictures_hardly_differ(spread):
    views = some_views(torch.arange(3), spread=spread)  # one shot: only the views differ
    inverse, f, y = precision(views, torch.arange(3))
    model = made()
    model.estimate(views, torch.arange(3))
    means = np.stack([f[y == c].mean(axis=0) for c in range(3)])
    weight = means @ inverse - (means @ inverse).mean(axis=0)
    assert np.allclose(model.weight.numpy(), weight, rtol=1e-3, atol=1e-4 * np.abs(weight).max())
    bias = -np.einsum("cd,de,ce->c", means, inverse, means) / 2
    assert np.allclose(
        centred(model.bias.numpy()[None]), centred(bias[None]), rtol=1e-3, atol=1e-4 * np.abs(bias).max()
    )


def test_every_view_is_a_sample_of_its_own():
    views = some_views()
    apart, together, averaged = made(), made(), made()
    apart.estimate(views, LABELS)
    together.estimate([torch.cat(views)], LABELS.repeat(len(views)))
    averaged.estimate([torch.stack(views).mean(dim=0)], LABELS)
    assert torch.allclose(apart.weight, together.weight, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(apart.weight, averaged.weight, rtol=0.1)


@pytest.mark.parametrize("count", [1, 10])
def test_pictures_that_do_not_vary_leave_the_zero_shot_classifier(count):
    view = some_views(torch.arange(3), count=1)[0]
    model, x = made(), torch.randn(5, 32)
    model.estimate([view.clone() for _ in range(count)], torch.arange(3))
    assert not model.weight.any() and not model.bias.any()
    assert torch.allclose(model.logits(x), 100 * unit(x) @ model.text.t(), atol=1e-4)


def test_the_smallest_of_the_best_alphas_is_chosen():
    model = made()
    model.estimate(some_views(), LABELS)
    x = some_views(seed=0)[0] + 0.7 * torch.randn(9, 32, generator=torch.Generator().manual_seed(2))
    right = []
    for model.alpha in ALPHAS:
        right.append(int((model.logits(x).argmax(1) == LABELS).sum()))
    assert len(set(right)) > 1, "the alphas must differ for this test"
    assert model.choose(x, LABELS) == {"alpha": ALPHAS[right.index(max(right))]} == model.chosen
    chosen = model.logits(x)
    model.alpha = model.chosen["alpha"]
    assert torch.equal(model.logits(x), chosen)
    wrong = (
        model.parts(unit(x[:1]))[0].argmax(1) + 1
    ) % 3  # text is wrong, and the Gaussians are made to agree with it
    model.weight, model.bias = torch.zeros(3, 32), torch.zeros(3)
    assert model.choose(x[:1], wrong) == {"alpha": 0.1}
    assert GDA.Config().alpha == made().alpha == 1.0 and made(alpha=3.0).alpha == 3.0


@pytest.mark.parametrize(("dataset", "scale"), [("dtd", (0.5, 1.0)), ("imagenet", (0.08, 1.0))])
def test_the_views_are_ten_and_their_crops_those_of_the_authors(dataset, scale, monkeypatch):
    seen, original = [], feature_cache.image_features

    def spy(clip, images, view=View(), **options):  # noqa: B008
        seen.append(view)
        return original(clip, images, view, **options)

    monkeypatch.setattr(feature_cache, "image_features", spy)
    model = fit("gda", tiny.clip(), tiny.task(seed=3, name=dataset), selection="fixed")
    assert seen == [View("train", epoch, 3, scale) for epoch in range(10)]
    templates = ENSEMBLE if dataset == "imagenet" else model.template
    assert torch.equal(model.text, tiny.clip().zero_shot_weights(tiny.NAMES, templates))
    assert model.learned() == 4 * 33


def test_what_cannot_work_is_refused():
    with pytest.raises(FewshotError, match="one view or more"):
        made(augment_epoch=0)
    with pytest.raises(FewshotError, match="there is none of 'two'"):
        made().estimate(some_views(torch.tensor([0, 2, 2])), torch.tensor([0, 2, 2]))
    with pytest.raises(FewshotError, match="mean of each"):
        made().retarget(("a", "b", "c"))
