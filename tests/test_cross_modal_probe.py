"""The cross-modal probe: a stack of settings is the settings one by one, batches are dealt fairly, ties go to the first."""

import pytest
import tiny
import torch
import torch.nn.functional as F

from fewshot.clip import unit
from fewshot.data import features as feature_cache
from fewshot.data.views import View
from fewshot.errors import FewshotError
from fewshot.methods.cross_modal_probe import Config, CrossModalProbe, Stack, deal, gradient, schedule
from fewshot.methods.method import Names, load_method
from fewshot.methods.zero_shot import ENSEMBLE
from fewshot.training import fit

SETTINGS = [(lr, decay) for lr in (1e-3, 1e-4) for decay in (0.0, 0.01, 1e-4)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))


def names(count=5, template="a {} here.", dataset="x"):
    return Names(dataset, tuple(f"thing {i}" for i in range(count)), template)


def made(count=5, pictures=20, template="a {} here.", **config):
    model = CrossModalProbe(tiny.clip(), names(count, template), Config(**{"iterations": 120, **config}))
    gen = torch.Generator().manual_seed(0)
    labels = torch.arange(pictures) % count
    model.take(3 * torch.randn(count, 32, generator=gen)[labels] + torch.randn(pictures, 32, generator=gen), labels)
    return model


def some_validation(model, n=30, seed=3):
    gen = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % len(model.classnames)
    return model.support[0][labels] + 0.35 * torch.randn(n, 32, generator=gen), labels


def alone(model, lr, decay, size):
    """One setting by itself: autograd, torch's AdamW, the same batches."""
    table = torch.cat([model.support[0], model.texts])
    labels = torch.cat([model.support[1], model.text_labels])
    weight = model.start().clone().requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=lr, weight_decay=decay)
    for i, rows in enumerate(model.batches(size)):
        optimizer.param_groups[0]["lr"] = schedule(lr, i, model.config.iterations)
        optimizer.zero_grad()
        F.cross_entropy(99.99998 * table[rows] @ weight.t(), labels[rows]).backward()
        optimizer.step()
        yield i, weight.detach()


@pytest.mark.parametrize("modality", ["cross", "uni"])
def test_a_stack_goes_the_way_of_separate_runs(modality):
    model = made(modality=modality, iterations=70)
    together = model.run(SETTINGS, 8)
    assert not torch.equal(together.weight[0], together.weight[1])  # the decay matters
    for layer, (lr, decay) in enumerate(SETTINGS):
        *_, (_, weight) = alone(model, lr, decay, 8)
        assert torch.allclose(together.weight[layer], weight, rtol=1e-3, atol=2e-5)
    assert torch.allclose(model.run(SETTINGS[4:5], 8).weight[0], together.weight[4], atol=1e-6)


def test_the_gradient_is_that_of_the_mean_cross_entropy():
    weight = torch.randn(3, 4, 8, requires_grad=True)
    x, y = unit(torch.randn(5, 8)), torch.tensor([0, 1, 2, 3, 1])
    sum(F.cross_entropy(99.99998 * x @ w.t(), y) for w in weight).backward()
    ours = gradient(weight.detach(), x, F.one_hot(y, 4).float())
    assert torch.allclose(ours, weight.grad, rtol=1e-4, atol=1e-4)


def test_the_best_step_and_setting_are_those_of_a_plain_loop():
    model = made(count=6, iterations=60, every=7, batch_sizes=(4, 8), init="zeroshot")
    x, labels = some_validation(model, 60)
    best, want = -1, None
    for lr, decay in SETTINGS:  # the order of the authors' loops
        for size in (4, 8):
            for i, weight in alone(model, lr, decay, size):
                right = int(((unit(x) @ weight.t()).argmax(1) == labels).sum())
                if i % 7 == 0 and right > best:
                    best, want = right, (lr, decay, size, i, weight.clone())
    chosen = model.choose(x, labels)
    assert tuple(chosen[k] for k in ("lr", "weight_decay", "batch_size", "iteration")) == want[:4] and want[3] > 0
    assert torch.allclose(model.weight, want[4], atol=2e-5)
    assert int((model.logits(x).argmax(1) == labels).sum()) == best


