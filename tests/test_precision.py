"""bfloat16 for the encoders' products: near fp32, everything that is learned or kept in fp32, and said in the row."""

from dataclasses import fields

import pytest
import tiny
import torch

from fewshot.errors import FewshotError
from fewshot.methods import METHODS, get_method
from fewshot.methods.method import Names, make_config, settings_of
from fewshot.runs import Run, stamp
from fewshot.training import fit

HALF = [m for m in METHODS if "precision" in {f.name for f in fields(get_method(m).Config)}]


def made(method, precision, **more):
    cls = get_method(method)
    config = {**tiny.quick(method, "vit"), **more, "precision": precision}
    return cls(tiny.clip(), Names("tiny", tiny.NAMES, "a photo of a {}.", 4), make_config(cls, config))


def step(model):
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    x = tiny.clip().encode_image(x) if model.needs == "features" else x
    model.train()
    torch.manual_seed(2)
    for stage in model.stages():
        model.begin(stage)
    loss = model.backward(x, torch.arange(4))
    with torch.no_grad():
        return loss, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, model.eval().logits(x)


def test_the_methods_that_run_an_encoder_have_the_choice():
    assert HALF == ["coop", "cocoop", "kgcoop", "prograd", "plotpp", "maple", "clip_lora", "fine_tune"]


@pytest.mark.parametrize("method", HALF)
def test_a_step_in_bfloat16_is_near_that_in_fp32_and_leaves_fp32(method):
    (loss, gradients, logits), (near, other, scores) = (step(made(method, p)) for p in ("fp32", "bf16"))
    assert near.dtype == scores.dtype == torch.float32
    assert not torch.equal(scores, logits) and torch.allclose(scores, logits, atol=0.1 * float(logits.abs().max()))
    assert abs(near - loss) < 0.1 * abs(loss) + 0.05
    assert other.keys() == gradients.keys()
    for name, gradient in other.items():
        assert gradient.dtype == torch.float32
        assert (gradient - gradients[name]).norm() < 0.3 * gradients[name].norm() + 1e-6, name


@pytest.mark.parametrize("method", ["coop", "plotpp", "clip_lora"])
def test_pieces_are_computed_again_in_the_same_precision(method):
    more = {"dropout": 0.0} if method == "clip_lora" else {}
    whole, pieces = (step(made(method, "bf16", chunk=chunk, **more)) for chunk in (0, 1))
    for name, gradient in pieces[1].items():
        assert torch.allclose(gradient, whole[1][name], atol=0.1 * float(gradient.abs().max()) + 1e-6), name


def test_what_is_kept_between_methods_stays_in_fp32():
    clip, x = tiny.clip(), torch.randn(2, 3, 32, 32)
    half = clip.cast("bf16")
    assert clip.cast("fp32") is clip and half.fingerprint == clip.fingerprint and half.model is clip.model
    with torch.no_grad():
        assert torch.equal(half.encode_image(x), clip.encode_image(x))
        assert torch.equal(half.zero_shot_weights(tiny.NAMES, "a {}."), clip.zero_shot_weights(tiny.NAMES, "a {}."))
        assert not torch.equal(half.vision.encode(x), clip.vision.encode(x))
    assert (clip.text.precision, clip.vision.precision) == ("fp32", "fp32")


def test_the_row_says_bf16_and_nothing_changes_for_fp32():
    one = Run("x", "coop", "toy/pets", 1)
    half = Run("x", "coop", "toy/pets", 1, config={"precision": "bf16"})
    config = make_config(get_method("coop"), {})
    assert "precision" not in settings_of(config)
    assert settings_of(make_config(get_method("coop"), half.config))["precision"] == "bf16"
    assert one.key != half.key and stamp(one) != stamp(half)


def test_a_fit_in_bfloat16_is_saved_with_its_precision_and_another_one_is_refused(tmp_path):
    from fewshot.methods.method import load_method

    model = fit("kgcoop", tiny.clip(), tiny.task(), progress=False, epochs=1, precision="bf16")
    loaded = load_method(model.save(tmp_path / "m.safetensors"), tiny.clip())
    assert loaded.config.precision == "bf16" and loaded.clip.text.precision == "bf16"
    with pytest.raises(FewshotError, match="unknown precision of coop 'fp16'"):
        make_config(get_method("coop"), {"precision": "fp16"})
