"""The encoders run on our own terms equal open_clip's, forward and gradient, and refuse where they would not."""

import re

import pytest
import tiny
import torch

from fewshot.clip import Clip, TextTower, VisionTower
from fewshot.errors import FewshotError

PROMPTS = [f"a photo of a {n}." for n in ("forest", "sea or lake", "annual crop land", "black footed albatross", "x")]


@pytest.fixture(scope="module", params=[True, False], ids=["quickgelu", "gelu"])
def clip(request):
    made = Clip.from_state_dict(tiny.config(quick_gelu=request.param), tiny.weights(), "tiny", device="cpu")
    made.model.double()
    return made


def close(a, b, bound=1e-9):
    assert a.shape == b.shape
    assert (a - b).abs().max() <= bound * b.abs().max()


def prompts(clip, lead=(), n=6):
    """Full-length embeddings [*lead, K, 77, w] with n random vectors, equal for all classes, after the first token."""
    tokens = clip.tokenize([" ".join(["X"] * n) + " " + p for p in ("forest.", "sea or lake.", "a b c d e f.")])
    gen = torch.Generator().manual_seed(1)
    ctx = torch.randn(*lead, n, clip.text_width, generator=gen, dtype=torch.float64, requires_grad=True)
    e = clip.text.embed(tokens).expand(*lead, -1, -1, -1)
    rows = ctx.unsqueeze(-3).expand(*lead, len(tokens), -1, -1)
    return ctx, torch.cat((e[..., :1, :], rows, e[..., 1 + n :, :]), dim=-2), clip.text.eot(tokens)


def gradients(features, *inputs):
    weight = torch.randn(features.shape, generator=torch.Generator().manual_seed(3), dtype=features.dtype)
    return torch.autograd.grad((features * weight).sum(), inputs)


@pytest.mark.parametrize("share", [True, False])
def test_cut_and_shared_prompts_equal_open_clip(clip, share):
    tokens = clip.tokenize(PROMPTS)
    close(clip.text.encode_tokens(tokens, share=share), clip.model.encode_text(tokens))


@pytest.mark.parametrize("lead", [(), (3,)], ids=["one context", "a context per image"])
def test_shared_prefix_has_the_features_and_the_gradient_of_the_plain_encoder(clip, lead):
    ctx, embeddings, eot = prompts(clip, lead)
    plain = clip.text.encode(embeddings, eot, fast=False)
    (plain_grad,) = gradients(plain, ctx)
    cut = embeddings[..., : int(eot.max()) + 1, :]
    for shared in (0, 1, 4, 7):
        fast = clip.text.encode(cut, eot, shared)
        close(fast, plain)
        close(gradients(fast, ctx)[0], plain_grad)


def test_deep_prompts_equal_the_plain_encoder(clip):
    ctx, embeddings, eot = prompts(clip)
    gen = torch.Generator().manual_seed(2)
    deep = {i: torch.randn(6, clip.text_width, generator=gen, dtype=torch.float64, requires_grad=True) for i in (1, 2)}
    plain = clip.text.encode(embeddings, eot, deep=deep, fast=False)
    wanted = gradients(plain, ctx, *deep.values())
    for shared in (0, 3, 7):  # 3: a prefix that ends among the deep vectors
        fast = clip.text.encode(embeddings[:, : int(eot.max()) + 1], eot, shared, deep=deep)
        close(fast, plain)
        for got, want in zip(gradients(fast, ctx, *deep.values()), wanted, strict=True):
            close(got, want)


def test_chunks_with_recomputation_change_nothing(clip):
    ctx, embeddings, eot = prompts(clip)
    whole = clip.text.encode(embeddings, eot, 7)
    chunked = clip.text.encode(embeddings, eot, 7, chunk=2)
    close(chunked, whole)
    close(gradients(chunked, ctx)[0], gradients(whole, ctx)[0])


def test_gradient_reaches_every_weight_as_in_open_clip(clip):
    tokens = clip.tokenize(PROMPTS)
    names = [n for n, _ in clip.model.named_parameters() if not n.startswith("visual.") and n != "logit_scale"]
    parameters = [dict(clip.model.named_parameters())[n].requires_grad_() for n in names]
    try:
        wanted = gradients(clip.model.encode_text(tokens), *parameters)
        got = gradients(clip.text.encode_tokens(tokens), *parameters)
    finally:
        clip.model.requires_grad_(False)
    for g, w in zip(got, wanted, strict=True):
        close(g, w)


