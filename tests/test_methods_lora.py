"""LoRA applied from outside: the same as editing the weights, and nothing is edited."""

import copy

import pytest
import tiny
import torch

from fewshot import lora
from fewshot.clip import Clip
from fewshot.errors import FewshotError
from fewshot.methods.clip_lora import CLIPLoRA, layers_at
from fewshot.methods.zero_shot import ZeroShot


def made(clip=None, task=None, seed=1, **config):
    model = CLIPLoRA(clip or tiny.clip(), task or tiny.task(), CLIPLoRA.Config(**config), seed=seed)
    gen = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=gen)
    return model.eval()


def pixels(dtype=torch.float32):
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(9)).to(dtype)


@pytest.mark.parametrize("params", [("q", "k", "v"), ("q", "k", "v", "o"), ("v",), ("q", "o"), ("k", "v")])
def test_branch_and_merged_weights_equal_a_model_whose_weights_were_edited(params):
    clip = Clip.from_state_dict(tiny.config(), tiny.weights(), "double", device="cpu")
    clip.model.double()
    model = made(clip, params=params, r=3, alpha=2.0, dropout=0.0).double()
    assert model.text.scale == 2 / 3**0.5
    edited = copy.deepcopy(clip.model)
    for side, blocks in (("text", edited.transformer.resblocks), ("vision", edited.visual.transformer.resblocks)):
        own = getattr(model, side)
        for i, block in enumerate(blocks):
            for j, name in enumerate(own.matrices):
                delta = own.scale * own.B[i, j].detach() @ own.A[i, j].detach()
                if name == "o":
                    block.attn.out_proj.weight += delta
                else:
                    at = "qkv".index(name) * 64
                    block.attn.in_proj_weight[at : at + 64] += delta
    x, tokens = pixels(torch.float64), clip.tokenize([f"a photo of a {n.replace('_', ' ')}." for n in tiny.NAMES])
    want = 100 * torch.nn.functional.normalize(edited.encode_image(x), dim=1)
    want = want @ torch.nn.functional.normalize(edited.encode_text(tokens), dim=1).t()
    with torch.no_grad():
        merged = model.logits(x)
    branch = model.logits(x)
    model.train()  # without dropout the training path shares the prefix as well
    for got in (merged, branch, model.logits(x)):
        assert (got - want).abs().max() < 1e-9 * want.abs().max()


def test_a_new_lora_changes_nothing_and_draws_a_in_its_bounds():
    model = CLIPLoRA(tiny.clip(), tiny.task(), CLIPLoRA.Config(dropout=0.0))
    plain = ZeroShot(tiny.clip(), tiny.task(), ZeroShot.Config(templates="photo"))
    want = plain.logits(tiny.clip().encode_image(pixels()))
    with torch.no_grad():
        assert torch.allclose(model.eval().logits(pixels()), want, atol=1e-4)
    assert torch.allclose(model.train().logits(pixels()), want, atol=1e-4)
    a = model.text.A.detach()
    assert a.shape == (3, 3, 2, 64) and not model.text.B.any()
    assert 0.9 / 8 < a.abs().max() <= 1 / 8 and abs(float(a.mean())) < 0.01


def test_many_loras_live_on_one_clip_and_removing_them_is_dropping_them():
    clip = tiny.clip()
    before, plain = clip.state_hash(), clip.encode_image(pixels())
    first, second = made(seed=1), made(seed=2)
    with torch.no_grad():
        one, two = first.logits(pixels()), second.logits(pixels())
        assert not torch.allclose(one, two)
        first.train()
        first.loss(pixels(), torch.tensor([0, 1, 2]))
        assert torch.equal(first.eval().logits(pixels()), one)
    del first, second
    assert torch.equal(clip.encode_image(pixels()), plain)
    assert clip.state_hash() == before


def test_evaluation_after_more_training_uses_the_new_weights():
    model = made()
    with torch.no_grad():
        before = model.logits(pixels())
    model.train()
    optimizer = model.optimizer()
    model.backward(pixels(), torch.tensor([0, 1, 2]))
    optimizer.step()
    model.eval()
    with torch.no_grad():
        after = model.logits(pixels())
        model.text.B.add_(0.1)  # also without a change of mode
        later = model.logits(pixels())
    assert not torch.equal(before, after) and not torch.equal(after, later)


