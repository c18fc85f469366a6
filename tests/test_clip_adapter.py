"""CLIP-Adapter: what is easily "corrected" away."""

import pytest
import tiny
import torch
import torch.nn.functional as F

from fewshot.clip import unit
from fewshot.errors import FewshotError
from fewshot.methods.clip_adapter import CLIPAdapter
from fewshot.methods.method import Names, coop_lr
from fewshot.methods.zero_shot import ENSEMBLE


def made(kind="vit", dataset="x", classnames=tiny.NAMES, template="a photo of a {}.", shots=16, seed=1, **config):
    names = Names(dataset, tuple(classnames), template, shots, seed)
    return CLIPAdapter(tiny.clip(kind), names, CLIPAdapter.Config(**config)).eval()


def features(n=5, seed=0):
    return 3 * torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))


def gradients(model, x):
    model.zero_grad()
    model.backward(x, torch.arange(len(x)) % 4)
    return [p.grad.clone() for p in (model.down, model.up)]


def test_the_official_form_is_the_formula_with_a_relu_behind_both_layers():
    model, x = made(), features()
    a = F.relu(F.relu(x @ model.down.t()) @ model.up.t())
    assert (a == 0).any() and (a > 0).any()
    g = 0.2 * a + 0.8 * x  # 0.2 weighs the adapter
    want = model.clip.logit_scale * unit(g) @ model.clip.zero_shot_weights(tiny.NAMES, "a photo of a {}.").t()
    assert torch.equal(model.adapt(x), a) and torch.allclose(model.logits(x), want, atol=1e-5)


@pytest.mark.parametrize("variant", ["official", "lp++"])
def test_raw_and_unit_features_give_the_same_logits_and_gradients(variant):
    """The official form has no biases and normalises the mixture; the variant normalises what it is given."""
    model, x = made(variant=variant), features()
    raw, same = ([model.logits(f).detach(), *gradients(model, f)] for f in (x, unit(x)))
    for a, b in zip(raw, same, strict=True):
        assert float((a - b).abs().max()) < 1e-5 * float(a.abs().max())


def test_the_variant_takes_unit_features_and_leaves_the_mixture_unnormalised():
    model, x = made(variant="lp++"), features()
    f = unit(x)
    g = 0.5 * F.relu(F.relu(f @ model.down.t()) @ model.up.t()) + 0.5 * f
    assert torch.allclose(model.logits(x), model.clip.logit_scale * g @ model.weights.t(), atol=1e-5)
    normalised = model.clip.logit_scale * unit(g) @ model.weights.t()
    assert not torch.allclose(model.logits(x), normalised, rtol=0.05)


def test_the_variant_averages_unit_prompt_features_of_several_templates():
    clip, templates = tiny.clip(), ("a {} here.", "the large {}")
    assert torch.equal(made(variant="lp++", templates=templates).weights, clip.zero_shot_weights(tiny.NAMES, templates))
    assert torch.equal(
        made(variant="lp++", dataset="toy/imagenet").weights, clip.zero_shot_weights(tiny.NAMES, ENSEMBLE)
    )
    one = clip.zero_shot_weights(tiny.NAMES, "a {} too.")
    assert torch.equal(made(dataset="toy/imagenet", template="a {} too.").weights, one)


def test_underscores_of_class_names_become_spaces():
    a, b = made(classnames=("Grizzly_bear", "sea")), made(classnames=("Grizzly bear", "sea"))
    assert torch.equal(a.weights, b.weights)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_there_are_two_matrices_no_biases_and_the_hidden_width_follows_the_features(kind):
    width = tiny.clip(kind).embed_dim
    shapes = [tuple(p.shape) for p in made(kind).parameters()]
    assert shapes == [(width // 4, width), (width, width // 4)]
    model = made(kind, reduction=2)
    assert model.down.shape[0] == width // 2 and model.learned() == width * width


def test_the_matrices_start_as_torchs_linear_layers_and_from_the_seed():
    down, up = made().down.detach(), made().up.detach()
    for start in (down, up):
        bound = start.shape[1] ** -0.5
        assert 0.9 * bound < float(start.abs().max()) <= bound and abs(float(start.mean())) < 0.2 * bound
    assert torch.equal(made().up, up) and not torch.equal(made(seed=2).up, up)


def test_the_protocol_is_that_of_coop():
    assert [made(shots=k).epochs() for k in (1, 2, 4, 8, 16)] == [50, 100, 100, 200, 200]
    model = made(dataset="imagenet")
    assert model.epochs() == 50 and model.drop_last
    group = model.optimizer().param_groups[0]
    settings = (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"])
    assert settings == (0.002, 0.9, 5e-4, False) and model.config.batch_size == 32
    assert [model.lr(step, 12, 3) for step in (0, 2, 3, 11)] == [coop_lr(0.002, e, 4) for e in (0, 0, 1, 3)]


def test_it_can_be_asked_for_other_classes():
    model = made()
    before = model.up.detach().clone()
    model.retarget(("red panda", "steam_engine"))
    assert model.logits(features()).shape == (5, 2) and torch.equal(model.up, before)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"variant": "lp"}, "unknown variant of clip_adapter 'lp'"),
        ({"ratio": 0.0}, "ratio of clip_adapter must be above 0 and at most 1, not 0.0"),
        ({"ratio": 1.5}, "ratio of clip_adapter"),
        ({"reduction": 0}, "reduction of clip_adapter must be from 1 to 32"),
        ({"templates": ("a photo",)}, "the template 'a photo' must hold exactly one"),
        ({"reduction": 64}, "reduction of clip_adapter must be from 1 to 32"),
    ],
)
def test_settings_without_a_meaning_are_refused(config, said):
    with pytest.raises(FewshotError, match=said):
        made(**config)
