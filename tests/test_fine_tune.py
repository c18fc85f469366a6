"""Full fine-tuning equals the plain loop on open_clip's own model, and what few pictures, ResNets and mixing make of it."""

import copy
import json

import pytest
import tiny
import torch
import torch.nn.functional as F

from fewshot.clip import Clip
from fewshot.errors import FewshotError
from fewshot.methods.fine_tune import FineTune
from fewshot.methods.method import Names, load_method
from fewshot.training import fit


def double(kind="vit"):
    clip = Clip.from_state_dict(tiny.config(kind), tiny.weights(kind), "double", device="cpu")
    clip.model.double()
    return clip


def made(clip=None, task=None, **config):
    clip = clip or tiny.clip()
    return FineTune(
        clip, task or tiny.task("resnet" if clip.visual_kind == "resnet" else "vit"), FineTune.Config(**config)
    )


def batch(kind="vit", n=6, dtype=torch.float32, seed=9):
    size = tiny.clip(kind).image_size
    x = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x, torch.arange(n) % len(tiny.NAMES)


def trained(model, steps=3, kind="vit"):
    """`steps` steps as fewshot.fit makes them; the losses."""
    model.train()
    optimizer, losses = model.optimizer(), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = model.lr(step, steps, 1)
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(model.backward(*batch(kind, dtype=model.weight.dtype, seed=step))))
        optimizer.step()
    return losses


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("chunk", [2, 5, 64])
def test_three_steps_equal_a_plain_loop_on_open_clips_own_model(kind, chunk):
    clip = double(kind)
    model = made(clip, lr=0.01, max_norm=0.7, chunk=chunk)
    losses = trained(model, kind=kind)

    plain = copy.deepcopy(clip.model)
    texts = clip.tokenize([f"a photo of a {n.replace('_', ' ')}." for n in tiny.NAMES])
    head = torch.nn.Linear(clip.embed_dim, 4, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(plain.logit_scale.exp() * F.normalize(plain.encode_text(texts), dim=-1))
        head.bias.zero_()
    visual = list(plain.visual.requires_grad_(True).parameters())
    everything = [*visual, *head.parameters()]
    optimizer = torch.optim.AdamW(everything, lr=0.01, weight_decay=0.1)
    for step, rate in enumerate([0.01, 0.0075, 0.0025]):  # a cosine over three steps: no room for a warm-up
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        x, labels = batch(kind, dtype=torch.float64, seed=step)
        loss = F.cross_entropy(head(F.normalize(plain.encode_image(x), dim=-1)), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(everything, 0.7)
        optimizer.step()
        assert losses[step] == pytest.approx(loss.item(), rel=1e-9)
    for own, theirs in zip([*model.encoder.parameters(), model.weight, model.bias], everything, strict=True):
        assert torch.allclose(own, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_it_starts_as_zero_shot_with_the_templates_classifier(kind):
    clip, (x, _) = tiny.clip(kind), batch(kind)
    weights = clip.zero_shot_weights(tiny.NAMES, tiny.task(kind).template)
    want = clip.logit_scale * F.normalize(clip.encode_image(x), dim=-1) @ weights.t()
    for model in (made(clip).train(), made(clip).eval(), made(clip, mix=0.3).eval()):
        assert torch.allclose(model.logits(x), want, rtol=1e-4, atol=1e-4)


def test_tested_weights_lie_between_start_and_end_and_training_sees_the_end_alone():
    clip, (x, _) = double(), batch(dtype=torch.float64)
    model, end = made(clip, lr=0.01, mix=0.25), made(clip, lr=0.01)
    assert trained(model) == trained(end)
    mixed = made(clip)
    start = dict(made(clip).named_parameters())
    for (name, p), theta in zip(mixed.named_parameters(), end.parameters(), strict=True):
        p.data = 0.75 * start[name].data + 0.25 * theta.data
    with torch.no_grad():
        assert torch.allclose(model.eval().logits(x), mixed.eval().logits(x), rtol=1e-9)
        assert not torch.allclose(model.logits(x), end.eval().logits(x), rtol=1e-3)
        assert torch.equal(model.train().logits(x), end.train().logits(x))


def test_at_mix_zero_nothing_was_learned(tmp_path):
    clip, (x, _) = tiny.clip(), batch()
    model = fit("fine_tune", clip, tiny.task(), progress=False, mix=0.0, **tiny.quick("fine_tune", "vit"))
    with torch.no_grad():
        assert torch.allclose(model.logits(x), made().eval().logits(x), rtol=1e-4, atol=1e-4)
        loaded = load_method(model.save(tmp_path / "m.safetensors"), clip)
        assert torch.equal(loaded.logits(x), model.logits(x)) and not torch.equal(loaded.weight, made().weight)


def test_statistics_of_batch_norm_stay():
    clip = tiny.clip("resnet")
    model = fit("fine_tune", clip, tiny.task("resnet"), progress=False, **tiny.quick("fine_tune", "resnet"))
    theirs = dict(clip.model.visual.named_buffers())
    own = dict(model.encoder.named_buffers())
    assert own and all(torch.equal(own[name], theirs[name]) for name in theirs)
    model.train()
    assert not any(module.training for module in model.encoder.modules())


def test_the_gradient_of_all_weights_together_is_cut():
    model = made(max_norm=0.01)
    model.train().backward(*batch())
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_steps_are_ten_epochs_but_enough_for_few_pictures():
    def steps(shots, per_epoch, **config):
        names = Names("tiny", tiny.NAMES, "a photo of a {}.", shots)
        return FineTune(tiny.clip(), names, FineTune.Config(**config)).iterations(per_epoch)

    assert [steps(k, 1) for k in (1, 4, 16, 64, None)] == [30, 120, 480, 480, 480]
    assert steps(None, 148) == 1480 and steps(1, 2, per_shot=5) == 20
    assert steps(16, 3, epochs=2) == 6 and steps(16, 3, iterations=7) == 7


def test_the_rate_rises_for_five_hundred_steps_or_a_tenth_and_falls_as_a_cosine():
    model = made()
    rates = [model.lr(step, 25_000, 1) for step in (0, 249, 499, 500, 12_750, 24_999)]
    assert rates[:5] == pytest.approx([3e-5 / 500, 1.5e-5, 3e-5, 3e-5, 1.5e-5], rel=1e-3) and 0 < rates[5] < 1e-12
    assert [model.lr(step, 40, 1) for step in (0, 3, 4)] == pytest.approx([3e-5 / 4, 3e-5, 3e-5])
    assert model.lr(0, 3, 1) == 3e-5


def test_other_classes_are_refused_and_odd_settings_too():
    model = made()
    with pytest.raises(
        FewshotError, match="Full fine-tuning cannot change its classes, its head has learned a row for each"
    ):
        model.retarget(("a", "b", "c", "d"))
    assert model.retarget(tiny.NAMES) is model
    for mix in (-0.1, 1.5):
        with pytest.raises(FewshotError, match="mix of fine_tune must be between 0 and 1"):
            made(mix=mix)
    with pytest.raises(FewshotError, match="chunk of fine_tune"):
        made(chunk=0)


def test_the_file_holds_the_encoder_once(tmp_path):
    from safetensors import safe_open

    model = fit("fine_tune", tiny.clip(), tiny.task(), progress=False, **tiny.quick("fine_tune", "vit"))
    with safe_open(model.save(tmp_path / "m.safetensors"), "pt") as file:
        names = set(file.keys())
        assert json.loads(file.metadata()["fewshot"])["method"] == "fine_tune"
    assert names == {f"encoder.{name}" for name in tiny.clip().model.visual.state_dict()} | {"weight", "bias"}
    own = sum(p.numel() for p in tiny.clip().model.visual.parameters())
    assert model.learned() == own + 4 * 32 + 4


def test_an_encoder_that_gives_more_than_a_vector_is_refused():
    from test_backbones import coca

    with torch.random.fork_rng(devices=[]):
        clip = Clip(coca(), "coca", device="cpu")
    with pytest.raises(FewshotError, match="Full fine-tuning needs an image encoder that gives one vector"):
        FineTune(clip, tiny.dataset(clip.image_size).task(1))


def test_a_tower_of_another_kind_is_trained_too():
    from test_backbones import eva

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip = Clip(eva(), "eva", device="cpu")
    before = clip.state_hash()
    model = fit("fine_tune", clip, tiny.dataset(clip.image_size, "tiny-eva").task(1), progress=False, iterations=2)
    assert clip.state_hash() == before and len(model.history) == 1
