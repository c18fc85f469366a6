"""Tip-Adapter: the cache, the logits and the search of (beta, alpha)."""

import torch
import torch.nn.functional as F

from fewshot.clip import unit
from fewshot.methods.tip_adapter import TipAdapter

FOLDERS = ("tip_adapter",)


def settings(golden) -> dict:
    given = golden.meta["hyperparameters"]
    return dict(
        alpha=given["init_alpha"], beta=given["init_beta"], search_scale=tuple(given["search_scale"]),
        search_step=tuple(given["search_step"]), augment_epoch=given["augment_epoch"],
    )  # fmt: skip


def fill(golden, model) -> None:
    """The cache of the fixture: the stored pictures and their mirror images stand for two augmented views."""
    support = golden.images[: 2 * golden.batch]
    model.fill(
        [golden.clip.encode_image(support), golden.clip.encode_image(support.flip(-1))], golden.labels[: len(support)]
    )
    golden.close("cache.keys", model.keys.t())
    golden.close("cache.values", F.one_hot(model.labels, len(golden.classnames)))
    golden.close("text.weights", model.weights.t())
    golden.close("image_features.normalised", unit(golden.clip.encode_image(golden.images)))


def check(golden):
    model = TipAdapter(golden.clip, golden.task(), TipAdapter.Config(**settings(golden)))
    support = golden.images[: 2 * golden.batch]
    golden.close("support.features_view0", golden.clip.encode_image(support))
    golden.close("support.features_view1", golden.clip.encode_image(support.flip(-1)))
    fill(golden, model)
    features = golden.clip.encode_image(golden.images)
    golden.close("logits.zero_shot", 100 * unit(features) @ model.weights.t())
    golden.close("logits.eval", model.logits(features))
    chosen = model.choose(features, golden.labels)
    golden.close("tiny.best", torch.tensor([chosen["beta"], chosen["alpha"]]))
    golden.close("logits.search_best", model.logits(features))

    # the search alone, on synthetic data
    model.keys, model.weights = golden.given("search.keys").t(), golden.given("search.weights").t()
    model.labels = golden.given("search.values").argmax(dim=1)
    f, labels = golden.given("search.features"), golden.given("search.labels").long()
    accuracy, betas, alphas = model.search(f, labels)
    golden.close("search.beta_list", torch.tensor(betas))
    golden.close("search.alpha_list", torch.tensor(alphas))
    golden.close("search.accuracy", accuracy)
    chosen = model.choose(f, labels)
    golden.close("search.best", torch.tensor([chosen["beta"], chosen["alpha"]]))
