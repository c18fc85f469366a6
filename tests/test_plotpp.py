"""PLOT++: what is matched with what, when the iterations stop, and what each stage trains."""

import pytest
import tiny
import torch
import torch.nn.functional as F

from fewshot.clip import unit
from fewshot.errors import FewshotError
from fewshot.evaluation import evaluate
from fewshot.methods import plotpp
from fewshot.methods.method import coop_lr, load_method
from fewshot.methods.plotpp import PLOTpp, paper_templates, plot_logits, pooled_logits, sinkhorn, transport_logits
from fewshot.training import fit


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def draw(*shape, seed=0, std=1.0):
    return std * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def model_of(dataset="tiny", seed=None, **config):
    return PLOTpp(tiny.clip(), tiny.task(name=dataset), PLOTpp.Config(**config), seed=seed)


def pictures(n=6):
    return draw(n, 3, 32, 32, seed=3)


# -- the sets ----------------------------------------------------------------------------------------------------------


def test_a_picture_is_seen_once_per_visual_prompt_and_its_patches_are_embedded_once(monkeypatch):
    model, x, vision = model_of(n_prompts_vision=3), pictures(), tiny.clip().vision
    alone = torch.stack([vision.encode(x, prompts=p) for p in model.ctx_vision])
    embedded, embed = [], vision.embed
    monkeypatch.setattr(vision, "embed", lambda pixels: embedded.append(len(pixels)) or embed(pixels))
    f = model.image_features(x)
    assert f.shape == (3, 6, 32) and torch.allclose(f, alone, atol=1e-5)
    assert embedded == [6]
    with torch.no_grad():  # smaller parts, for the memory
        assert torch.allclose(model.image_features(x), f, atol=1e-5)
        assert embedded == [6, 2, 2, 2]


def test_prompts_of_a_set_follow_the_patches_and_pass_the_first_norm():
    vision, x, p = tiny.clip().vision, pictures(2), draw(5, 2, 64)
    tokens = vision.embed(x)
    for prompts in (p, p[0]):
        got = vision.encode(x, prompts=prompts)
        for m, own in enumerate(prompts.view(-1, 2, 64)):
            y = vision.module.ln_pre(torch.cat((tokens, own.expand(2, -1, -1)), dim=1))
            for block in vision.blocks:
                y = block.module(y)
            want = vision.module.ln_post(y[:, 0]) @ vision.module.proj
            assert torch.allclose(got[m] if prompts.dim() == 3 else got, want, atol=1e-4)


@pytest.mark.parametrize("chunk", [0, 3, 100])
def test_text_features_equal_the_plain_encoder_with_their_gradient(chunk):
    """Templates of five, four, six and five words for five vectors."""
    model = model_of(
        templates=("a photo of a pet", "this is a photo", "a centered satellite photo of a", "X X X X X"), chunk=chunk
    )
    tower, n, names = model.clip.text, model.n, [name.replace("_", " ") for name in tiny.NAMES]
    assert n == 5
    model.ctx.data += draw(*model.ctx.shape, std=0.1)
    tokens = model.clip.tokenize([f"{t} {name}." for t in model.templates for name in names])
    x = tower.embed(tokens)
    x = torch.cat((x[:, :1], model.ctx.repeat_interleave(len(names), dim=0), x[:, 1 + n :]), dim=1)
    plain = tower.encode(x, tower.eot(tokens), fast=False).view(4, len(names), -1)
    features, weight = model.text_features(), draw(4, len(names), 32)
    assert torch.allclose(features, plain, atol=1e-5)
    (got,) = torch.autograd.grad((features * weight).sum(), model.ctx)
    (want,) = torch.autograd.grad((plain * weight).sum(), model.ctx)
    assert torch.allclose(got, want, atol=1e-5 * float(want.abs().max()))


def test_a_longer_template_keeps_its_last_word_and_a_shorter_one_loses_the_first_token_of_the_name():
    word = {w: int(tiny.clip().tokenize([w])[0, 1]) for w in ("of", "a", "forest", ".")}
    eot = tiny.clip().tokenize(["x"]).max()
    frozen = model_of("eurosat").tokens.view(4, 4, -1)[:, 1, 6:]  # behind the five vectors, for "forest"
    assert [row[0] == word["forest"] for row in frozen] == [True, True, False, False]
    assert [int(row[0]) for row in frozen[2:]] == [word["of"], word["a"]]
    model = model_of("imagenet")  # the third template has three words for four vectors
    frozen = model.tokens.view(4, 4, -1)[:, 1, 5:]
    assert [int(row[0]) for row in frozen] == [word["forest"], word["forest"], word["."], word["forest"]]
    table = model.clip.text.embed(torch.tensor([int(eot)]))
    assert torch.equal(model.ctx[2, 3:], table) and not torch.equal(model.ctx[1, 3:], table)


