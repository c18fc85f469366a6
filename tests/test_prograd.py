"""ProGrad: where its context starts, and what is taken away from a gradient."""

import pytest
import tiny
import torch
import torch.nn.functional as F

from fewshot.clip import Clip
from fewshot.errors import FewshotError
from fewshot.methods.method import Names
from fewshot.methods.prograd import ProGrad, project
from fewshot.training import fit


def named(dataset: str, own: str = "a picture of {}.", shots: int = 4, clip=None, **config) -> ProGrad:
    return ProGrad(clip or tiny.clip(), Names(dataset, tiny.NAMES, own, shots=shots), ProGrad.Config(**config))


def double() -> Clip:
    clip = Clip.from_state_dict(tiny.config(), tiny.weights(), "double", device="cpu")
    clip.model.double()
    return clip


def moved(**given) -> ProGrad:
    """A float64 model whose context has left its start."""
    model = named("oxford_pets", clip=double(), **given).double()
    noise = torch.Generator().manual_seed(3)
    model.ctx.data += 0.3 * torch.randn(model.ctx.shape, generator=noise, dtype=torch.float64)
    return model


def batch(model: ProGrad, conflict: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Features, and labels that pull the scores away from the teacher's; without conflict, towards them."""
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    towards = model.score(x, model.teacher).softmax(dim=1) - model.logits(x).softmax(dim=1)
    return x, (towards.argmin(dim=1) if conflict else towards.argmax(dim=1))


@pytest.mark.parametrize(
    ("dataset", "words", "frozen"),
    [
        ("oxford_pets", "a type of pet, a photo of a", "a"),  # 8 words, 9 tokens: the last one is not learned
        ("toy/oxford_flowers", "a type of flower, a photo of a", "a"),
        ("fgvc_aircraft", "a type of aircraft, a photo of a", "a"),
        ("food101", "a type of food, a photo of", "of"),
        ("eurosat", "a centered satellite photo of", ""),
        ("DescribableTextures", "a texture of", ""),
        ("ucf101", "a photo of a person doing", ""),
        ("imagenet", "a photo of a", ""),
        ("my photos", "a picture of", ""),
    ],
)
def test_context_starts_at_the_template_right_aligned_behind_zeros(dataset, words, frozen):
    clip, model = tiny.clip(), named(dataset)
    q = len(words.split(" "))
    assert model.words() == " ".join(["X"] * (16 - q)) + " " + words
    assert model.ctx.shape == (16, 64) and not model.ctx[: 16 - q].any()  # exactly zero: no noise
    assert torch.equal(model.ctx[16 - q :], clip.text.embed(clip.tokenize([words]))[0, 1 : 1 + q])
    spliced = model.prompts.splice(model.ctx.unsqueeze(-3))
    for row, name in zip(spliced, tiny.NAMES, strict=True):  # from there on the prompt reads like the template
        plain = clip.tokenize([f"{words} {name.replace('_', ' ')}."])[0]
        end = int(clip.text.eot(plain[None])[0])
        assert torch.equal(row[17 - q :][:end], clip.text.embed(plain[1 : 1 + end]))
    first = clip.tokenize([frozen or "annual crop land"])[0, 1]
    assert model.prompts.tokens[0, 17] == first  # what stands right behind the learned vectors


def test_a_task_without_words_before_the_name_starts_at_four_plain_ones():
    model = named("my photos", "{} texture.")
    assert model.first_words() == "a photo of a" and model.teacher_template() == "{} texture."
    assert named("dtd", "{} texture.").teacher_template() == "a texture of {}."
    assert named("my photos", "a photo of a {}, a type of bird.").first_words() == "a photo of a"


def test_noise_and_words_start_as_in_coop():
    noise, words = named("oxford_pets", ctx_init=""), named("oxford_pets", ctx_init="a photo of a")
    assert noise.ctx.shape == (16, 64) and 0.015 < noise.ctx.std() < 0.025
    assert words.ctx.shape == (4, 64) and words.words() == "a photo of a"
    assert named("oxford_pets", ctx_init="", csc=True).ctx.shape == (4, 16, 64)


@pytest.mark.parametrize(
    ("dataset", "shots", "lam"),
    [
        ("oxford_flowers", 16, 0.8),
        ("Flowers102", 8, 0.8),
        ("toy/dtd", 16, 0.8),
        ("EuroSAT", 8, 0.8),
        ("eurosat", 4, 1.0),
        ("oxford_pets", 16, 1.0),
        ("my photos", 8, 1.0),
    ],
)
def test_lam_is_the_authors(dataset, shots, lam):
    assert named(dataset, shots=shots).lam == lam
    assert named(dataset, shots=shots, lam=0.3).lam == 0.3 and named(dataset, lam=0.0).lam == 0


@pytest.mark.parametrize("given", [{}, {"tau": 2.0}, {"chunk": 2}, {"ctx_init": "", "csc": True}])
def test_both_gradients_come_exactly_from_one_run_of_the_text_encoder(given, monkeypatch):
    model = moved(**given).train()
    x, labels = batch(model)
    tau = model.config.tau
    teacher = model.clip.logit_scale * F.normalize(x, dim=1) @ model.teacher.t()  # the same, augmented features
    scores = model.logits(x)
    soft = -((teacher / tau).softmax(1) * (scores / tau).log_softmax(1)).sum(1).mean() * tau**2
    (kl,) = torch.autograd.grad(soft, model.ctx)
    (ce,) = torch.autograd.grad(model.loss(x, labels), model.ctx)
    calls, original = [], ProGrad.text_features
    monkeypatch.setattr(ProGrad, "text_features", lambda self: calls.append(1) or original(self))
    value, g_ce, g_kl = model.gradients(x, labels)
    assert len(calls) == 1
    assert torch.allclose(value, F.cross_entropy(scores, labels), rtol=1e-12)
    assert torch.allclose(model.kl(x, scores), soft, rtol=1e-9)
    assert (g_ce - ce).abs().max() < 1e-10 * ce.abs().max()
    assert (g_kl - kl).abs().max() < 1e-10 * kl.abs().max()


def test_a_conflict_is_taken_away_and_agreement_left_alone():
    kl, ce = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[1.0, 2.0], [5.0, -4.0]])
    cosine = F.cosine_similarity(ce.flatten(), kl.flatten(), dim=0)
    assert cosine < 0
    for lam in (1.0, 0.8, 0.0):
        left = project(ce, kl, lam)
        want = ce - lam * (ce * kl).sum() / (kl * kl).sum() * kl
        assert torch.allclose(left, want, atol=1e-6)
        assert torch.allclose((left * kl).sum(), (1 - lam) * (ce * kl).sum(), atol=1e-5)
        assert torch.equal(project(-ce, kl, lam), -ce)
    assert torch.allclose(project(ce, kl, 1.0), project(ce, 100 * kl, 1.0), atol=1e-6)  # its length does not matter
    assert not torch.allclose(project(ce, kl, 1.0)[0], ce[0])  # one vector: row 0 agrees by itself


