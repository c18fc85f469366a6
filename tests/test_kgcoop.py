"""KgCoOp: what its distance is taken over, which teacher it has, and the two schedules."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from fewshot.errors import FewshotError
from fewshot.methods.kgcoop import KgCoOp, squared_cosine_lr
from fewshot.methods.method import Names, coop_lr, load_method
from fewshot.training import fit


def named(dataset: str, **config) -> KgCoOp:
    return KgCoOp(tiny.clip(), Names(dataset, tiny.NAMES, "a picture of {}.", shots=4), KgCoOp.Config(**config))


def moved(**config) -> KgCoOp:
    """A model whose context has left its start, so that the distance is not small."""
    model = named("oxford_pets", **config)
    model.ctx.data += torch.randn(model.ctx.shape, generator=torch.Generator().manual_seed(3))
    return model


def batch(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 1, 0, 1])[:n]


def test_distance_is_the_mean_over_all_classes_and_no_picture_enters_it():
    model = moved()
    prompts = [f"a photo of a {n.replace('_', ' ')}, a type of pet." for n in tiny.NAMES]
    teacher = tiny.clip().encode_text(prompts)
    want = 1 - F.cosine_similarity(model.text_features(), teacher, eps=1e-7).mean()  # 4 classes, 2 of them in the batch
    assert want > 0.1
    x, labels = batch()
    for part in (slice(None), slice(0, 1)):
        ce, distance = model.losses(x[part], labels[part])
        assert torch.allclose(distance, want, atol=1e-6)
        assert torch.allclose(ce, F.cross_entropy(model.logits(x[part]), labels[part]), atol=1e-6)


@pytest.mark.parametrize("w", [8.0, 0.0, 2.5])
def test_loss_weighs_the_distance(w):
    model = moved(w=w)
    x, labels = batch()
    ce, distance = model.losses(x, labels)
    assert torch.allclose(model.loss(x, labels), ce + w * distance)
    assert KgCoOp.Config().w == 8.0


def test_teacher_changes_no_logit():
    x, models = batch()[0], [moved(), moved(template="a {}.")]
    assert not torch.allclose(models[0].teacher, models[1].teacher)
    assert torch.equal(models[0].logits(x), models[1].logits(x))


def test_a_step_runs_the_text_encoder_once(monkeypatch):
    model, calls = moved(), []
    original = KgCoOp.text_features
    monkeypatch.setattr(KgCoOp, "text_features", lambda self: calls.append(1) or original(self))
    model.train().backward(*batch())
    assert len(calls) == 1 and model.ctx.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("dataset", "template"),
    [
        ("dtd", "a photo of a {}, a type of texture."),  # not CoOp's "{} texture."
        ("toy/dtd", "a photo of a {}, a type of texture."),
        ("DescribableTextures", "a photo of a {}, a type of texture."),
        ("toy/oxford_pets", "a photo of a {}, a type of pet."),
        ("pets", "a photo of a {}, a type of pet."),
        ("flowers102", "a photo of a {}, a type of flower."),
        ("fgvc_aircraft", "a photo of a {}, a type of aircraft."),
        ("food101", "a photo of {}, a type of food."),
        ("EuroSAT", "a centered satellite photo of {}."),
        ("ucf101", "a photo of a person doing {}."),
        ("imagenet", "a photo of a {}."),
        ("my photos", "a picture of {}."),  # the task's own
    ],
)
def test_teacher_template_is_the_authors_and_elsewhere_the_tasks_own(dataset, template):
    model = named(dataset)
    assert model.teacher_template() == template
    assert torch.equal(model.teacher, tiny.clip().zero_shot_weights(tiny.NAMES, template))
    assert named(dataset, template="a {} here.").teacher_template() == "a {} here."


def test_teacher_follows_the_class_list_and_is_in_no_file(tmp_path):
    model = moved()
    assert set(model.state_dict()) == {"ctx"}
    other = ("red panda", "steam_engine")
    loaded = load_method(model.save(tmp_path / "m.safetensors"), tiny.clip())
    assert torch.equal(loaded.teacher, model.teacher)
    loaded.retarget(other)
    want = tiny.clip().zero_shot_weights(other, "a photo of a {}, a type of pet.")
    assert torch.equal(loaded.teacher, want) and loaded.logits(batch()[0]).shape == (5, 2)
    base = fit("kgcoop", tiny.clip(), tiny.task().half("base"), epochs=1, progress=False)
    assert base.teacher.shape == (2, 32)  # only the base classes enter the mean


class Warmup(LRScheduler):
    """The wrapper of the authors' framework: one epoch at a constant, then whatever `after` has set."""

    def __init__(self, optimizer, after, constant=1e-5):
        self.after, self.constant = after, constant
        super().__init__(optimizer)

    def get_lr(self):
        return self.after.get_last_lr() if self.last_epoch >= 1 else [self.constant for _ in self.base_lrs]

    def step(self, epoch=None):
        if self.last_epoch < 1:
            super().step()
        else:
            self.after.step()
            self._last_lr = self.after.get_last_lr()


