"""CoCoOp: one text classifier per picture, exactly, in bounded memory, and what its settings mean."""

import pytest
import tiny
import torch
import torch.nn.functional as F

from fewshot.clip import Clip, TextTower
from fewshot.errors import FewshotError
from fewshot.methods.cocoop import CoCoOp, linear
from fewshot.methods.method import Names

LONG = ("forest", "black footed albatross or a sea bird", "Grizzly_bear", "café au lait", "x", "sea or lake")


@pytest.fixture(scope="module")
def clip():
    made = Clip.from_state_dict(tiny.config(), tiny.weights(), "double", device="cpu")
    made.model.double()
    return made


def build(clip, names=LONG, **config) -> CoCoOp:
    made = CoCoOp(clip, Names("tiny", tuple(names), "a photo of a {}.", 4), CoCoOp.Config(**config)).double()
    gen = torch.Generator().manual_seed(3)
    for layer in (made.linear1, made.linear2):  # so that both hidden units are at work
        layer.weight.data.copy_(torch.randn(layer.weight.shape, generator=gen))
    made.linear1.bias.data.fill_(1.0)
    return made


def pictures(n: int = 7) -> torch.Tensor:
    return 5 * torch.randn(n, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(model, x: torch.Tensor) -> torch.Tensor:
    """Picture by picture, over all 77 positions, by open_clip's own encoder."""
    clip, rows = model.clip, []
    words = "a photo of a"
    tokens = clip.tokenize([f"{words} {name.replace('_', ' ')}." for name in model.classnames])
    for v in x:
        f = v / v.norm()
        pi = F.relu(f @ model.linear1.weight.t() + model.linear1.bias) @ model.linear2.weight.t() + model.linear2.bias
        e = clip.text.embed(tokens).clone()
        e[:, 1:5] = model.ctx + pi
        t = clip.text.encode(e, clip.text.eot(tokens), fast=False)
        rows.append(clip.logit_scale * (t / t.norm(dim=1, keepdim=True)) @ f)
    return torch.stack(rows)


def gradients(model, scores):
    weight = torch.randn(scores.shape, generator=torch.Generator().manual_seed(2), dtype=scores.dtype)
    return torch.autograd.grad((scores * weight).sum(), list(model.parameters()), retain_graph=True)


def close(got, want, bound=1e-9):
    assert got.shape == want.shape
    assert (got - want).abs().max() <= bound * want.abs().max()


@pytest.mark.parametrize("chunk", [0, 1, 4])
def test_one_batched_call_equals_picture_after_picture(clip, chunk):
    model, x = build(clip, chunk=chunk), pictures()
    want = by_hand(model, x)
    got = model.logits(x)
    close(got, want)
    for a, b in zip(gradients(model, got), gradients(model, want), strict=True):
        close(a, b)
    assert all(b.abs().max() > 0 for b in gradients(model, want))  # the network gets its gradient through the text


def test_the_network_reads_features_of_unit_norm(clip):
    model, x = build(clip), pictures()
    close(model.logits(100 * x), model.logits(x))


def test_each_picture_has_a_classifier_of_its_own(clip):
    model, x = build(clip), pictures(2)
    a, b = model.text_features(F.normalize(x, dim=1))
    assert (a - b).abs().max() > 1e-3 * a.abs().max()
    with torch.no_grad():
        close(model.logits(x)[1:], model.logits(x[1:]))  # nothing is kept from one picture to the next


@pytest.mark.parametrize("most", [2, 6, 13, 10**6])
def test_evaluation_keeps_few_prompts_in_flight_whatever_the_batch(clip, monkeypatch, most):
    model, x, seen = build(clip, max_prompts=most).eval(), pictures(9), []
    want, run = by_hand(model, x), TextTower.run

    def spy(self, prefix, suffix, *args, **kwargs):
        seen.append(len(suffix))
        return run(self, prefix, suffix, *args, **kwargs)

    monkeypatch.setattr(TextTower, "run", spy)
    with torch.no_grad():
        close(model.logits(x), want)
    assert max(seen) <= most and sum(seen) == 9 * len(LONG)


def test_chunks_in_training_keep_little(clip):
    x = pictures(8)

    def kept(chunk: int) -> int:
        model = build(clip, chunk=chunk)
        return tiny.kept(clip, lambda: model.logits(x))[0]

    whole = 8 * build(clip).prompts.embeddings.nbytes  # the input of every prompt of every picture, written out
    assert kept(1) < whole / 2 < kept(0)


def test_meta_network_has_torchs_default_initialisation_from_its_own_generator():
    clip, names = tiny.clip(), Names("tiny", tiny.NAMES, "a photo of a {}.", 4)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    a, b, c = (CoCoOp(clip, names, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a.linear1.weight, b.linear1.weight) and not torch.equal(a.linear1.weight, c.linear1.weight)
    assert a.linear1.weight.shape == (2, 32) and a.linear2.weight.shape == (64, 2)
    assert torch.equal(a.ctx, c.ctx)  # words
    ours, theirs = linear(100, 900, torch.Generator().manual_seed(0)), torch.nn.Linear(100, 900)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert p.shape == q.shape and 0.099 < p.abs().max() <= 0.1
        assert abs(float(p.detach().std() / q.detach().std()) - 1) < 0.1 and abs(float(p.detach().mean())) < 0.01


def test_small_embeddings_keep_one_hidden_unit():
    import open_clip

    made = Clip(open_clip.model.CLIP(**{**tiny.config(), "embed_dim": 8}), "narrow", device="cpu")
    model = CoCoOp(made, Names("tiny", tiny.NAMES, "a photo of a {}.", 4))
    assert model.linear1.weight.shape == (1, 8)


def test_numbers_of_the_paper():
    model = CoCoOp(tiny.clip(), tiny.task(shots=4))
    assert model.learned() == 4 * 64 + (32 + 1) * 2 + (2 + 1) * 64
    assert model.config.batch_size == 1 and model.drop_last
    per_epoch = 16  # 4 shots, 4 classes, one picture at a time
    steps = model.iterations(per_epoch)
    assert steps == 10 * per_epoch
    assert {model.lr(s, steps, per_epoch) for s in range(per_epoch)} == {1e-5}
    assert model.lr(per_epoch, steps, per_epoch) == 0.002
    assert model.lr(steps - 1, steps, per_epoch) == model.lr(steps - per_epoch, steps, per_epoch) > 1e-5
    (group,) = model.optimizer().param_groups
    assert len(group["params"]) == 5 and (group["momentum"], group["weight_decay"]) == (0.9, 5e-4)


def test_random_context_is_small_and_words_decide_the_number():
    random = CoCoOp(tiny.clip(), tiny.task(), CoCoOp.Config(n_ctx=16, ctx_init=""))
    assert random.ctx.shape == (16, 64) and abs(float(random.ctx.detach().std()) - 0.02) < 0.002
    assert CoCoOp(tiny.clip(), tiny.task(), CoCoOp.Config(n_ctx=16)).ctx.shape == (4, 64)


def test_other_classes_get_the_same_context_and_network(clip):
    model, x = build(clip), pictures()
    fresh = build(clip, ("red panda", "steam_engine of old"))
    fresh.load_state_dict(model.state_dict())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert model.retarget(fresh.classnames) is model
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    close(model.logits(x), by_hand(fresh, x))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(n_ctx=0, ctx_init=""), "n_ctx of cocoop must be 1 or more"),
        (dict(max_prompts=0), "max_prompts of cocoop must be 1 or more"),
        (dict(ctx_init="electroencephalography"), "must be a single token"),
    ],
)
def test_settings_that_cannot_be_are_refused(config, message):
    with pytest.raises(FewshotError, match=message):
        CoCoOp(tiny.clip(), tiny.task(), CoCoOp.Config(**config))


def test_text_encoders_that_are_not_causal_are_refused():
    import open_clip

    other = Clip(open_clip.CustomTextCLIP(**tiny.config(no_causal_mask=True)), "bidirectional", device="cpu")
    with pytest.raises(FewshotError, match="CoCoOp needs a causal text encoder"):
        CoCoOp(other, tiny.task())