def test_without_a_direction_to_keep_to_the_gradient_stays():
    ce = torch.tensor([1.0, -2.0])
    assert torch.equal(project(ce, torch.zeros(2), 1.0), ce)
    assert torch.equal(project(torch.zeros(2), ce, 1.0), torch.zeros(2))


@pytest.mark.parametrize("lam", [1.0, 0.8])
@pytest.mark.parametrize("conflict", [True, False])
def test_a_step_takes_the_projected_gradient_and_reports_the_cross_entropy(lam, conflict):
    model = moved(lam=lam).train()
    x, labels = batch(model, conflict)
    _, g_ce, g_kl = model.gradients(x, labels)
    along = (g_ce * g_kl).sum()
    assert bool(along < 0) == conflict
    value = model.backward(x, labels)
    assert torch.allclose(value, F.cross_entropy(model.logits(x), labels)) and not value.requires_grad
    assert torch.allclose((model.ctx.grad * g_kl).sum(), (1 - lam) * along if conflict else along, atol=1e-9)
    assert torch.equal(model.ctx.grad, g_ce) != conflict


def test_contexts_per_class_are_projected_as_one_vector():
    model = moved(ctx_init="", csc=True, lam=1.0).train()
    x, labels = batch(model)
    _, g_ce, g_kl = model.gradients(x, labels)
    size = (g_ce * g_kl).sum()
    assert size < 0
    model.backward(x, labels)
    left = (model.ctx.grad * g_kl).sum(dim=(1, 2))
    assert left.sum().abs() < 1e-9 * size.abs() and left.abs().max() > 1e-3 * size.abs()


def test_context_and_teacher_follow_other_classes_and_the_file_holds_the_context_alone():
    model = named("oxford_pets")
    assert set(model.state_dict()) == {"ctx"}
    model.retarget(("red panda", "steam_engine"))
    want = tiny.clip().zero_shot_weights(("red panda", "steam_engine"), "a type of pet, a photo of a {}.")
    assert torch.equal(model.teacher, want)
    assert model.prompts.tokens.shape[0] == 2 and model.logits(torch.ones(3, 32)).shape == (3, 2)


def test_training_settings_are_coops():
    config = ProGrad.Config()
    assert (config.n_ctx, config.batch_size, config.lr, config.weight_decay) == (16, 32, 0.002, 5e-4)
    assert [named("x", shots=k).epochs() for k in (1, 2, 4, 8, 16)] == [50, 100, 100, 200, 200]
    assert named("imagenet", shots=16).epochs() == 50 and ProGrad.drop_last


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (dict(lam=-0.1), "prograd needs lam from 0 on"),
        (dict(tau=0.0), "tau above 0"),
        (dict(n_ctx=3), "has more words than n_ctx of prograd"),
        (dict(class_token_position="middle"), "set ctx_init='' .noise. to learn a context at the middle"),
        (dict(template="a photo"), "must hold exactly one {}"),
        (dict(lamb=1.0), "did you mean 'lam'"),
    ],
)
def test_a_mistake_in_the_call_is_one_sentence(given, says):
    with pytest.raises(FewshotError, match=says) as caught:
        fit("prograd", tiny.clip(), tiny.task(), progress=False, **given)
    assert "\n" not in str(caught.value)