def test_image_tower_equals_open_clip_forward_and_gradient(clip):
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(4), dtype=torch.float64, requires_grad=True)
    plain, fast = clip.model.encode_image(x), clip.vision.encode(x)
    close(fast, plain)
    close(gradients(fast, x)[0], gradients(plain, x)[0])


def test_visual_prompts_change_the_feature_and_deep_ones_replace_them(clip):
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    first, second = torch.randn(
        2, 3, clip.vision.width, generator=torch.Generator().manual_seed(6), dtype=torch.float64
    )
    tokens = clip.vision.module.ln_pre(torch.cat((clip.vision.embed(x), first.expand(2, -1, -1)), dim=1))
    tokens = clip.model.visual.transformer.resblocks[0](tokens)
    tokens = torch.cat((tokens[:, :-3], second.expand(2, -1, -1)), dim=1)
    for block in clip.model.visual.transformer.resblocks[1:]:
        tokens = block(tokens)
    wanted = clip.model.visual.ln_post(tokens[:, 0]) @ clip.model.visual.proj
    close(clip.vision.encode(x, prompts=first, deep={1: second}), wanted)


def test_a_mask_made_in_inference_mode_serves_training(clip):
    ctx, embeddings, eot = prompts(clip)
    clip.text.masks.clear()
    with torch.inference_mode():
        clip.text.encode(embeddings.detach(), eot, 7)
    gradients(clip.text.encode(embeddings, eot, 7), ctx)


@pytest.mark.parametrize("setting", [dict(no_causal_mask=True), dict(pool_type="last"), dict(embed_cls=True)])
def test_text_towers_that_cannot_be_cut_take_the_plain_path_and_refuse_prompts(setting):
    import open_clip

    made = open_clip.CustomTextCLIP(**tiny.config(**setting))
    clip = Clip(made, "bidirectional", device="cpu")
    assert clip.text is None
    tokens = clip.tokenize(PROMPTS)
    assert torch.equal(clip.encode_text(tokens), made.encode_text(tokens))
    with pytest.raises(FewshotError, match="CoOp needs a causal text encoder"):
        clip.require_text("CoOp")


def test_custom_text_towers_that_are_causal_are_cut():
    import open_clip

    made = open_clip.CustomTextCLIP(**tiny.config())
    clip = Clip(made, "custom text", device="cpu")
    clip.model.double()
    tokens = clip.tokenize(PROMPTS)
    close(clip.text.encode_tokens(tokens), made.encode_text(tokens))


def test_blocks_with_other_attention_are_left_to_open_clip():
    import open_clip

    made = open_clip.model.CLIP(**tiny.config(qk_norm=True))
    assert not TextTower.fits(made)
    assert VisionTower.fits(made.visual)
    resnet = open_clip.model.CLIP(**tiny.config("resnet"))
    assert TextTower.fits(resnet) and not VisionTower.fits(resnet.visual)


def test_the_page_counts_the_positions_of_imagenet():
    """The numbers in book/text_tower.md: positions of 1000 prompts, each to its own end and padded to the longest."""
    from pathlib import Path

    from open_clip import IMAGENET_CLASSNAMES, SimpleTokenizer

    encode = SimpleTokenizer().encode

    def lengths(words):
        return [len(encode(f"{words} {name}.")) + 2 for name in IMAGENET_CLASSNAMES]

    coop, lora = lengths(" ".join(["X"] * 16)), lengths("a photo of a")
    shared = 17 + sum(length - 17 for length in coop), 17 + 1000 * (max(coop) - 17)
    found = [max(coop), *shared, sum(lora), 1000 * max(lora)]
    text = (Path(__file__).parents[1] / "book" / "text_tower.md").read_text()
    said = re.search(
        r"has (\d+) tokens and 17 are shared .*: ([\d,]+) positions instead of 77,000\. Padded .* be ([\d,]+)\. "
        r"CLIP-LoRA, .* runs ([\d,]+) instead of ([\d,]+)\.", text
    )  # fmt: skip
    assert [int(number.replace(",", "")) for number in said.groups()] == found