def test_on_a_tie_the_first_setting_and_its_first_step_are_kept():
    model = made(init="zeroshot", batch_sizes=(4, 8), every=10)
    x = model.zero_shot.clone()  # right from the first step to the last
    first = {"lr": 1e-3, "weight_decay": 0.0, "batch_size": 4, "iteration": 0}
    assert model.choose(x, torch.arange(5)) == first == model.chosen
    assert (model.weight - model.zero_shot).abs().max() < 2e-5  # one step at 10^-5


def test_fixed_is_the_first_setting_at_its_last_step():
    options = dict(iterations=30, every=5, lrs=(1e-2, 1e-4), batch_sizes=(8, 4))
    model = fit("cross_modal_probe", tiny.clip(), tiny.task(), selection="fixed", **options)
    assert model.chosen == {}
    end = model.run([(1e-2, 0.0), (1e-4, 0.01)], 4)  # four prompts are no fewer than four prompts: 8 is dropped
    assert torch.allclose(model.weight, end.weight[0], atol=1e-6) and end.step.tolist() == [29, 29]
    assert model.learned() == 4 * 32


def test_the_schedule_warms_up_for_fifty_steps_and_ends_above_zero():
    lrs = [schedule(1e-3, i, 400) for i in range(400)]
    assert lrs[0] == 1e-5 and lrs[1] == pytest.approx(1e-3 / 50) and lrs[49] == pytest.approx(1e-3 * 49 / 50)
    assert lrs[50] == 1e-3 == max(lrs) and lrs[-1] > 1e-5
    assert schedule(1e-4, 0, 400) == 1e-5


def test_decks_are_shuffled_dealt_and_started_again():
    rows = deal(11, 4, 7, torch.Generator().manual_seed(0))
    assert rows.shape == (7, 4)
    decks = rows[:6].view(3, 8).tolist()  # two batches a deck, three of eleven left over
    assert all(len(set(deck)) == 8 and deck != sorted(deck) for deck in decks)
    assert len(set(map(tuple, decks))) == 3
    assert deal(3, 8, 2, torch.Generator()).sort(dim=1).values.tolist() == [[0, 1, 2]] * 2


def test_half_of_a_batch_is_prompts_of_every_template():
    model = made(count=5, templates=("a {}.", "one {}."))
    rows = model.batches(8)
    assert rows.shape == (120, 8)
    assert (rows[:, :4] < 20).all() and (rows[:, 4:] >= 20).all() and rows.max() == 20 + 9
    assert model.text_labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    want = tiny.clip().encode_text(["a thing 1.", "one thing 1."])
    assert torch.allclose(model.texts[2:4], unit(want), atol=1e-6)
    alone = made(modality="uni").batches(8)
    assert alone.shape == (120, 8) and alone.max() < 20
    other = CrossModalProbe(tiny.clip(), names(), model.config, seed=2)
    other.support = model.support
    assert torch.equal(model.batches(8), rows) and not torch.equal(other.batches(8), rows)


def test_batch_sizes_that_do_not_fit_are_dropped():
    assert made(count=10, pictures=20).batch_sizes() == [8]  # EuroSAT: 16 prompts are not fewer than ten
    assert made(count=17, pictures=34).batch_sizes() == [8, 32]
    assert made(count=16, pictures=32).batch_sizes() == [8]  # not fewer: dropped at equality
    assert made(count=17, pictures=16).batch_sizes() == [8]
    assert made(count=10, pictures=33, modality="uni").batch_sizes() == [8, 32]
    small = made(count=2, pictures=4)  # nothing fits: the smallest, cut to what is there
    assert small.batch_sizes() == [8] and small.batches(8).shape == (120, 6)