def test_templates_of_a_data_set():
    assert paper_templates("toy/oxford_pets") == paper_templates("pets") == paper_templates("OxfordPets")
    assert paper_templates("DescribableTextures")[0] == "a photo of a texture"
    assert paper_templates("stanford_cars") == paper_templates("my pictures") == plotpp.COMMON
    lengths = {d: model_of(d).ctx.shape[1] for d in ("caltech101", "dtd", "eurosat", "fgvc", "food101", "ucf101")}
    assert lengths == dict(caltech101=4, dtd=5, eurosat=5, fgvc=5, food101=5, ucf101=6)
    model = model_of(n_prompts_text=2, n_prompts_vision=3, n_ctx_vision=5, n_ctx=2)
    assert model.ctx.shape == (2, 2, 64) and model.ctx_vision.shape == (3, 5, 64)
    assert abs(float(model_of(n_ctx_vision=50).ctx_vision.detach().std()) - 0.02) < 0.001


def test_prompts_that_start_equal_stay_equal():
    model = fit("plotpp", tiny.clip(), tiny.task(name="oxford_pets"), progress=False, iterations=3, lr=0.1)
    moved = (model.ctx - model_of("oxford_pets").ctx).abs().max()
    assert moved > 1e-3 and (model.ctx[1] - model.ctx[3]).abs().max() < 1e-5 * moved
    assert (model.ctx[0] - model.ctx[2]).abs().max() > 0.1


# -- the transport -----------------------------------------------------------------------------------------------------


def kernels():
    """Eight pairs that nearly agree with the marginals, and two that do not."""
    easy, hard = draw(8, 3, 4, std=0.01), draw(2, 3, 4, seed=1, std=0.3)
    return torch.exp(-(0.8 - torch.cat((easy, hard))) / 0.1)


def test_columns_of_a_plan_sum_exactly_and_rows_nearly():
    plan, count = sinkhorn(kernels())
    assert 1 < count < 100
    assert (plan.sum(-2) - 1 / 4).abs().max() < 1e-6
    off = (plan.sum(-1) - 1 / 3).abs().max()
    assert 1e-6 < off < 0.01  # the rows were set first, and the columns after them
    exact, most = sinkhorn(kernels().double(), 1000, 1e-12)
    assert most < 1000 and (exact.sum(-1) - 1 / 3).abs().max() < 1e-10


def test_one_test_on_the_mean_stops_all_problems_of_a_call():
    together, first = sinkhorn(kernels())
    alone, second = sinkhorn(kernels()[8:])
    assert first < second
    assert (together[8:] - alone).abs().max() > 1e-4
    exact, _ = sinkhorn(kernels().double(), 1000, 1e-12)
    assert (alone - exact[8:]).abs().max() < (together[8:] - exact[8:]).abs().max()


def test_the_stop_is_tested_after_both_updates_and_counts_every_change():
    kernel, r, c = kernels(), torch.ones(10, 3), torch.ones(10, 4)
    count, change = 0, 1.0
    while change >= 0.01:
        old, r = r, (1 / 3) / torch.einsum("bmn,bn->bm", kernel, c)
        c = (1 / 4) / torch.einsum("bmn,bm->bn", kernel, r)
        count, change = count + 1, (r - old).abs().mean()
    plan, ours = sinkhorn(kernel)
    assert ours == count
    assert torch.allclose(plan, torch.einsum("bm,bmn,bn->bmn", r, kernel, c), atol=1e-7)
    assert sinkhorn(kernel, 3)[1] == 3
    assert sinkhorn(kernel, 100, 1e9)[1] == 1
    seldom, same = sinkhorn(kernel, look=7)  # as on a GPU: iterations made too many change nothing
    assert same == count and torch.equal(seldom, plan)