@pytest.mark.parametrize("dropout", [0.25, 0.5, 0.3])
def test_dropout_masks_have_the_right_share_and_are_independent(dropout):
    torch.manual_seed(0)
    masks = lora.keep(3, torch.empty(500, 200), dropout)
    assert masks.shape == (3, 500, 200) and set(masks.unique().tolist()) == {0.0, 1.0}
    for mask in masks:
        assert abs(float(mask.mean()) - (1 - dropout)) < 0.006
    together = float((masks[0] * masks[1]).mean())
    assert abs(together - (1 - dropout) ** 2) < 0.006
    neighbours = float((masks[0, :, 1:] * masks[0, :, :-1]).mean())
    assert abs(neighbours - (1 - dropout) ** 2) < 0.006


def test_dropout_is_unbiased_and_off_in_evaluation():
    model = made(dropout=0.25, encoder="text", position="top1", params=("v",))
    block, tower = model.clip.text.blocks[-1], model.text
    h = torch.randn(40, 5, 64, generator=torch.Generator().manual_seed(3))
    (want,) = tower.adapters()[-1].project(h, block.attn, "kv")[1:]
    model.train()
    torch.manual_seed(0)
    with torch.no_grad():
        draws = torch.stack([tower.adapters()[-1].project(h, block.attn, "kv")[1] for _ in range(400)])
    spread = draws.std(0) / 20
    assert (draws.mean(0) - want).abs().max() < 6 * spread.max()
    assert spread.max() > 0


def test_every_row_has_a_mask_of_its_own_so_the_prefix_is_not_shared_under_dropout(monkeypatch):
    model = made(encoder="text", dropout=0.25)
    shared = []
    original = type(model.clip.text).encode
    monkeypatch.setattr(
        type(model.clip.text),
        "encode",
        lambda self, e, eot, p=0, **kw: shared.append(p) or original(self, e, eot, p, **kw),
    )
    model.train().text_features()
    model.eval().text_features()
    assert shared == [0, 5]  # start of text, a, photo, of, a


def test_positions_follow_the_authors_tables():
    want = {"all": range(12), "half-up": range(6, 12), "half-bottom": range(6), "up": range(8, 12), "mid": range(4, 8),
            "bottom": range(4), "top3": range(9, 12), "top2": range(10, 12), "top1": range(11, 12)}  # fmt: skip
    assert {p: layers_at(p, 12) for p in want} == {p: list(r) for p, r in want.items()}
    assert layers_at("half-up", 24) == list(range(12, 24))
    with pytest.raises(FewshotError, match="did you mean 'half-up'"):
        layers_at("halfup", 12)


def test_parameters_of_the_paper():
    """184,320 for q, k, v of 12 blocks of width 768 and 12 of width 512 at rank 2."""

    class Attn:
        def __init__(self, w):
            self.in_proj_weight = torch.empty(3 * w, w)

    class Block:
        def __init__(self, w):
            self.attn = Attn(w)

    total = 0
    for width in (768, 512):
        made = lora.LowRank([Block(width)] * 12, range(12), "qkv", 2, 1.0, 0.25, torch.Generator())
        total += sum(p.numel() for p in made.parameters())
    assert total == 184_320


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (dict(encoder="txt"), "did you mean 'text'"),
        (dict(params=("q", "w")), "unknown attention matrix 'w'"),
        (dict(params=("q", "q")), "each matrix to adapt once"),
        (dict(r=0), "rank must be 1 or more"),
        (dict(dropout=1.0), "dropout in"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, says):
    with pytest.raises(FewshotError, match=says):
        CLIPLoRA(tiny.clip(), tiny.task(), CLIPLoRA.Config(**given))


def test_chunks_of_classes_give_the_same_gradient():
    whole, chunked = made(dropout=0.0, encoder="text"), made(dropout=0.0, encoder="text", chunk=3)
    x, y = torch.randn(4, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 3])
    for model in (whole, chunked):
        model.train().backward(x, y)
    for a, b in zip(whole.parameters(), chunked.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-5 * float(a.grad.abs().max()))