def test_a_picture_and_its_mirror_image_are_two_samples(monkeypatch):
    seen, original = [], feature_cache.image_features

    def spy(clip, images, view=View(), **options):  # noqa: B008
        seen.append(view)
        return original(clip, images, view, **options)

    monkeypatch.setattr(feature_cache, "image_features", spy)
    model = fit("cross_modal_probe", tiny.clip(), tiny.task(), selection="fixed", iterations=2)
    features, labels = model.support
    assert seen == [View(), View("mirror")] and features.shape == (32, 32)
    assert torch.equal(labels[:16], labels[16:]) and not torch.allclose(features[:16], features[16:], atol=1e-3)
    assert torch.allclose(features.norm(dim=1), torch.ones(32))


def test_a_uni_modal_probe_with_a_random_start_knows_nothing_of_the_words():
    x, labels = some_validation(made())
    ends = {}
    for template in ("a {} here.", "{} texture."):
        for modality, init in (("uni", "random"), ("uni", "zeroshot"), ("cross", "random")):
            model = made(template=template, modality=modality, init=init, iterations=20)
            model.choose(x, labels)
            ends.setdefault((modality, init), []).append(model.weight)
    assert torch.equal(*ends["uni", "random"])
    assert not torch.equal(*ends["uni", "zeroshot"])  # the uni-modal probe of the first release
    assert not torch.equal(*ends["cross", "random"])


def test_the_zero_shot_start_averages_raw_text_features():
    clip, templates = tiny.clip(), ("a {}.", "a very {} and long sentence about it.", "{}")
    model = CrossModalProbe(clip, names(), Config(init="zeroshot", templates=templates))
    raw = torch.stack([clip.encode_text([t.replace("{}", n) for t in templates]).mean(0) for n in model.classnames])
    assert torch.allclose(model.start(), unit(raw), atol=1e-6)
    assert (model.start() - clip.zero_shot_weights(model.classnames, templates)).abs().max() > 1e-4
    start = made().start()
    bound = 32**-0.5
    assert -bound <= start.min() < -0.9 * bound and 0.9 * bound < start.max() <= bound


def test_wise_ft_mixes_what_is_tested_and_not_what_is_chosen():
    plain, mixed = made(), made(wise_ft=0.5)
    x, labels = some_validation(plain)
    assert plain.choose(x, labels) == mixed.choose(x, labels) and torch.equal(plain.weight, mixed.weight)
    want = 99.99998 * unit(x) @ (0.5 * plain.weight + 0.5 * plain.zero_shot).t()
    assert torch.allclose(mixed.logits(x), want, atol=1e-4)
    assert not torch.allclose(plain.logits(x), want, atol=1e-2)


def test_imagenet_has_seven_prompts_per_class():
    model = CrossModalProbe(tiny.clip(), names(dataset="toy/imagenet"))
    assert model.templates == ENSEMBLE and model.texts.shape == (35, 32)


def test_the_first_step_of_the_stack_is_ten_to_the_minus_five():
    stack = Stack(torch.zeros(2, 3), [(1e-3, 0.0), (1e-4, 0.0)], 100)
    stack.step(torch.ones(2, 2, 3))
    assert torch.allclose(stack.weight, torch.full((2, 2, 3), -1e-5))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (dict(modality="crss"), "did you mean 'cross'"),
        (dict(init="zero_shot"), "did you mean 'zeroshot'"),
        (dict(lrs=()), "one or more lrs"),
        (dict(weight_decays=(-1.0,)), "weight_decays from 0 on"),
        (dict(batch_sizes=(1,)), "batch_sizes from 2 on"),
        (dict(every=0), "every from 1 on"),
        (dict(iterations=0), "one iteration or more"),
        (dict(wise_ft=1.5), "share between 0 and 1"),
    ],
)
def test_impossible_settings_are_refused_at_construction(config, said):
    with pytest.raises(FewshotError, match=said):
        CrossModalProbe(tiny.clip(), names(), Config(**config))


def test_other_classes_and_a_choice_after_loading_are_refused(tmp_path):
    model = made()
    with pytest.raises(FewshotError, match="one weight vector per class"):
        model.retarget(("a", "b"))
    loaded = load_method(model.save(tmp_path / "m.safetensors"), tiny.clip())
    with pytest.raises(FewshotError, match="no support features"):
        loaded.choose(torch.zeros(2, 32), torch.zeros(2, dtype=torch.long))
