"""MaPLe: which tokens are learned, at which blocks they enter, and where the visual ones stand."""

from functools import cache

import pytest
import tiny
import torch

from fewshot.clip import Clip
from fewshot.errors import FewshotError
from fewshot.methods.maple import MaPLe
from fewshot.methods.method import Names, load_method
from fewshot.prompts import word_context


@cache
def unlike() -> Clip:
    """Encoders of different widths and depths (text 96 and 4, vision 64 and 3), in float64."""
    shape = dict(width=96, heads=3, layers=4)
    clip = Clip.from_state_dict(tiny.config(**shape), tiny.weights(**shape), "unlike", device="cpu")
    clip.model.double()
    return clip


def task(classnames=tiny.NAMES, template="a photo of a {}.") -> Names:
    return Names("x", tuple(classnames), template, shots=4)


def made(clip=None, seed=1, **config) -> MaPLe:
    """A model none of whose levels is like another."""
    model = MaPLe(clip or tiny.clip(), task(), MaPLe.Config(**{"prompt_depth": 2, **config}), seed=seed)
    gen = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data = 0.2 * torch.randn(p.shape, generator=gen)
    return model.eval()


def pixels(n=3, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(9)).to(dtype)


def plain_text(model: MaPLe, tokens: torch.Tensor) -> torch.Tensor:
    """All 77 positions through open_clip's own blocks, new vectors written over positions 1..n."""
    m, n = model.clip.model, model.config.n_ctx
    x = m.token_embedding(tokens)
    x = torch.cat((x[:, :1], model.ctx[0].expand(len(x), -1, -1), x[:, 1 + n :]), dim=1) + m.positional_embedding
    for j, block in enumerate(m.transformer.resblocks):
        if 0 < j < model.config.prompt_depth:
            x = torch.cat((x[:, :1], model.ctx[j].expand(len(x), -1, -1), x[:, 1 + n :]), dim=1)
        x = block(x, attn_mask=m.attn_mask)
    return m.ln_final(x)[torch.arange(len(x)), tokens.argmax(dim=-1)] @ m.text_projection


def plain_image(model: MaPLe, x: torch.Tensor) -> torch.Tensor:
    v, n = model.clip.model.visual, model.config.n_ctx
    visual = [p @ w.t() + b for p, w, b in zip(model.ctx, model.weight, model.bias, strict=True)]
    x = v.conv1(x).flatten(2).transpose(1, 2)
    x = torch.cat((v.class_embedding.expand(len(x), 1, -1), x), dim=1) + v.positional_embedding
    x = v.ln_pre(torch.cat((x, visual[0].expand(len(x), -1, -1)), dim=1))
    for j, block in enumerate(v.transformer.resblocks):
        if 0 < j < model.config.prompt_depth:
            x = torch.cat((x[:, :-n], visual[j].expand(len(x), -1, -1)), dim=1)
        x = block(x)
    return v.ln_post(x[:, 0]) @ v.proj


