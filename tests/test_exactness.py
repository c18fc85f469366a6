"""Cut, shared, packed and chunked text passes give every method the loss and gradient of the plain encoder.

Every text pass of a method goes through `TextTower.run`. The reference puts in its place the encoder that knows no
saving: all classes at once and each in full, prefix and suffix joined and padded to 77 positions.
"""

import pytest
import tiny
import torch

from fewshot.clip import Block, Clip, TextTower
from fewshot.methods import get_method
from fewshot.methods.method import Names, make_config

NAMES = ("forest", "black footed albatross or a sea bird", "Grizzly_bear", "café au lait", "x", "sea or lake")
CASES = {
    "coop": dict(n_ctx=4),
    "coop words": dict(ctx_init="a photo of a"),
    "coop csc": dict(n_ctx=4, csc=True),
    "coop middle": dict(n_ctx=5, class_token_position="middle"),
    "coop front": dict(n_ctx=4, class_token_position="front"),
    "coop csc middle": dict(n_ctx=4, csc=True, class_token_position="middle"),
    "cocoop": {},
    "cocoop noise": dict(n_ctx=5, ctx_init=""),
    "kgcoop": {},
    "kgcoop middle": dict(n_ctx=4, ctx_init="", class_token_position="middle"),
    "prograd": {},
    "prograd noise": dict(n_ctx=4, ctx_init=""),
    "plotpp": {},
    "maple": dict(prompt_depth=3),
    "maple shallow": dict(prompt_depth=2, n_ctx=3),
    "clip_lora": dict(encoder="both", dropout=0.0),
    "clip_lora qkvo": dict(encoder="text", dropout=0.0, params=("q", "k", "v", "o"), position="top2"),
}
DROPOUT = {
    "clip_lora dropout": dict(encoder="text"),
    "clip_lora dropout qo": dict(encoder="text", params=("q", "o"), dropout=0.5),
    **{f"clip_lora {position}": dict(encoder="text", position=position) for position in ("all", "half-up", "top1")},
}


@pytest.fixture(scope="module")
def clip():
    made = Clip.from_state_dict(tiny.config(), tiny.weights(), "double", device="cpu")
    made.model.double()
    return made


def plain(self, prefix, suffix, eot, *, deep=None, adapters=None):
    """In place of TextTower.run: all K suffixes of each prefix written out, over all positions, row by row."""
    n = len(suffix)
    if prefix is None:
        x = suffix
    else:
        x = torch.cat((prefix.repeat_interleave(n // len(prefix), dim=0), suffix), dim=1)
    empty = self.embed(torch.zeros(n, self.module.context_length - x.shape[1], dtype=torch.long))
    return self._plain(torch.cat((x, empty), dim=1), eot.repeat(n // len(eot)), deep, adapters)


def step(model, x, labels, stage):
    """Loss, gradients and the logits of an evaluation."""
    model.train().zero_grad(set_to_none=True)
    model.begin(stage)
    loss = model.backward(x, labels)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        return loss, gradients, model.eval().logits(x)


def close(got, want, what):
    assert got.dtype == want.dtype == torch.float64 and got.shape == want.shape, what
    assert float(want.abs().max()) > 0, what
    assert float((got - want).abs().max()) <= 1e-9 * float(want.abs().max()), what


def build(clip, case, chunk):
    cls = get_method(case.split()[0])
    model = cls(clip, Names("tiny", NAMES, "a photo of a {}.", 4), make_config(cls, {**(CASES | DROPOUT)[case], "chunk": chunk}))
    gen = torch.Generator().manual_seed(1)
    for p in model.double().parameters():  # nothing stays at zero
        p.data += 0.1 * torch.randn(p.shape, generator=gen, dtype=torch.float64)
    return model


@pytest.mark.parametrize("chunk", [0, 2])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_the_plain_encoder(clip, monkeypatch, case, chunk):
    model = build(clip, case, chunk)
    with monkeypatch.context() as patch:  # the reference runs what is frozen at every step too
        patch.setattr(TextTower, "above", lambda self, embeddings, first: (self, embeddings))
        reference = build(clip, case, 0)
    x = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x, labels = clip.encode_image(x) if model.needs == "features" else x, torch.tensor([0, 1, 2, 3, 5])
    fast, calls = TextTower.run, []
    for stage in model.stages():
        calls.clear()
        monkeypatch.setattr(TextTower, "run", lambda *a, **kw: calls.append(1) or fast(*a, **kw))
        got = step(model, x, labels, stage)
        assert calls, "no text pass went through TextTower.run"
        monkeypatch.setattr(TextTower, "run", plain)
        want = step(reference, x, labels, stage)
        close(got[0], want[0], "loss")
        assert got[1].keys() == want[1].keys() and got[1]
        for name, gradient in got[1].items():
            close(gradient, want[1][name], name)
        close(got[2], want[2], "logits")


@pytest.mark.parametrize("case", ["clip_lora dropout", "clip_lora dropout qo"])
def test_packing_changes_no_dropout_mask(clip, case):
    x, labels = torch.randn(3, 32, dtype=torch.float64), torch.tensor([0, 1, 5])
    found = []
    for packed in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clip.text, "packs", packed)
            torch.manual_seed(3)
            found.append(step(build(clip, case, 0), x, labels, ""))
    close(found[0][0], found[1][0], "loss")
    for name, gradient in found[0][1].items():
        close(gradient, found[1][1][name], name)


@pytest.mark.parametrize("case", ["coop", "coop csc", "cocoop", "plotpp", "clip_lora"])
def test_padding_is_not_computed(clip, monkeypatch, case):
    """Fewer positions reach an MLP than where every prompt is as long as the longest, and the features are the same."""
    seen, mlp = [], Block.mlp
    monkeypatch.setattr(Block, "mlp", lambda self, h: seen.append(h.shape[:-1].numel()) or mlp(self, h))

    @torch.no_grad()
    def features():
        model = build(clip, case, 0).eval()
        given = torch.eye(32, dtype=torch.float64)[:2] if case == "cocoop" else None
        del seen[:]
        return model.text_features() if given is None else model.text_features(given)

    packed, positions = features(), max(seen)
    monkeypatch.setattr(clip.text, "packs", False)
    close(packed, features(), case)
    assert positions < 0.8 * max(seen)


@pytest.mark.parametrize("position", ["all", "half-up", "top1"])
def test_frozen_blocks_below_the_first_branch_run_once(clip, monkeypatch, position):
    model, calls = build(clip, f"clip_lora {position}", 0), []
    mlp = Block.mlp
    monkeypatch.setattr(Block, "mlp", lambda self, h: calls.append(self.module) or mlp(self, h))
    first = model.text.layers[0]
    model.train().text_features()
    assert first == {"all": 0, "half-up": 2, "top1": 2}[position]
    assert set(calls) == {block.module for block in clip.text.blocks[first:]}
