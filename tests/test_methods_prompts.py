"""Where learned vectors stand, and that sharing their prefix changes nothing."""

import pytest
import tiny
import torch

from fewshot.clip import Clip
from fewshot.errors import FewshotError
from fewshot.methods.coop import CoOp
from fewshot.prompts import Prompts, word_context


@pytest.mark.parametrize(("position", "n"), [(p, n) for p in ("end", "middle", "front") for n in (1, 4, 5)])
def test_vectors_stand_where_the_method_puts_them(position, n):
    clip, names = tiny.clip(), ("forest", "sea or lake", "Black_footed albatross")
    prompts = Prompts(clip, names, n, position)
    context = torch.arange(1.0, n + 1)[:, None].expand(n, clip.text_width) * 1000
    spliced = prompts.splice(context.unsqueeze(-3))
    for row, name in zip(spliced, names, strict=True):
        at = [int(v / 1000) if v >= 1000 else 0 for v in row[:, 0].tolist()]
        length = int(clip.text.eot(clip.tokenize([name.replace("_", " ")]))[0]) - 1
        before = {"end": n, "middle": n // 2, "front": 0}[position]
        ids = list(range(1, n + 1))
        rest = len(at) - 1 - n - length
        assert at == [0, *ids[:before], *[0] * length, *ids[before:], *[0] * rest]
        kept = row[[i for i, v in enumerate(at) if v == 0]]  # the frozen tokens, in their order
        plain = clip.tokenize([" ".join(["X"] * n) + f" {name.replace('_', ' ')}."])[0, : len(at)]
        frozen = torch.cat((plain[:1], plain[1 + n :]))
        assert torch.equal(kept, clip.text.embed(frozen))


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("kind", ["shared", "per image", "per class"])
def test_features_equal_the_plain_encoder_with_their_gradient(position, kind):
    clip = Clip.from_state_dict(tiny.config(), tiny.weights(), "double", device="cpu")
    clip.model.double()
    prompts = Prompts(clip, tiny.NAMES, 5, position)
    shape = {"shared": (5, 64), "per image": (3, 5, 64), "per class": (4, 5, 64)}[kind]
    ctx = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    own = kind == "per class"
    spliced = prompts.splice(ctx if own else ctx.unsqueeze(-3))
    plain = clip.text.encode(spliced, prompts.eot, fast=False)
    weight = torch.randn(plain.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (wanted,) = torch.autograd.grad((plain * weight).sum(), ctx)
    for chunk in (0, 3):
        fast = prompts.features(ctx, own=own, chunk=chunk)
        (grad,) = torch.autograd.grad((fast * weight).sum(), ctx)
        assert (fast - plain).abs().max() < 1e-9 * plain.abs().max()
        assert (grad - wanted).abs().max() < 1e-9 * wanted.abs().max()


def test_words_are_the_embeddings_of_their_tokens_and_decide_the_number():
    clip = tiny.clip()
    model = CoOp(clip, tiny.task(), CoOp.Config(n_ctx=16, ctx_init="a_photo of a", csc=True))
    assert model.ctx.shape == (4, 64)  # word initialisation overrides both n_ctx and csc
    assert torch.equal(model.ctx, word_context(clip, "a photo of a"))
    zero_shot = clip.zero_shot_weights(tiny.NAMES, "a photo of a {}.")
    with torch.no_grad():
        features = model.eval().text_features()
    assert torch.allclose(torch.nn.functional.normalize(features, dim=1), zero_shot, atol=1e-5)


def test_contexts_are_drawn_small_and_from_the_seed():
    clip, task = tiny.clip(), tiny.task()
    a, b, c = (CoOp(clip, task, seed=s).ctx for s in (1, 1, 2))
    assert a.shape == (16, 64) and torch.equal(a, b) and not torch.equal(a, c)
    assert abs(float(a.std()) - 0.02) < 0.002
    assert CoOp(clip, task, CoOp.Config(csc=True)).ctx.shape == (4, 16, 64)


def test_text_features_are_computed_once_for_a_whole_evaluation(monkeypatch):
    model, calls = CoOp(tiny.clip(), tiny.task()).eval(), []
    original = CoOp.text_features
    monkeypatch.setattr(CoOp, "text_features", lambda self: calls.append(1) or original(self))
    with torch.no_grad():
        for _ in range(3):
            model.logits(torch.ones(2, 32))
        assert len(calls) == 1
        model.ctx.add_(1)
        model.logits(torch.ones(2, 32))
        assert len(calls) == 2
        model.retarget(("a", "b"))
        assert model.logits(torch.ones(2, 32)).shape == (2, 2)
    assert len(calls) == 3


def test_prompts_on_a_text_encoder_that_is_not_causal_are_refused():
    import open_clip

    clip = Clip(open_clip.CustomTextCLIP(**tiny.config(no_causal_mask=True)), "bidirectional", device="cpu")
    with pytest.raises(FewshotError, match="CoOp needs a causal text encoder .* that of bidirectional is not"):
        CoOp(clip, tiny.task())