@pytest.mark.parametrize(("n", "chunk"), [(1, 0), (2, 0), (2, 3), (4, 0), (6, 0)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_both_encoders_equal_plain_ones_at_every_depth_with_their_gradient(depth, n, chunk):
    clip = unlike()
    model = made(clip, prompt_depth=depth, n_ctx=n, chunk=chunk).double()
    words = "a photo of a" if n <= 4 else "X X X X X X"
    tokens = clip.tokenize([f"{words} {name.replace('_', ' ')}." for name in tiny.NAMES])
    x = pixels(dtype=torch.float64)
    for got, want in (
        (model.text_features(), plain_text(model, tokens)),
        (model.image_features(x), plain_image(model, x)),
    ):
        weight = torch.randn(want.shape, generator=torch.Generator().manual_seed(2), dtype=want.dtype)
        assert got.shape == want.shape and (got - want).abs().max() < 1e-9 * want.abs().max()
        parameters = list(model.parameters())
        wanted = torch.autograd.grad((want * weight).sum(), parameters, allow_unused=True)
        grads = torch.autograd.grad((got * weight).sum(), parameters, allow_unused=True)
        for a, b in zip(grads, wanted, strict=True):
            assert (a is None) == (b is None)
            assert a is None or (a - b).abs().max() < 1e-9 * b.abs().max()


def test_only_the_first_words_are_learned_and_of_a_stays():
    """The untrained text side at depth 1 is the sentence itself, whatever the template of the data set."""
    clip = tiny.clip()
    model = MaPLe(clip, task(template="a {} here."), MaPLe.Config(prompt_depth=1)).eval()
    assert model.ctx.shape == (1, 2, 64) and torch.equal(model.ctx[0], word_context(clip, "a photo"))
    with torch.no_grad():
        text = torch.nn.functional.normalize(model.text_features(), dim=1)
    assert torch.allclose(text, clip.zero_shot_weights(tiny.NAMES, "a photo of a {}."), atol=1e-5)
    with torch.no_grad():
        model.ctx.neg_()
        moved = torch.nn.functional.normalize(model.text_features(), dim=1)
    assert not torch.allclose(moved, text, atol=1e-2)


def test_the_fixed_words_are_part_of_the_shared_prefix(monkeypatch):
    model, seen = made(), []
    run = type(model.clip.text).run
    monkeypatch.setattr(
        type(model.clip.text), "run", lambda self, p, s, *a, **k: seen.append(p.shape) or run(self, p, s, *a, **k)
    )
    model.text_features()
    assert set(seen) == {(1, 5, 64)}  # start of text, two vectors, of, a: once, not once per class


@pytest.mark.parametrize("config", [dict(n_ctx=5), dict(n_ctx=2, ctx_init="")])
def test_more_than_four_vectors_or_no_words_start_at_random_in_front_of_the_name(config):
    clip = tiny.clip()
    model = MaPLe(clip, task(), MaPLe.Config(prompt_depth=2, **config))
    n = config["n_ctx"]
    assert 0.014 < float(model.ctx.detach()[0].std()) < 0.026
    tokens = clip.tokenize([" ".join("X" * n) + f" {name.replace('_', ' ')}." for name in tiny.NAMES])
    assert torch.equal(model.prompts.tokens, tokens[:, : model.prompts.tokens.shape[1]])
    assert model.prompts.shared == 1 + n


def test_the_deep_projections_start_as_copies_and_the_first_has_its_own():
    clip = unlike()
    model = MaPLe(clip, task(), MaPLe.Config(prompt_depth=3))
    assert model.ctx.shape == (3, 2, 96) and model.weight.shape == (3, 64, 96) and model.bias.shape == (3, 64)
    assert torch.equal(model.weight[1], model.weight[2]) and torch.equal(model.bias[1], model.bias[2])
    assert not torch.equal(model.weight[0], model.weight[1]) and not torch.equal(model.bias[0], model.bias[1])
    assert not torch.equal(model.ctx[1], model.ctx[2]) and abs(float(model.ctx.detach()[1:].std()) - 0.02) < 0.003
    for p in (model.weight, model.bias):  # U(-1/sqrt(96), 1/sqrt(96)), as torch.nn.Linear
        assert 0.9 * 96**-0.5 < float(p.detach().abs().max()) <= 96**-0.5
        assert abs(float(p.detach().mean())) < 0.02
    assert torch.equal(MaPLe(clip, task(), model.config).weight, model.weight)
    assert not torch.equal(MaPLe(clip, task(), model.config, seed=2).weight, model.weight)


def test_count_of_the_paper():
    """3,555,072 numbers for ViT-B/16 (widths 512 and 768), two vectors and nine levels."""

    def count(levels, n, text, vision):
        return levels * (n * text + text * vision + vision)

    for depth in (1, 3):
        assert made(unlike(), prompt_depth=depth).learned() == count(depth, 2, 96, 64)
    assert count(9, 2, 512, 768) == 3_555_072


def test_a_file_holds_nothing_but_prompts_and_projections(tmp_path):
    from safetensors.torch import load_file

    model = made()
    path = model.save(tmp_path / "maple.safetensors")
    assert {k: tuple(v.shape) for k, v in load_file(path).items()} == {
        "ctx": (2, 2, 64), "weight": (2, 64, 64), "bias": (2, 64)
    }  # fmt: skip
    loaded = load_method(path, tiny.clip()).retarget(("red panda", "steam_engine", "tea"))
    fresh = MaPLe(tiny.clip(), task(("red panda", "steam_engine", "tea")), model.config).eval()
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(loaded.logits(pixels()), fresh.logits(pixels()))


def test_text_features_are_computed_once_for_a_whole_evaluation(monkeypatch):
    model, calls = made(), []
    original = MaPLe.text_features
    monkeypatch.setattr(MaPLe, "text_features", lambda self: calls.append(1) or original(self))
    with torch.no_grad():
        for _ in range(3):
            model.logits(pixels())
        assert len(calls) == 1
        model.ctx.add_(0.1)
        model.logits(pixels())
    assert len(calls) == 2


def test_no_weight_of_the_clip_and_no_pixel_is_in_the_graph():
    """What comes before the first prompt needs no gradient: nothing of it is kept for the backward pass."""
    model, kept = made().train(), []
    v = model.clip.model.visual
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        model.image_features(pixels())
    assert tuple(v.conv1.weight.shape) not in {tuple(s) for s in kept}
    assert not model.clip.vision.embed(pixels()).requires_grad
    model.backward(pixels(), torch.tensor([0, 1, 2]))
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad is None for p in model.clip.model.parameters())


def test_training_is_the_base_to_new_protocol():
    model = made(prompt_depth=1)
    group = model.optimizer().param_groups[0]
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 5e-4, False)
    c = MaPLe.Config()
    assert (c.n_ctx, c.ctx_init, c.prompt_depth, c.batch_size, c.lr) == (2, "a photo of a", 9, 4, 0.0035)
    assert model.drop_last and model.iterations(per_epoch=7) == 35
    lrs = [model.lr(step, 35, 7) for step in range(0, 35, 7)]
    assert lrs == pytest.approx([1e-5, 0.0035, 0.00316578, 0.00229078, 0.00120922], abs=5e-9)
    assert model.lr(13, 35, 7) == lrs[1]  # once per epoch


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (dict(prompt_depth=4), "prompt_depth of maple must be from 1 to 3, the number of blocks of the shallower"),
        (dict(prompt_depth=0), "prompt_depth of maple must be from 1 to 3"),
        (dict(n_ctx=0), "n_ctx of maple must be 1 or more"),
        (dict(n_ctx=3, ctx_init="a photo"), "'a photo' are fewer than the 3 vectors of maple"),
        (dict(ctx_init="a photomicrograph of a"), "must be a single token"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, says):
    with pytest.raises(FewshotError, match=says) as caught:
        MaPLe(unlike(), task(), MaPLe.Config(**{"prompt_depth": 2, **given}))
    assert "\n" not in str(caught.value)


def test_a_text_encoder_that_is_not_causal_is_refused():
    import open_clip

    clip = Clip(open_clip.CustomTextCLIP(**tiny.config(no_causal_mask=True)), "bidirectional", device="cpu")
    with pytest.raises(FewshotError, match="MaPLe needs a causal text encoder"):
        MaPLe(clip, task())