def test_the_score_is_the_sum_over_the_plan_and_the_plan_is_a_constant():
    f, t = draw(3, 5, 32).requires_grad_(), draw(4, 6, 32, seed=1)
    logits = transport_logits(f, t, 30.0)
    sim = torch.einsum("mbd,ncd->bcmn", F.normalize(f, dim=-1), F.normalize(t, dim=-1))
    plan, _ = sinkhorn(torch.exp((sim.detach() - 1) / 0.1))
    want = 30 * (plan * sim).sum((-1, -2))
    assert logits.shape == (5, 6) and torch.allclose(logits, want, atol=1e-5)
    (got,), (constant,) = torch.autograd.grad(logits.sum(), f), torch.autograd.grad(want.sum(), f)
    assert torch.allclose(got, constant, atol=1e-5)
    assert not torch.allclose(logits, 30 * sim.mean((-1, -2)), atol=1e-2)  # the uniform plan is another score


def test_the_pooled_feature_is_a_mean_taken_before_normalising():
    f, t = draw(3, 5, 32) * torch.tensor([1.0, 5.0, 25.0])[:, None, None], draw(4, 6, 32, seed=1)
    late = 30 * F.normalize(f.mean(0), dim=1) @ F.normalize(t.mean(0), dim=1).t()
    early = 30 * unit(unit(f).mean(0)) @ unit(unit(t).mean(0)).t()
    assert torch.allclose(pooled_logits(f, t, 30.0), late, atol=1e-5)
    assert not torch.allclose(late, early, atol=0.1)


@pytest.mark.parametrize("kernel", [torch.zeros(2, 3, 4), torch.full((2, 3, 4), float("nan"))])
def test_a_plan_that_is_not_a_number_is_refused_in_one_sentence(kernel):
    with pytest.raises(
        FewshotError, match="transport plan of PLOT.. is not a number.*lower lr, or raise eps"
    ) as caught:
        sinkhorn(kernel)
    assert "\n" not in str(caught.value)


def test_the_first_plot_matches_local_features_and_adds_the_global_one_where_asked():
    tokens, t = draw(1 + 9, 5, 32), draw(4, 6, 32, seed=1)
    local = transport_logits(tokens[1:], t, 30.0)
    assert torch.equal(plot_logits(tokens, t, 30.0), local)
    glob = 30 * F.normalize(tokens[0], dim=1) @ F.normalize(t.mean(0), dim=1).t()
    assert torch.allclose(plot_logits(tokens, t, 30.0, add_global=True), local + glob, atol=1e-5)


# -- the stages --------------------------------------------------------------------------------------------------------


def record(monkeypatch, **config):
    """The model, and per step: stage's trade-off, learning rate, both parameters before it, momentum kept or not."""
    steps, backward, optimizer, lr = [], PLOTpp.backward, PLOTpp.optimizer, PLOTpp.lr
    made, rates = [], []

    def spy(self, x, labels):
        before = (self.ctx.detach().clone(), self.ctx_vision.detach().clone())
        steps.append((self.pooled, *before, len(made[-1].state), x.clone()))
        return backward(self, x, labels)

    monkeypatch.setattr(PLOTpp, "backward", spy)
    monkeypatch.setattr(PLOTpp, "optimizer", lambda self: made.append(optimizer(self)) or made[-1])
    monkeypatch.setattr(PLOTpp, "lr", lambda self, *a: rates.append(lr(self, *a)) or rates[-1])
    model = fit("plotpp", tiny.clip(), tiny.task(), progress=False, **config)
    return model, steps, rates, made


def test_visual_prompts_train_first_and_both_kinds_after_them(monkeypatch):
    model, steps, rates, made = record(monkeypatch, epochs=3, batch_size=6, lr=0.1)
    start = model_of()
    assert [s[0] for s in steps] == [True] * 6 + [False] * 6  # the pooled term in the first stage only
    assert all(torch.equal(s[1], start.ctx) for s in steps[:7])  # weight decay must not touch it either
    assert not torch.equal(steps[7][1], start.ctx)
    assert torch.equal(steps[0][2], start.ctx_vision) and not torch.equal(steps[6][2], start.ctx_vision)
    assert not torch.equal(steps[7][2], steps[6][2])
    assert len(made) == 2 and [s[3] for s in steps] == [
        0,
        1,
        1,
        1,
        1,
        1,
        0,
        2,
        2,
        2,
        2,
        2,
    ]  # no momentum is carried over
    assert rates == 2 * [coop_lr(0.1, e, 3) for e in (0, 0, 1, 1, 2, 2)]
    assert len(model.history) == 2
    assert model.ctx.requires_grad and model.ctx_vision.requires_grad and not model.pooled