def scheduled(count: int, epochs: int, peak: float, remembers: bool = True) -> list[float]:
    """Rates of epochs 0..epochs with `count` schedulers, all on one optimiser and all stepped after each epoch.

    `remembers`: a scheduler starts from the optimiser's first rate, as in old versions of PyTorch, not from its present.
    """
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    group, schedulers = optimizer.param_groups[0], []
    for _ in range(count):
        if remembers:
            group["lr"] = peak
        schedulers.append(Warmup(optimizer, CosineAnnealingLR(optimizer, T_max=epochs)))
    rates = []
    for _ in range(epochs + 1):
        rates.append(group["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


@pytest.mark.parametrize("epochs", [2, 7, 100])
def test_squared_cosine_is_what_two_schedulers_on_one_optimiser_do(epochs):
    ours = [squared_cosine_lr(2e-3, j, epochs) for j in range(epochs + 1)]
    assert scheduled(2, epochs, 2e-3) == pytest.approx(ours, rel=1e-9, abs=1e-18)
    assert scheduled(1, epochs, 2e-3) == pytest.approx(
        [coop_lr(2e-3, j, epochs) for j in range(epochs + 1)], rel=1e-9, abs=1e-18
    )


def test_new_pytorch_takes_the_warm_up_for_the_peak_of_the_second_scheduler():
    ours = [squared_cosine_lr(1e-5, j, 100) for j in range(101)]
    assert scheduled(2, 100, 2e-3, remembers=False) == pytest.approx(ours, rel=1e-9)


def test_squared_cosine_ends_where_the_authors_log_ends():
    assert f"{squared_cosine_lr(2e-3, 100, 100):.1e}" == "1.2e-10"  # a printed rate is that of the next epoch
    assert f"{coop_lr(2e-3, 100, 100):.1e}" == "4.9e-07"


def test_schedules_go_by_name_and_the_plain_one_is_the_default():
    def rates(**config):
        model = named("x", epochs=5, **config)
        return [model.lr(step, 10, 2) for step in range(10)]

    assert rates() == rates(schedule="cosine") == [coop_lr(2e-3, e, 5) for e in (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)]
    squared = rates(schedule="squared_cosine")
    assert squared[0] == 1e-5 and squared[2] == 2e-3
    assert squared[4] == pytest.approx(2e-3 * (rates()[4] / 2e-3) ** 2, rel=1e-12)


def test_a_hundred_epochs_of_big_batches_whatever_the_shots():
    config = KgCoOp.Config()
    assert (config.batch_size, config.epochs, config.lr, config.weight_decay) == (128, 100, 0.002, 5e-4)
    for shots in (1, 4, 16):
        model = KgCoOp(tiny.clip(), Names("imagenet", tiny.NAMES, "{}", shots=shots))
        assert model.iterations(per_epoch=3) == 300 and model.drop_last


def test_context_starts_at_the_four_words_unless_it_is_one_per_class():
    model = named("oxford_pets")
    assert torch.equal(model.ctx, tiny.clip().text.embed(tiny.clip().tokenize(["a photo of a"]))[0, 1:5])
    assert named("x", ctx_init="").ctx.shape == (4, 64)
    own = named("x", ctx_init="", csc=True)
    own.train().backward(*batch())
    assert own.ctx.grad.shape == (4, 4, 64)
    assert (own.ctx.grad.flatten(1).norm(dim=1) > 0).all()  # also of the classes that are not in the batch
    with pytest.raises(FewshotError, match="KgCoOp cannot change its classes"):
        own.retarget(("a", "b"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (dict(schedule="squared"), "schedule of kgcoop"),
        (dict(w=-1.0), "w of kgcoop must be 0 or more"),
        (dict(w=float("nan")), "w of kgcoop must be 0 or more"),
        (dict(template="a photo"), "must hold exactly one {}"),
        (dict(W=8.0), "did you mean 'w'"),
    ],
)
def test_a_mistake_in_the_call_is_one_sentence(given, says):
    with pytest.raises(FewshotError, match=says) as caught:
        fit("kgcoop", tiny.clip(), tiny.task(), progress=False, **given)
    assert "\n" not in str(caught.value)