def test_every_seed_runs_its_own_first_stage(monkeypatch):
    with monkeypatch.context() as patch:
        _, one, _, _ = record(patch, iterations=2)
    with monkeypatch.context() as patch:
        _, two, _, _ = record(patch, iterations=2, seed=2)
    assert not torch.equal(one[0][2], two[0][2])  # other initial visual prompts, and another first stage
    assert not torch.equal(one[2][2], two[2][2])


def test_text_features_are_computed_once_in_the_first_stage_and_once_in_an_evaluation(monkeypatch):
    calls, original = [], PLOTpp.text_features
    monkeypatch.setattr(PLOTpp, "text_features", lambda self: calls.append(1) or original(self))
    model = fit("plotpp", tiny.clip(), tiny.task(), progress=False, iterations=3)
    assert len(calls) == 1 + 3
    evaluate(model, tiny.task().test, batch_size=10)
    assert len(calls) == 1 + 3 + 1


def test_evaluation_is_by_transport_alone_also_after_loading(tmp_path):
    model, x = fit("plotpp", tiny.clip(), tiny.task(), progress=False, iterations=3, lr=0.1), pictures()
    loaded = load_method(model.save(tmp_path / "plotpp.safetensors"), tiny.clip())
    with torch.no_grad():
        want = transport_logits(model.image_features(x), model.text_features(), model.clip.logit_scale)
        assert torch.allclose(model.logits(x), want, atol=1e-5)
        assert torch.allclose(loaded.logits(x), want, atol=1e-5)
        model.begin("vision")
        f, t = model.image_features(x), model.text_features()
        assert torch.allclose(model.logits(x) - want, pooled_logits(f, t, model.clip.logit_scale), atol=1e-4)
        model.set_classes(("red panda", "steam engine"))  # constant text features belong to their classes
        assert model.logits(x).shape == (6, 2)


def test_a_plan_depends_on_the_call_and_hardly_on_clip_like_features():
    """The stop test is shared: scores of a batch and of its parts agree closely where cosines are alike."""
    model = fit("plotpp", tiny.clip(), tiny.task(), progress=False, iterations=3, lr=0.1)
    x = pictures(12)
    with torch.no_grad():
        parts = torch.cat([model.logits(p) for p in x.split(4)])
        assert torch.allclose(model.logits(x), parts, rtol=1e-4, atol=1e-4)


def test_epochs_are_those_of_each_stage():
    def epochs(shots, dataset="tiny"):
        return PLOTpp(tiny.clip(), tiny.task(shots=shots, name=dataset)).epochs()

    assert [epochs(k) for k in (1, 2, 4, 8)] == [50, 100, 100, 200] and epochs(8, "imagenet") == 50
    config = PLOTpp.Config()
    assert (config.lr, config.weight_decay, config.batch_size, PLOTpp.drop_last) == (0.002, 5e-4, 32, True)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (dict(n_prompts_vision=0), "n_prompts_vision of plotpp must be 1 or more"),
        (dict(n_ctx=0), "n_ctx of plotpp must be 1 or more"),
        (dict(eps=0.0), "eps of plotpp must be above 0"),
        (dict(templates=("a photo of a",)), "a template for each of its 4 text prompts and has 1; .*lower n_prompts_text"),
        (dict(n_prompts_text=5), "has 4; give as many templates"),
        (dict(n_ctx=7), "the prompt 'a photo of a forest.' ends within the 7 learned vectors .* smaller n_ctx"),
        (dict(lr=1e30), "transport plan of PLOT.. is not a number|loss of PLOT.. is not finite"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_settings_is_one_sentence(given, says):
    with pytest.raises(FewshotError, match=says) as caught:
        fit("plotpp", tiny.clip(), tiny.task(), progress=False, **{"iterations": 3, **given})
    assert "\n" not in str(caught.value)


def test_a_resnet_and_a_text_encoder_that_is_not_causal_are_refused():
    import open_clip

    from fewshot.clip import Clip

    with pytest.raises(FewshotError, match="PLOT.. works on the blocks of a vision transformer"):
        PLOTpp(tiny.clip("resnet"), tiny.task("resnet"))
    clip = Clip(open_clip.CustomTextCLIP(**tiny.config(no_causal_mask=True)), "bidirectional", device="cpu")
    with pytest.raises(FewshotError, match="PLOT.. needs a causal text encoder"):
        PLOTpp(clip, tiny.task())
